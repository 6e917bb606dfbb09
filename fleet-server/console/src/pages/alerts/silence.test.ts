import { describe, expect, it } from "vitest";
import { likeOf } from "./silence";

describe("what is like an alert", () => {
  it("is of its kind, at the narrowest place that it names", () => {
    expect(likeOf({ kind: "disk-full", labels: { device: "cam-1", site: "osaka" } })).toEqual(["kind=disk-full", "device=cam-1"]);
    expect(likeOf({ kind: "drift", labels: { model: "vision/digits", site: "osaka" } })).toEqual(["kind=drift", "site=osaka"]);
    expect(likeOf({ kind: "store-behind", labels: {} })).toEqual(["kind=store-behind"]);
  });
});
