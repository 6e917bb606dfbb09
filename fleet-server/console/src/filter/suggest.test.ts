import { describe, expect, it } from "vitest";
import { type Known, suggest, withoutTerm, withTerm } from "./suggest";

const known: Known = {
  labels: { site: ["tokyo", "osaka"], room: ["clean room"] },
  models: { "vision/digits": ["2", "1"], "vision/defect": ["1.4.2"] },
};
const terms = (filter: string, caret = filter.length) => suggest(filter, caret, known).map(({ term }) => term);

describe("suggestions", () => {
  it("begin with labels and facts", () => {
    expect(terms("")).toEqual(["room:", "site:", "state:", "model:", "id:", "seen:", "sim:"]);
  });

  it("narrow with each letter", () => {
    expect(terms("s")).toEqual(["site:", "state:", "seen:", "sim:"]);
    expect(terms("st")).toEqual(["state:"]);
  });

  it("offer values of a label and of a fact", () => {
    expect(terms("site:")).toEqual(["site:osaka", "site:tokyo"]);
    expect(terms("state:un")).toEqual(["state:unhealthy"]);
  });

  it("offer versions after the model", () => {
    expect(terms("model:vision/di")).toEqual(["model:vision/digits"]);
    expect(terms("model:vision/digits@")).toEqual(["model:vision/digits@2", "model:vision/digits@1"]);
  });

  it("keep the minus of a term that is turned round", () => {
    expect(terms("-state:off")).toEqual(["-state:offline"]);
  });

  it("put a value with a space into quotes", () => {
    expect(terms("room:")).toEqual(['room:"clean room"']);
  });

  it("offer nothing for a term that is complete or unknown", () => {
    expect(terms("state:offline")).toEqual([]);
    expect(terms("nonsense")).toEqual([]);
  });

  it("replace the term in which the caret stands, and no other", () => {
    const [first] = suggest("sta site:tokyo", 3, known);

    expect(first).toEqual({ filter: "state:site:tokyo", term: "state:", caret: 6 });
  });
});

describe("terms", () => {
  it("are put in once and taken out", () => {
    expect(withTerm("site:tokyo", "state:offline")).toBe("site:tokyo state:offline");
    expect(withTerm("site:tokyo state:offline", "state:offline")).toBe("site:tokyo state:offline");
    expect(withoutTerm("site:tokyo state:offline", "site:tokyo")).toBe("state:offline");
  });
});
