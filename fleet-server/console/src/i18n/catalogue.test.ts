import { describe, expect, expectTypeOf, it } from "vitest";
import { en, type Key, type Messages } from "./en";
import { interpolate, type Places, placesOf } from "./interpolate";
import { ja } from "./ja";
import { localeOf } from "./language";

/** Without the places that only pick a word: Japanese needs none. */
const withoutWords = (text: string) => text.replace(/\{\w+:[^}]*\}/g, "");
const keys = Object.keys(en) as Key[];

describe("catalogues", () => {
  it("have the same keys", () => {
    expect(Object.keys(ja).sort()).toEqual([...keys].sort());
  });

  it.each(keys)("says %s in both languages with the same places", (key) => {
    expect(ja[key].trim()).not.toBe("");
    expect(placesOf(en[key])).toEqual(expect.arrayContaining(placesOf(ja[key])));
    expect(placesOf(withoutWords(ja[key]))).toEqual(placesOf(withoutWords(en[key])));
  });

  it("do not compile when a key is missing", () => {
    const { "nav.overview": _, ...rest } = ja;

    expectTypeOf(rest).not.toExtend<Messages>();
    expectTypeOf(ja).toExtend<Messages>();
  });
});

describe("interpolate", () => {
  it("fills places and picks the word by the number", () => {
    const text = "{count} {count:device|devices} on {version}";

    expect(interpolate(text, { count: 1, version: "2" })).toBe("1 device on 2");
    expect(interpolate(text, { count: 0, version: "2" })).toBe("0 devices on 2");
  });

  it("leaves a place without a value in sight", () => {
    expect(interpolate("to {version}", {})).toBe("to {version}");
  });

  it("does not fill places inside of values", () => {
    expect(interpolate("{a}{b}", { a: "{b}", b: "x" })).toBe("{b}x");
  });

  it("knows its places at compile time", () => {
    expectTypeOf<Places<"{count} {count:device|devices} on {version}">>().toEqualTypeOf<"count" | "version">();
    expectTypeOf<Places<"nothing">>().toEqualTypeOf<never>();
  });
});

describe("a locale", () => {
  it("writes numbers in messages as its language does", () => {
    expect(localeOf("en").say("filter.matches", { count: 1234 })).toBe("1,234 devices");
    expect(localeOf("ja").say("filter.matches", { count: 1 })).toBe("1 台");
  });
});
