import { describe, expect, it } from "vitest";
import { deedOf, nextOf } from "./labelling";

const place = { classes: ["no", "yes"], count: 3, at: 1, done: ["a", "b"] };

describe("keys while labelling", () => {
  it("name a class by its number, and nothing where there is none", () => {
    expect(deedOf("1", place)).toEqual({ kind: "label", label: "yes" });
    expect(deedOf("2", place)).toBeUndefined();
    expect(deedOf("1", { ...place, classes: Array.from({ length: 11 }, (_, at) => `c${at}`) })).toBeUndefined();
    expect(deedOf("Enter", place)).toBeUndefined();
  });

  it("go to the neighbours, and not beyond the ends", () => {
    expect(deedOf("ArrowRight", place)).toEqual({ kind: "go", to: 2 });
    expect(deedOf("ArrowLeft", place)).toEqual({ kind: "go", to: 0 });
    expect(deedOf("ArrowRight", { ...place, at: 2 })).toBeUndefined();
    expect(deedOf("ArrowLeft", { ...place, at: 0 })).toBeUndefined();
  });

  it("take back the newest label", () => {
    expect(deedOf("u", place)).toEqual({ kind: "undo", sample: "b" });
    expect(deedOf("u", { ...place, done: [] })).toBeUndefined();
  });
});

describe("after a label", () => {
  it("the next open sample is looked at, round and round", () => {
    expect(nextOf(["a", "b", "c"], 0, ["a", "b"])).toBe(2);
    expect(nextOf(["a", "b", "c"], 2, ["b", "c"])).toBe(0);
    expect(nextOf(["a", "b"], 1, ["a", "b"])).toBe(1);
  });
});
