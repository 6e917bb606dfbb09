// A rollout as it is written in the form, and as it is sent. Pure.

import type { ModelView, RolloutNew, RolloutView, Trial, WavePlan } from "../../api/types";
import { behaviourFrom, behaviourOf, type DraftBehaviour, type DraftShadow, hasFault, maxDisagreement, shadowFrom, shadowOf } from "./trial";

export type Unit = "percent" | "count";

export interface DraftWave {
  name: string;
  unit: Unit;
  /** Up to so many per cent of the devices, or so many devices. */
  amount: number;
  /** Only devices that match this too. */
  filter: string;
  /** Devices that must be done before it is judged; 1 is what there is without it. */
  minDevices: number;
  soakMinutes: number;
  /** Of a saved draft, what the form has no field for. */
  kept?: Pick<WavePlan, "gates" | "max_error_share">;
}

export interface DraftWindow {
  /** Bit 0 is Monday. */
  days: number;
  /** `22:00`. */
  from: string;
  to: string;
}

export interface Draft {
  model: string;
  version: string;
  filter: string;
  waves: DraftWave[];
  /** Devices of a wave that may be bad, 0 to 100. */
  maxBadPercent: number;
  /** How long each device serves the version before it keeps it. */
  trialMinutes: number;
  /** What of its behaviour a device takes the version back for. */
  behaviour: DraftBehaviour | undefined;
  /** How a device compares it with the live version before it makes it live. */
  shadow: DraftShadow | undefined;
  /** Of a saved draft, what the form has no field for. */
  keptTrial: Partial<Trial>;
  /** As `<input type="datetime-local">` has it; empty for at once. */
  startAt: string;
  window: DraftWindow | undefined;
  /** Empty for no budget. */
  budgetLabel: string;
  budgetUnit: Unit;
  budgetAmount: number;
  tailDays: number;
  reason: string;
}

const plain: DraftWave = { name: "", unit: "percent", amount: 100, filter: "", minDevices: 1, soakMinutes: 0 };

/** A few devices first, then a part, then all: what goes wrong shows while it concerns few. */
const usualWaves: DraftWave[] = [
  { ...plain, name: "canary", amount: 5, soakMinutes: 30 },
  { ...plain, name: "early", amount: 25, soakMinutes: 60 },
  { ...plain, name: "all" },
];

export const newWave: DraftWave = plain;
export const newWindow: DraftWindow = { days: 127, from: "22:00", to: "06:00" };
const TAIL_DAYS = 7;

export function draftOf(models: ModelView[], wish: { model?: string; version?: string; filter?: string }): Draft {
  const model = models.find(({ name }) => name === wish.model) ?? models[0];
  const signed = model?.versions.find(({ state }) => state === "signed");
  return {
    model: model?.name ?? "",
    version: wish.version ?? signed?.version ?? "",
    filter: wish.filter ?? "",
    waves: usualWaves,
    maxBadPercent: 10,
    trialMinutes: 10,
    behaviour: undefined,
    shadow: undefined,
    keptTrial: {},
    startAt: "",
    window: undefined,
    budgetLabel: "",
    budgetUnit: "count",
    budgetAmount: 1,
    tailDays: TAIL_DAYS,
    reason: "",
  };
}

/** A draft that was saved, to be changed. */
export function draftFrom(view: RolloutView): Draft {
  const { window, probation_s: probation = 600, behaviour, shadow, ...keptTrial } = view.trial ?? {};
  return {
    model: view.model,
    version: view.version,
    filter: view.filter,
    waves: view.waves.map(({ plan }) => waveFrom(plan)),
    maxBadPercent: (view.waves[0]?.plan.max_bad_share ?? 0.1) * 100,
    trialMinutes: probation / 60,
    behaviour: behaviourFrom(behaviour),
    shadow: shadowFrom(shadow, view.waves[0]?.plan.gates?.disagreement),
    keptTrial,
    startAt: view.start_at == null ? "" : localTime(view.start_at),
    window: window == null ? undefined : { days: window.days, from: clockOf(window.from_minute), to: clockOf(window.to_minute % 1440) },
    budgetLabel: view.budget?.label ?? "",
    budgetUnit: view.budget?.percent == null ? "count" : "percent",
    budgetAmount: view.budget?.percent ?? view.budget?.count ?? 1,
    tailDays: (view.tail_s ?? 0) / 86_400,
    reason: view.reason,
  };
}

function waveFrom(plan: WavePlan): DraftWave {
  return {
    name: plan.name ?? "",
    unit: plan.count == null ? "percent" : "count",
    amount: plan.count ?? plan.percent ?? 100,
    filter: plan.filter ?? "",
    minDevices: plan.min_devices ?? 1,
    soakMinutes: (plan.soak_s ?? 0) / 60,
    kept: { gates: plan.gates, max_error_share: plan.max_error_share },
  };
}

/** What the server would refuse, as far as it can be seen here. */
export type Fault = "version" | "waves" | "rising" | "last" | "limits" | "budget" | "window" | "behaviour" | "shadow";

export function faultOf(draft: Draft): Fault | undefined {
  if (draft.version === "") return "version";
  if (draft.waves.some(({ unit, amount }) => !(amount > 0 && (unit === "percent" ? amount <= 100 : Number.isInteger(amount))))) return "waves";
  // Waves with a filter of their own are about others than the wave before.
  const percents = draft.waves.filter(({ unit, filter }) => unit === "percent" && filter.trim() === "").map(({ amount }) => amount);
  if (percents.some((percent, index) => index > 0 && percent <= (percents[index - 1] ?? 0))) return "rising";
  const last = draft.waves.at(-1);
  if (last?.unit !== "percent" || last.amount !== 100) return "last";
  const limits = [draft.maxBadPercent, draft.trialMinutes, draft.tailDays, ...draft.waves.flatMap(({ soakMinutes, minDevices }) => [soakMinutes, minDevices])];
  if (!limits.every((limit) => limit >= 0) || draft.maxBadPercent > 100) return "limits";
  if (draft.budgetLabel.trim() !== "" && !(draft.budgetAmount > 0)) return "budget";
  if (draft.window && (draft.window.days === 0 || draft.window.from === "" || draft.window.to === "")) return "window";
  if (hasFault.behaviour(draft.behaviour)) return "behaviour";
  if (hasFault.shadow(draft.shadow)) return "shadow";
  return undefined;
}

export function rolloutOf(draft: Draft): RolloutNew {
  const label = draft.budgetLabel.trim();
  return {
    model: draft.model,
    version: draft.version,
    filter: draft.filter.trim(),
    waves: draft.waves.map((wave) => planOf(wave, draft)),
    trial: {
      ...draft.keptTrial,
      probation_s: Math.round(draft.trialMinutes * 60),
      ...(draft.window && { window: { days: draft.window.days, from_minute: minuteOf(draft.window.from), to_minute: minuteOf(draft.window.to) } }),
      ...(draft.behaviour && { behaviour: behaviourOf(draft.behaviour) }),
      ...(draft.shadow && { shadow: shadowOf(draft.shadow) }),
    },
    ...(label !== "" && { budget: { label, [draft.budgetUnit]: draft.budgetAmount } }),
    ...(draft.startAt !== "" && { start_at: Date.parse(draft.startAt) }),
    ...(draft.tailDays !== TAIL_DAYS && { tail_s: Math.round(draft.tailDays * 86_400) }),
    reason: draft.reason.trim(),
  };
}

function planOf(wave: DraftWave, { maxBadPercent, shadow }: Draft): WavePlan {
  const filter = wave.filter.trim();
  const { gates, max_error_share } = wave.kept ?? {};
  const disagreement = maxDisagreement(shadow);
  return {
    name: wave.name.trim(),
    [wave.unit]: wave.amount,
    ...(filter !== "" && { filter }),
    ...(wave.minDevices > 1 && { min_devices: Math.round(wave.minDevices) }),
    soak_s: Math.round(wave.soakMinutes * 60),
    max_bad_share: maxBadPercent / 100,
    ...(max_error_share != null && { max_error_share }),
    ...((gates || disagreement !== undefined) && { gates: { ...gates, disagreement: disagreement ?? null } }),
  };
}

function minuteOf(clock: string): number {
  const [hours = 0, minutes = 0] = clock.split(":").map(Number);
  return hours * 60 + minutes;
}

export function clockOf(minute: number): string {
  return `${String(Math.floor(minute / 60)).padStart(2, "0")}:${String(minute % 60).padStart(2, "0")}`;
}

function localTime(at: number): string {
  const time = new Date(at);
  return new Date(at - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
