import { describe, expect, it } from "vitest";
import { readFileSync } from "node:fs";
import { curvesOf, factAfter } from "./course-curves";
import { type Draft, draftOf, faultOf, newWave, rolloutOf } from "./draft";
import { yamlOf } from "./yaml";
import { groupReasons } from "./why";

const draft: Draft = { ...draftOf([], {}), model: "vision/digits", version: "2" };

describe("a draft", () => {
  it("begins with waves that the server takes", () => {
    expect(faultOf(draft)).toBeUndefined();
  });

  it.each([
    ["version", { version: "" }],
    ["waves", { waves: [{ ...newWave, amount: Number.NaN }] }],
    ["waves", { waves: [{ ...newWave, amount: 101 }] }],
    ["rising", { waves: [{ ...newWave, amount: 50 }, { ...newWave, amount: 50 }] }],
    ["last", { waves: [{ ...newWave, amount: 99 }] }],
    ["waves", { waves: [{ ...newWave, unit: "count", amount: 1.5 }] }],
    ["budget", { budgetLabel: "site", budgetAmount: 0 }],
    ["window", { window: { days: 0, from: "22:00", to: "06:00" } }],
    ["limits", { maxBadPercent: 101 }],
    ["limits", { trialMinutes: Number.NaN }],
  ] as const)("has the fault %s", (fault, part) => {
    expect(faultOf({ ...draft, ...part } as Draft)).toBe(fault);
  });

  it("is sent in the server's units", () => {
    expect(rolloutOf({ ...draft, waves: [{ ...newWave, name: "all", soakMinutes: 1.5 }], maxBadPercent: 5, trialMinutes: 2 })).toEqual({
      model: "vision/digits",
      version: "2",
      filter: "",
      waves: [{ name: "all", percent: 100, soak_s: 90, max_bad_share: 0.05 }],
      trial: { probation_s: 120 },
      reason: "",
    });
  });

  it("is the same as the file that fleetctl reads", () => {
    const lab = { ...newWave, name: "lab", unit: "count" as const, amount: 2, filter: "rack:lab", minDevices: 2, soakMinutes: 30 };
    const all = { ...newWave, name: "all" };
    const window = { days: 127, from: "22:00", to: "06:00" };
    const full: Draft = { ...draft, filter: "site:tokyo", waves: [lab, all], window, budgetLabel: "site", budgetUnit: "percent", budgetAmount: 10, tailDays: 2, reason: "reads: sevens better" };

    const rollout = { ...rolloutOf(full), start_at: 1_790_000_000_000 };
    const { reason, tail_s, ...rest } = rollout;
    // fleetctl's own test reads the very same file.
    expect(yamlOf({ ...rest, tail_s, reason })).toBe(readFileSync("src/pages/rollout/example.yaml", "utf8"));
  });
});

describe("the course of a rollout", () => {
  const course = {
    begun_at: 10_000,
    forecast: { done: 4, curve: [{ after_s: 0, devices: 0 }, { after_s: 60, devices: 4 }] },
    fact: [{ at: 40_000, done: 2, refused: 0 }, { at: 70_000, done: 4, refused: 1 }],
  } as unknown as Parameters<typeof curvesOf>[0];

  it("has forecast and fact on one axis", () => {
    expect(curvesOf(course)).toEqual([[0, 30, 60], [0, null, 4], [null, 2, 4]]);
  });

  it("says when as many were done as were foreseen", () => {
    expect([factAfter(course, 50), factAfter(course, 99)]).toEqual([30, 60]);
    expect(factAfter({ ...course, fact: [] }, 50)).toBeUndefined();
  });
});

describe("reasons", () => {
  it("are grouped whatever device they name, most devices first", () => {
    const why = (device: string, text: string) => ({ device, wave: 0, progress: "failed" as const, why: text });

    const reasons = groupReasons([why("cam-1", "disk full"), why("cam-2", "cam-2 refused"), why("cam-3", "cam-3 refused")]);

    expect(reasons.map(({ devices }) => devices.map(({ device }) => device))).toEqual([["cam-2", "cam-3"], ["cam-1"]]);
  });
});
