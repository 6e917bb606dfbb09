import { describe, expect, it } from "vitest";
import type { ModelView, VersionView } from "../api/types";
import { type Choice, commandOf, firstChoice, missingOf, PREVIOUS, proofOf, requestOf, targetsOf, THEN } from "./plan";

const choice: Choice = { model: "vision/digits", target: PREVIOUS, filter: "", reason: "scratches are missed" };

describe("the first choice", () => {
  it("is the most served model and its previous healthy version", () => {
    const models = [model("vision/a", ["1", 2]), model("vision/b", ["1", 3], ["2", 4])];

    expect(firstChoice(models, {})).toEqual({ model: "vision/b", target: PREVIOUS, filter: "", reason: "" });
  });

  it("follows the wish", () => {
    const models = [model("vision/a", ["1", 2]), model("vision/b", ["1", 3])];

    expect(firstChoice(models, { model: "vision/a", filter: "id:cam-1" })).toMatchObject({ model: "vision/a", filter: "id:cam-1" });
  });
});

describe("targets", () => {
  it("are signed and not quarantined", () => {
    const found = model("vision/a", ["3", 0, "unsigned"], ["2", 0, "quarantined"], ["1", 0]);

    expect(targetsOf(found).map(({ version }) => version)).toEqual(["1"]);
    expect(targetsOf(undefined)).toEqual([]);
  });
});

describe("a request", () => {
  it("names the previous version as a word, and another as a version", () => {
    expect(requestOf(choice, true)).toMatchObject({ to: "previous", dry_run: true });
    expect(requestOf({ ...choice, target: "1" }, false)).toMatchObject({ to: { version: "1" }, dry_run: false });
  });

  it("names a time, and devices one by one", () => {
    const then = { ...choice, target: THEN, time: "2026-07-01T03:00", devices: "cam-1, cam-2" };

    expect(requestOf(then, true)).toMatchObject({ to: { time: Date.parse("2026-07-01T03:00") }, devices: ["cam-1", "cam-2"] });
    const at = new Date("2026-07-01T03:00").toISOString();
    expect(commandOf(then)).toBe(
      `fleetctl rollback vision/digits --to-time ${at} --device 'cam-1' --device 'cam-2' --reason 'scratches are missed'`,
    );
    expect(missingOf({ ...then, time: "" }, { devices: 3 })).toBe("time");
  });

  it("carries reason and filter without spaces around them", () => {
    expect(requestOf({ ...choice, filter: " site:tokyo ", reason: " x " }, false)).toMatchObject({ filter: "site:tokyo", reason: "x" });
  });
});

describe("what is missing", () => {
  it.each([
    ["model", { ...choice, model: "" }, { devices: 3 }],
    ["effect", choice, undefined],
    ["devices", choice, { devices: 0 }],
    ["reason", { ...choice, reason: " " }, { devices: 3 }],
    [undefined, choice, { devices: 3 }],
  ] as const)("is %s", (missing, given, effect) => {
    expect(missingOf(given, effect)).toBe(missing);
  });
});

describe("the command", () => {
  it("says the same for a terminal", () => {
    const given = { ...choice, target: "1", filter: "site:tokyo" };

    expect(commandOf(given)).toBe("fleetctl rollback vision/digits --to 1 -l 'site:tokyo' --reason 'scratches are missed'");
  });

  it("lets no reason out of its quotes", () => {
    expect(commandOf({ ...choice, reason: "it's $(bad)" })).toContain(`--reason 'it'\\''s $(bad)'`);
  });
});

describe("the proof", () => {
  it("counts devices that report the version, on trial or kept", () => {
    expect(proofOf({ progress: { succeeded: 3, probation: 2, offered: 1, silent: 1 } })).toEqual({
      serving: 5,
      kept: 3,
      bad: 1,
      waiting: 1,
      total: 7,
      isProved: false,
    });
  });

  it("is there when every device that must report it does", () => {
    expect(proofOf({ progress: { succeeded: 3, "not-applicable": 2, superseded: 1 } })).toMatchObject({ total: 3, isProved: true });
  });

  it("is not there for nobody", () => {
    expect(proofOf({ progress: {} }).isProved).toBe(false);
  });
});

function model(name: string, ...versions: [version: string, devices: number, state?: VersionView["state"]][]): ModelView {
  const view = ([version, devices, state = "signed"]: (typeof versions)[number]): VersionView => ({
    model: name,
    version,
    state,
    digest: `sha256:${"0".repeat(64)}`,
    size_bytes: 1,
    pushed_at: 0,
    signed_by: [],
    epoch: 1,
    family: "",
    description: "",
    licenses: [],
    variants: [],
    has_baseline: false,
    devices,
    rollouts: [],
  });
  return { name, description: "", versions: versions.map(view) };
}
