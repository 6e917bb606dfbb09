import { describe, expect, it } from "vitest";
import { commandOf, type Draft, draftOf, faultOf, rolloutOf } from "./draft";
import { groupReasons } from "./why";

const draft: Draft = { ...draftOf([], {}), model: "vision/digits", version: "2" };

describe("a draft", () => {
  it("begins with waves that the server takes", () => {
    expect(faultOf(draft)).toBeUndefined();
  });

  it.each([
    ["version", { version: "" }],
    ["waves", { waves: [{ name: "", percent: Number.NaN, soakMinutes: 0 }] }],
    ["waves", { waves: [{ name: "", percent: 101, soakMinutes: 0 }] }],
    ["rising", { waves: [{ name: "", percent: 50, soakMinutes: 0 }, { name: "", percent: 50, soakMinutes: 0 }] }],
    ["last", { waves: [{ name: "", percent: 99, soakMinutes: 0 }] }],
    ["limits", { maxBadPercent: 101 }],
    ["limits", { trialMinutes: Number.NaN }],
  ] as const)("has the fault %s", (fault, part) => {
    expect(faultOf({ ...draft, ...part } as Draft)).toBe(fault);
  });

  it("is sent in the server's units", () => {
    expect(rolloutOf({ ...draft, waves: [{ name: "all", percent: 100, soakMinutes: 1.5 }], maxBadPercent: 5, trialMinutes: 2 })).toEqual({
      model: "vision/digits",
      version: "2",
      filter: "",
      waves: [{ name: "all", percent: 100, soak_s: 90, max_bad_share: 0.05 }],
      trial: { probation_s: 120 },
      reason: "",
    });
  });

  it("is the same as a command", () => {
    const waves = [
      { name: "", percent: 5, soakMinutes: 0.5 },
      { name: "", percent: 100, soakMinutes: 60 },
    ];

    expect(commandOf({ ...draft, waves, filter: "site:tokyo", reason: "better" })).toBe(
      "fleetctl rollout create vision/digits@2 -l 'site:tokyo' --waves 5%:30s,100%:60m --max-bad-share 0.1 --probation-s 600 --reason 'better'",
    );
  });
});

describe("reasons", () => {
  it("are grouped whatever device they name, most devices first", () => {
    const why = (device: string, text: string) => ({ device, wave: 0, progress: "failed" as const, why: text });

    const reasons = groupReasons([why("cam-1", "disk full"), why("cam-2", "cam-2 refused"), why("cam-3", "cam-3 refused")]);

    expect(reasons.map(({ devices }) => devices.map(({ device }) => device))).toEqual([["cam-2", "cam-3"], ["cam-1"]]);
  });
});
