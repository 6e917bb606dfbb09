import { describe, expect, it } from "vitest";
import { readFileSync } from "node:fs";
import { curvesOf, factAfter } from "./course-curves";
import { type Draft, draftFrom, draftOf, faultOf, newWave, rolloutOf } from "./draft";
import { newBehaviour, newShadow } from "./trial";
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
    ["behaviour", { behaviour: { ...newBehaviour, latencyRisePercent: 4.9 } }],
    ["behaviour", { behaviour: { ...newBehaviour, confidenceDropPercent: 1.9 } }],
    ["behaviour", { behaviour: { ...newBehaviour, classLossPercent: Number.NaN } }],
    ["behaviour", { behaviour: { ...newBehaviour, steadyMinutes: 0 } }],
    ["shadow", { shadow: { ...newShadow, minutes: 0 } }],
    ["shadow", { shadow: { ...newShadow, agreementPercent: 49 } }],
    ["shadow", { shadow: { ...newShadow, agreementPercent: 100 } }],
    ["shadow", { shadow: { ...newShadow, splitPercent: 51 } }],
    ["shadow", { shadow: { ...newShadow, cpuPercent: 0 } }],
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
    const behaviour = { ...newBehaviour, steadyMinutes: 10 };
    const shadow = { ...newShadow, splitPercent: 10, quiet: "fail" as const };
    const full: Draft = { ...draft, behaviour, shadow, filter: "site:tokyo", waves: [lab, all], window, budgetLabel: "site", budgetUnit: "percent", budgetAmount: 10, tailDays: 2, reason: "reads: sevens better" };

    const rollout = { ...rolloutOf(full), start_at: 1_790_000_000_000 };
    const { reason, tail_s, ...rest } = rollout;
    // fleetctl's own test reads the very same file.
    expect(yamlOf({ ...rest, tail_s, reason })).toBe(readFileSync("src/pages/rollout/example.yaml", "utf8"));
  });
});

describe("how each device tries it", () => {
  const saved = (part: Partial<Draft>) => {
    const { waves = [], ...rollout } = rolloutOf({ ...draft, ...part });
    return { ...rollout, tail_s: 604_800, id: "r-3", waves: waves.map((plan) => ({ plan })) } as unknown as Parameters<typeof draftFrom>[0];
  };

  it("leaves a rule of 0 out of what is judged, and keeps the others", () => {
    const { trial } = rolloutOf({ ...draft, behaviour: { ...newBehaviour, confidenceDropPercent: 0, steadyMinutes: 0.5 } });
    expect(faultOf({ ...draft, behaviour: { ...newBehaviour, confidenceDropPercent: 0 } })).toBeUndefined();
    expect(trial?.behaviour).toEqual({ latency_rise_permille: 250, confidence_drop_permille: 0, class_loss_permille: 600, steady_s: 30 });
  });

  it("halts where all devices together disagree on more than is left, or on what is said", () => {
    const gates = (shadow: Draft["shadow"]) => rolloutOf({ ...draft, shadow }).waves?.map(({ gates }) => gates);
    const [one, two, three] = [{ disagreement: 0.005 }, { disagreement: 0.01 }, undefined].map((gate) => Array(3).fill(gate));
    expect(gates({ ...newShadow, agreementPercent: 99.5 })).toEqual(one);
    expect(gates({ ...newShadow, disagreementPercent: 1 })).toEqual(two);
    expect(gates({ ...newShadow, agreementPercent: 0 })).toEqual(three);
    expect(gates(undefined)).toEqual(three);
  });

  it.each([
    ["nothing", {}],
    ["rules", { behaviour: newBehaviour }],
    ["a shadow", { shadow: { ...newShadow, quiet: "fail", disagreementPercent: 1 } }],
    ["a shadow that is not judged", { shadow: { ...newShadow, agreementPercent: 0 } }],
  ] as const)("is changed in a draft with %s and stays what it is otherwise", (_, part) => {
    const again = draftFrom(saved(part as Partial<Draft>));
    expect([again.behaviour, again.shadow]).toEqual([(part as Partial<Draft>).behaviour, (part as Partial<Draft>).shadow]);
    expect(rolloutOf(again)).toEqual(rolloutOf({ ...draft, ...(part as Partial<Draft>) }));
  });

  it("keeps of a saved draft what the form has no field for", () => {
    const view = saved({});
    const wave = { plan: { name: "all", percent: 100, max_error_share: 0.1, gates: { error_rise: null } } };
    const again = draftFrom({ ...view, waves: [wave], trial: { probation_s: 60, lease_s: 90 } } as unknown as typeof view);
    const { trial, waves } = rolloutOf(again);
    expect(trial).toEqual({ probation_s: 60, lease_s: 90 });
    expect(waves?.[0]).toMatchObject({ max_error_share: 0.1, gates: { error_rise: null } });
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
