// Forecast and fact on one axis: seconds since the first wave was opened. Pure.

import type { RolloutCourse } from "../../api/types";

type Column = (number | null)[];

export function curvesOf(course: RolloutCourse): [number[], Column, Column] {
  const begun = course.begun_at ?? 0;
  const foreseen = new Map((course.forecast?.curve ?? []).map(({ after_s, devices }) => [after_s, devices]));
  const fact = new Map(course.fact.map(({ at, done }) => [Math.max(0, (at - begun) / 1000), done]));
  const times = [...new Set([...foreseen.keys(), ...fact.keys()])].sort((left, right) => left - right);
  return [times, times.map((time) => foreseen.get(time) ?? null), times.map((time) => fact.get(time) ?? null)];
}

/** Seconds until so many per cent of what was foreseen were done; nothing before that. */
export function factAfter(course: RolloutCourse, percent: number): number | undefined {
  const wanted = Math.ceil(((course.forecast?.done ?? 0) * percent) / 100);
  const reached = wanted > 0 ? course.fact.find(({ done }) => done >= wanted) : undefined;
  return reached && course.begun_at != null ? Math.max(0, (reached.at - course.begun_at) / 1000) : undefined;
}
