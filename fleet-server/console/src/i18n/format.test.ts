import { describe, expect, it } from "vitest";
import { formatAge, formatBytes, formatDuration, formatShare, shortDigest } from "./format";

const NOW = 1_790_000_000_000;
const before = (seconds: number) => formatAge("en", NOW - seconds * 1000, NOW);

describe("an age", () => {
  it.each([
    [0, "0s ago"],
    [59, "59s ago"],
    [60, "1m ago"],
    [3_599, "59m ago"],
    [3_600, "1h ago"],
    [172_799, "47h ago"],
    [172_800, "2d ago"],
  ])("of %i seconds is %s", (seconds, text) => {
    expect(before(seconds)).toBe(text);
  });

  it("of something to come says so", () => {
    expect(formatAge("en", NOW + 90_000, NOW)).toBe("in 1m");
    expect(formatAge("en", NOW + 3_000, NOW)).toBe("in 3s");
  });

  it("is not in the future because two clocks differ a little", () => {
    expect(formatAge("en", NOW + 2_000, NOW)).toBe("0s ago");
  });

  it("is written in Japanese", () => {
    expect(formatAge("ja", NOW - 5_000, NOW)).toBe("5秒前");
  });
});

describe("numbers", () => {
  it.each([
    [0, "0 %"],
    [0.143, "14.3 %"],
    [0.05, "5 %"],
    [0.0001, "< 0.1 %"],
    [1, "100 %"],
  ])("the share %f is %s", (share, text) => {
    expect(formatShare("en", share)).toBe(text);
  });

  it.each([
    [0, "0 B"],
    [1023, "1,023 B"],
    [1024, "1 KiB"],
    [183_422, "179.1 KiB"],
    [3 * 1024 ** 3, "3 GiB"],
  ])("%i bytes are %s", (bytes, text) => {
    expect(formatBytes("en", bytes)).toBe(text);
  });

  it.each([
    [0, "0 sec"],
    [59, "59 sec"],
    [90, "1 min 30 sec"],
    [3_600, "1 hr"],
    [90_061, "1 day 1 hr"],
  ])("%i seconds last %s", (seconds, text) => {
    expect(formatDuration("en", seconds)).toBe(text);
  });

  it("a digest is cut to what an eye compares", () => {
    expect(shortDigest(`sha256:${"0123456789abcdef".repeat(4)}`)).toBe("0123456789ab");
  });
});
