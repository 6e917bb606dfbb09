import { describe, expect, it } from "vitest";
import { exampleOf, firstRow, outputsOf, parseQuestion } from "./question";

const spec = (rest: object) => ({ name: "x", datatype: "FP32", shape: [-1, 2], ...rest });

describe("an example", () => {
  it("is one row that keeps the contract", () => {
    const example = exampleOf([spec({}), spec({ name: "t", datatype: "BYTES", shape: [1] }), spec({ name: "b", datatype: "BOOL", shape: [] })]);
    expect(JSON.parse(example ?? "")).toEqual({
      inputs: [
        { name: "x", datatype: "FP32", shape: [1, 2], data: [0, 0] },
        { name: "t", datatype: "BYTES", shape: [1], data: [""] },
        { name: "b", datatype: "BOOL", shape: [], data: [false] },
      ],
    });
  });

  it("is not made where nobody could read it", () => {
    expect(exampleOf([spec({ shape: [1, 3, 224, 224] })])).toBeUndefined();
  });
});

describe("a question", () => {
  it("is an object of JSON", () => {
    expect(parseQuestion('{"inputs": []}')).toEqual({ inputs: [] });
    for (const text of ["", "{", "[1]", "null", "7"]) expect(parseQuestion(text)).toBeUndefined();
  });
});

describe("an answer", () => {
  it("shows the likeliest classes by their names", () => {
    const tensor = { name: "p", datatype: "FP32", shape: [2, 3], data: [0.1, 0.7, 0.2, 1, 0, 0] };
    const labelled = spec({ role: "probabilities", labels: ["cat", "dog"] });
    expect(firstRow(tensor, labelled)).toEqual([
      { name: "dog", value: "0.7000" },
      { name: "2", value: "0.2000" },
      { name: "cat", value: "0.1000" },
    ]);
  });

  it("shows a class with its name, and numbers as they came", () => {
    const label = { name: "label", datatype: "INT64", shape: [2], data: [1, 0] };
    expect(firstRow(label, spec({ role: "class", labels: ["cat", "dog"] }))).toEqual([{ name: "1", value: "dog" }]);
    const raw = { name: "raw", datatype: "FP32", shape: [1, 9], data: [[1, 2, 3, 4, 5, 6, 7, 8, 9]] };
    expect(firstRow(raw, undefined)).toEqual([{ name: "[1, 9]", value: "1, 2, 3, 4, 5, 6, 7, 8, …" }]);
  });

  it("is nothing where the device has sent something else", () => {
    for (const nonsense of [null, "x", {}, { outputs: 7 }]) expect(outputsOf(nonsense)).toEqual([]);
  });
});
