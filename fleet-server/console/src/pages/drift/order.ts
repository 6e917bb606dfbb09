// Which verdicts are worst, and in which order subjects and scopes stand. Pure.

import type { DriftState, DriftView } from "../../api/types";

const ranks: Record<DriftState, number> = { drifted: 3, suspect: 2, steady: 1, "too-few": 0 };

/** How far a verdict is towards its threshold; 1 is at it. */
export function degreeOf({ value, threshold }: Pick<DriftView, "value" | "threshold">): number {
  return threshold > 0 ? value / threshold : 0;
}

function byWorst(left: DriftView, right: DriftView): number {
  return ranks[right.state] - ranks[left.state] || degreeOf(right) - degreeOf(left);
}

export function worstOf(verdicts: DriftView[]): DriftView | undefined {
  return [...verdicts].sort(byWorst)[0];
}

/** The whole fleet first, then sites and other groups, then single devices. */
export function scopesOf(verdicts: DriftView[]): string[] {
  const rank = (scope: string) => (scope === "fleet" ? 0 : scope.includes("=") ? 1 : 2);
  const scopes = [...new Set(verdicts.map(({ scope }) => scope))];
  return scopes.sort((left, right) => rank(left) - rank(right) || left.localeCompare(right, undefined, { numeric: true }));
}

/** Subjects, the one with the worst verdict first. */
export function subjectsOf(verdicts: DriftView[]): string[] {
  return [...new Set([...verdicts].sort(byWorst).map(({ subject }) => subject))];
}

/** A contract with 64 columns makes 64 rows; what is steady among them is not looked at first. */
const ROWS_SHOWN_MAX = 16;

export function firstSubjects(verdicts: DriftView[]): string[] {
  const subjects = subjectsOf(verdicts);
  if (subjects.length <= ROWS_SHOWN_MAX) return subjects;
  const isLoud = (subject: string) =>
    verdicts.some((verdict) => verdict.subject === subject && (verdict.state === "drifted" || verdict.state === "suspect"));
  const wanted = subjects.filter((subject) => !subject.startsWith("feature:") || isLoud(subject));
  return (wanted.length > 0 ? wanted : subjects).slice(0, ROWS_SHOWN_MAX);
}
