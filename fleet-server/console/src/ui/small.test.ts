import { describe, expect, it } from "vitest";
import { linePath } from "../charts/sparkline";
import { insidePath } from "../pages/login";
import { labelsOf } from "../pages/settings/labels";
import { byVersion } from "./version-order";

describe("versions", () => {
  it("are ordered by numbers where they are numbers", () => {
    const versions = ["1.10", "1.9", "2", "1.9-rc1", "1.9.1"];

    expect(versions.sort(byVersion)).toEqual(["1.9", "1.9.1", "1.10", "1.9-rc1", "2"]);
  });
});

describe("a path after the login", () => {
  it.each([
    ["/rollouts/r-3?x=1", "/rollouts/r-3?x=1"],
    [undefined, "/"],
    ["https://elsewhere.example", "/"],
    ["//elsewhere.example", "/"],
    ["/\\elsewhere.example", "/"],
    ["/login", "/"],
  ])("of %s is %s", (to, path) => {
    expect(insidePath(to)).toBe(path);
  });
});

describe("typed labels", () => {
  it("are pairs; a value may have an equals sign", () => {
    expect(labelsOf(" site=tokyo  note=a=b ")).toEqual({ site: "tokyo", note: "a=b" });
    expect(labelsOf("site")).toEqual({ site: "" });
  });
});

describe("a sparkline", () => {
  it("goes from the left edge to the right, the largest value on top", () => {
    expect(linePath([0, 10])).toBe("M0.0 23.0L120.0 1.0");
  });
});
