// What a rollback asks for, decided from what is chosen and what is known. Pure.

import type { DeviceProgress, ModelView, RollbackRequest, RollbackTarget, RolloutView, VersionView } from "../api/types";
import { shellQuote } from "../ui/shell-quote";

export interface Choice {
  model: string;
  /** `previous`, `then`, or a version. */
  target: string;
  /** The local date and time that `then` stands for, as the browser's field gives it. */
  time?: string;
  filter: string;
  /** Ids of single devices, with spaces or commas between; empty for all that the filter names. */
  devices?: string;
  reason: string;
}

/** Stands for the version before the present one that was rolled out with success. */
export const PREVIOUS = "previous";

/** Stands for what each device itself ran at a time. */
export const THEN = "then";

/** The first choice: the wished model, or the only or most served one; and the previous healthy version. */
export function firstChoice(models: ModelView[], wish: Partial<Choice>): Choice {
  const served = [...models].sort((left, right) => devicesOf(right) - devicesOf(left));
  return {
    model: wish.model ?? served[0]?.name ?? "",
    target: wish.target ?? PREVIOUS,
    filter: wish.filter ?? "",
    reason: wish.reason ?? "",
  };
}

function devicesOf(model: ModelView): number {
  return model.versions.reduce((sum, version) => sum + version.devices, 0);
}

/** Versions that may be gone back to by name: signed ones that are not quarantined. */
export function targetsOf(model: ModelView | undefined): VersionView[] {
  return (model?.versions ?? []).filter((version) => version.state === "signed");
}

export function requestOf(choice: Choice, isDryRun: boolean): RollbackRequest {
  return {
    model: choice.model,
    to: targetOf(choice),
    filter: choice.filter.trim(),
    devices: devicesOfChoice(choice),
    reason: choice.reason.trim(),
    dry_run: isDryRun,
  };
}

function targetOf({ target, time = "" }: Choice): RollbackTarget {
  if (target === PREVIOUS) return "previous";
  return target === THEN ? { time: Date.parse(time) } : { version: target };
}

function devicesOfChoice({ devices = "" }: Choice): string[] {
  return devices.split(/[\s,]+/).filter((id) => id !== "");
}

/** Whether it can be asked what the choice would do. */
export function isAskable({ model, target, time = "" }: Choice): boolean {
  return model !== "" && (target !== THEN || !Number.isNaN(Date.parse(time)));
}

/** What still keeps the rollback from being started; none if nothing does. */
export type Missing = "model" | "time" | "reason" | "effect" | "devices";

export function missingOf(choice: Choice, effect: { devices: number } | undefined): Missing | undefined {
  if (choice.model === "") return "model";
  if (!isAskable(choice)) return "time";
  if (effect === undefined) return "effect";
  if (effect.devices === 0) return "devices";
  if (choice.reason.trim() === "") return "reason";
  return undefined;
}

/** The same rollback for a terminal. */
export function commandOf(choice: Choice): string {
  const words = ["fleetctl", "rollback", choice.model];
  const to = targetOf(choice);
  if (typeof to === "object" && "time" in to) {
    const at = Number.isNaN(to.time) ? "…" : new Date(to.time).toISOString();
    words.push("--to-time", at);
  } else words.push("--to", choice.target);
  for (const device of devicesOfChoice(choice)) words.push("--device", shellQuote(device));
  if (choice.filter.trim() !== "") words.push("-l", shellQuote(choice.filter.trim()));
  words.push("--reason", shellQuote(choice.reason.trim() === "" ? "…" : choice.reason.trim()));
  return words.join(" ");
}

export interface Proof {
  /** Devices that report that they serve the version. */
  serving: number;
  /** Of these, those that have kept it. */
  kept: number;
  /** Devices that will not serve it without somebody's help. */
  bad: number;
  /** Devices that have not answered yet. */
  waiting: number;
  total: number;
  isProved: boolean;
}

/** Reads from a rollout how many devices prove it by their own reports. */
export function proofOf(rollout: Pick<RolloutView, "progress">): Proof {
  const count = (...states: DeviceProgress[]) =>
    states.reduce((sum, state) => sum + (rollout.progress[state] ?? 0), 0);
  const kept = count("succeeded");
  const serving = kept + count("probation");
  const bad = count("failed", "rejected", "rolled-back", "silent");
  const waiting = count("queued", "offered", "in-progress", "offline");
  const total = serving + bad + waiting;
  return { serving, kept, bad, waiting, total, isProved: total > 0 && serving === total };
}
