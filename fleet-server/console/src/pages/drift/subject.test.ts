import { describe, expect, it } from "vitest";
import { localeOf } from "../../i18n/language";
import { subjectText } from "./subject";

describe("what a verdict is about", () => {
  const { say } = localeOf("en");

  it("says what is counted of a picture, with its unit", () => {
    expect(subjectText(say, "feature:image.brightness")).toBe("Picture: brightness (0 to 255)");
    expect(subjectText(say, "group:image.light")).toBe("Picture: light and colour");
    expect(subjectText(localeOf("ja").say, "feature:image.width")).toContain("ピクセル");
  });

  it("leaves what a publisher has named as it is", () => {
    for (const subject of ["feature:p00", "feature:image.mine", "group:g", "prediction", "feature:a:b", "feature:toString"])
      expect(subjectText(say, subject)).toBe(subject);
  });
});
