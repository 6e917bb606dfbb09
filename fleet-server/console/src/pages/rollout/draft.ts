// A rollout as it is written in the form, and as it is sent. Pure.

import type { ModelView, RolloutNew, WavePlan } from "../../api/types";
import { shellQuote } from "../../ui/shell-quote";

export interface DraftWave {
  name: string;
  /** Up to which share of the devices, 0 to 100. */
  percent: number;
  soakMinutes: number;
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
  reason: string;
}

/** A few devices first, then a part, then all: what goes wrong shows while it concerns few. */
const usualWaves: DraftWave[] = [
  { name: "canary", percent: 5, soakMinutes: 30 },
  { name: "early", percent: 25, soakMinutes: 60 },
  { name: "all", percent: 100, soakMinutes: 0 },
];

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
    reason: "",
  };
}

/** What the server would refuse, as far as it can be seen here. */
export type Fault = "version" | "waves" | "rising" | "last" | "limits";

export function faultOf(draft: Draft): Fault | undefined {
  if (draft.version === "") return "version";
  const percents = draft.waves.map(({ percent }) => percent);
  if (percents.some((percent) => !(percent > 0 && percent <= 100))) return "waves";
  if (percents.some((percent, index) => index > 0 && percent <= (percents[index - 1] ?? 0))) return "rising";
  if (percents.at(-1) !== 100) return "last";
  const limits = [draft.maxBadPercent, draft.trialMinutes, ...draft.waves.map(({ soakMinutes }) => soakMinutes)];
  if (!limits.every((limit) => limit >= 0) || draft.maxBadPercent > 100) return "limits";
  return undefined;
}

export function rolloutOf(draft: Draft): RolloutNew {
  return {
    model: draft.model,
    version: draft.version,
    filter: draft.filter.trim(),
    waves: draft.waves.map((wave) => planOf(wave, draft.maxBadPercent)),
    trial: { probation_s: Math.round(draft.trialMinutes * 60) },
    reason: draft.reason.trim(),
  };
}

/** The same rollout for a terminal. */
export function commandOf(draft: Draft): string {
  const waves = draft.waves.map(({ percent, soakMinutes }) => (soakMinutes > 0 ? `${percent}%:${soakOf(soakMinutes)}` : `${percent}%`));
  const words = ["fleetctl", "rollout", "create", `${draft.model}@${draft.version}`];
  if (draft.filter.trim() !== "") words.push("-l", shellQuote(draft.filter.trim()));
  words.push("--waves", waves.join(","), "--max-bad-share", String(draft.maxBadPercent / 100));
  words.push("--probation-s", String(Math.round(draft.trialMinutes * 60)));
  if (draft.reason.trim() !== "") words.push("--reason", shellQuote(draft.reason.trim()));
  return words.join(" ");
}

/** Whole numbers only, as the command line has it. */
function soakOf(minutes: number): string {
  return Number.isInteger(minutes) ? `${minutes}m` : `${Math.round(minutes * 60)}s`;
}

function planOf(wave: DraftWave, maxBadPercent: number): WavePlan {
  return {
    name: wave.name.trim(),
    percent: wave.percent,
    soak_s: Math.round(wave.soakMinutes * 60),
    max_bad_share: maxBadPercent / 100,
  };
}
