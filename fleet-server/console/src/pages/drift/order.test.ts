import { describe, expect, it } from "vitest";
import type { DriftState, DriftView } from "../../api/types";
import { firstSubjects, scopesOf, subjectsOf, worstOf } from "./order";

describe("verdicts", () => {
  it("are worst by state, then by how far they are over their threshold", () => {
    const found = [verdict("a", "fleet", "suspect", 0.9), verdict("b", "fleet", "drifted", 0.3), verdict("c", "fleet", "drifted", 0.4)];

    expect(worstOf(found)?.subject).toBe("c");
    expect(subjectsOf(found)).toEqual(["c", "b", "a"]);
    expect(worstOf([])).toBeUndefined();
  });

  it("stand by the whole fleet, then sites, then devices", () => {
    const scopes = ["device:cam-10", "site=tokyo", "device:cam-2", "fleet", "site=osaka"];

    expect(scopesOf(scopes.map((scope) => verdict("a", scope)))).toEqual(["fleet", "site=osaka", "site=tokyo", "device:cam-2", "device:cam-10"]);
  });

  it("of many steady features are not shown first", () => {
    const features = Array.from({ length: 64 }, (_, index) => verdict(`feature:p${index}`, "fleet"));
    const found = [...features, verdict("group:upper", "fleet"), verdict("feature:p99", "fleet", "drifted", 0.5)];

    expect(firstSubjects(found)).toEqual(["feature:p99", "group:upper"]);
    expect(firstSubjects(features)).toHaveLength(16);
  });
});

function verdict(subject: string, scope: string, state: DriftState = "steady", value = 0.01): DriftView {
  return { model: "vision/digits", version: "2", scope, subject, state, metric: "psi", value, threshold: 0.2, rows: 1, from: 0, until: 1, why: "" };
}
