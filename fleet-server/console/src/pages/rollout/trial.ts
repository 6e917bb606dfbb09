// By what each device tries a version: how it behaves once it is live, and how it compares beside the live one. Pure.

import type { Trial } from "../../api/types";

/** 0 is no rule. */
export interface DraftBehaviour {
  latencyRisePercent: number;
  confidenceDropPercent: number;
  classLossPercent: number;
  steadyMinutes: number;
}

export interface DraftShadow {
  minutes: number;
  /** 0: it is compared and not judged. */
  agreementPercent: number;
  rows: number;
  cpuPercent: number;
  splitPercent: number;
  tolerancePercent: number;
  quiet: Trial["shadow"]["quiet"];
  /** Of all devices together; none for what the agreement leaves. */
  disagreementPercent: number | undefined;
}

export const newBehaviour: DraftBehaviour = { latencyRisePercent: 25, confidenceDropPercent: 10, classLossPercent: 60, steadyMinutes: 5 };
export const newShadow: DraftShadow = {
  minutes: 30,
  agreementPercent: 98,
  rows: 500,
  cpuPercent: 20,
  splitPercent: 0,
  tolerancePercent: 1,
  quiet: "pass",
  disagreementPercent: undefined,
};

const permille = (percent: number) => Math.round(percent * 10);
const percent = (permille: number) => permille / 10;

export function behaviourFrom(saved: Trial["behaviour"] | undefined): DraftBehaviour | undefined {
  if (!saved || !(saved.latency_rise_permille || saved.confidence_drop_permille || saved.class_loss_permille)) return undefined;
  return {
    latencyRisePercent: percent(saved.latency_rise_permille),
    confidenceDropPercent: percent(saved.confidence_drop_permille),
    classLossPercent: percent(saved.class_loss_permille),
    steadyMinutes: saved.steady_s / 60,
  };
}

export function behaviourOf(draft: DraftBehaviour): Trial["behaviour"] {
  return {
    latency_rise_permille: permille(draft.latencyRisePercent),
    confidence_drop_permille: permille(draft.confidenceDropPercent),
    class_loss_permille: permille(draft.classLossPercent),
    steady_s: Math.round(draft.steadyMinutes * 60),
  };
}

/** What all devices together may disagree on, as the first wave says it. */
export function shadowFrom(saved: Trial["shadow"] | undefined, disagreement: number | null | undefined): DraftShadow | undefined {
  if (!saved?.span_s) return undefined;
  const left = 1_000 - saved.agreement_permille;
  const together = disagreement == null ? undefined : permille(disagreement * 100);
  return {
    minutes: saved.span_s / 60,
    agreementPercent: percent(saved.agreement_permille),
    rows: saved.rows_min,
    cpuPercent: percent(saved.cpu_permille),
    splitPercent: percent(saved.split_permille),
    tolerancePercent: percent(saved.tolerance_permille),
    quiet: saved.quiet,
    disagreementPercent: together === undefined || together === left ? undefined : percent(together),
  };
}

export function shadowOf(draft: DraftShadow): Trial["shadow"] {
  return {
    span_s: Math.round(draft.minutes * 60),
    agreement_permille: permille(draft.agreementPercent),
    rows_min: Math.round(draft.rows),
    cpu_permille: permille(draft.cpuPercent),
    quiet: draft.quiet,
    split_permille: permille(draft.splitPercent),
    tolerance_permille: permille(draft.tolerancePercent),
  };
}

/** The share of rows on which all devices together may see another answer than the live version gives; none for no such gate. */
export function maxDisagreement(draft: DraftShadow | undefined): number | undefined {
  if (draft?.disagreementPercent !== undefined) return permille(draft.disagreementPercent) / 1_000;
  return draft && draft.agreementPercent > 0 ? (1_000 - permille(draft.agreementPercent)) / 1_000 : undefined;
}

const within = (value: number, low: number, high: number) => value >= low && value <= high;
const offOr = (value: number, low: number, high: number) => value === 0 || within(value, low, high);

/** What the server would refuse: rules that noise would break, or that cannot be meant. */
export const hasFault = {
  behaviour: (draft: DraftBehaviour | undefined) =>
    draft !== undefined &&
    !(
      offOr(draft.latencyRisePercent, 5, 900) &&
      offOr(draft.confidenceDropPercent, 2, 100) &&
      offOr(draft.classLossPercent, 20, 100) &&
      within(Math.round(draft.steadyMinutes * 60), 1, 86_400)
    ),
  shadow: (draft: DraftShadow | undefined) =>
    draft !== undefined &&
    !(
      within(Math.round(draft.minutes * 60), 1, 604_800) &&
      offOr(draft.agreementPercent, 50, 99.9) &&
      within(Math.round(draft.rows), 1, 10_000_000) &&
      within(draft.cpuPercent, 1, 100) &&
      within(draft.splitPercent, 0, 50) &&
      within(draft.tolerancePercent, 0, 50) &&
      within(draft.disagreementPercent ?? 0, 0, 100)
    ),
};
