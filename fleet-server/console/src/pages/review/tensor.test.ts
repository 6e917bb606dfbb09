import { describe, expect, it } from "vitest";
import type { TensorView } from "../../api/types";
import { imageFileOf, numbersOf, pictureOf, shownNumbers } from "./tensor";

function tensor(datatype: string, shape: number[], bytes: Uint8Array): TensorView {
  return { name: "x", datatype, shape, base64: btoa(String.fromCharCode(...bytes)) };
}

const floats = (shape: number[], numbers: number[]) => tensor("FP32", shape, new Uint8Array(Float32Array.from(numbers).buffer));

describe("a tensor", () => {
  it("shows its numbers, shortened, and says how many are left", () => {
    expect(numbersOf(floats([1, 2], [1.5, -2]))).toEqual([1.5, -2]);
    expect(numbersOf(tensor("INT8", [1], Uint8Array.of(255)))).toEqual([-1]);
    expect(numbersOf(tensor("BYTES", [1], Uint8Array.of(0, 0, 0, 0)))).toBeUndefined();
    expect(shownNumbers(floats([300], Array.from({ length: 300 }, () => 0.123456)))).toMatchObject({ left: 44 });
    expect(shownNumbers(floats([1], [0.123456]))?.shown).toEqual(["0.1235"]);
  });

  it("is a picture where it has two long sides, with its channels first or last", () => {
    const grey = pictureOf(floats([1, 8, 8], Array.from({ length: 64 }, (_, place) => place)));
    expect(grey).toMatchObject({ width: 8, height: 8 });
    expect([...(grey?.pixels.slice(0, 4) ?? []), ...(grey?.pixels.slice(-4) ?? [])]).toEqual([0, 0, 0, 255, 255, 255, 255, 255]);
    const first = pictureOf(floats([3, 8, 9], Array.from({ length: 216 }, (_, place) => (place < 72 ? 1 : 0))));
    expect([first?.width, ...(first?.pixels.slice(0, 3) ?? [])]).toEqual([9, 255, 0, 0]);
    const last = pictureOf(floats([1, 8, 9, 3], Array.from({ length: 216 }, (_, place) => (place % 3 === 2 ? 1 : 0))));
    expect([last?.width, ...(last?.pixels.slice(0, 3) ?? [])]).toEqual([9, 0, 0, 255]);
  });

  it("is none where it is a row, or contradicts itself", () => {
    expect(pictureOf(floats([1, 64], Array.from({ length: 64 }, () => 0)))).toBeUndefined();
    expect(pictureOf(floats([8, 8], [1, 2]))).toBeUndefined();
  });

  it("holds a file of an image behind its length", () => {
    const png = Uint8Array.of(4, 0, 0, 0, 0x89, 0x50, 0x4e, 0x47);
    expect(imageFileOf(tensor("BYTES", [1], png))?.type).toBe("image/png");
    expect(imageFileOf(tensor("BYTES", [1], Uint8Array.of(1, 0, 0, 0, 65)))).toBeUndefined();
  });
});
