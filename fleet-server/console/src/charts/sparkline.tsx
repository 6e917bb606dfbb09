// A small line without axes: only the shape, with its range in words.

import { useLocale } from "../i18n/language";

const WIDTH = 120;
const HEIGHT = 24;

export function Sparkline({ values, label }: { values: number[]; label: string }) {
  const { say, number } = useLocale();
  if (values.length < 2) return <span className="muted small">{say("overview.requestsWait")}</span>;
  const range = say("chart.range", { low: number(Math.min(...values)), high: number(Math.max(...values)) });
  return (
    <svg className="sparkline" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`${label}: ${range}`}>
      <path className="sparkline-area" d={`${linePath(values)}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z`} />
      <path className="sparkline-line" d={linePath(values)} />
    </svg>
  );
}

/** From the left edge to the right, from 0 at the bottom to the largest value at the top. */
export function linePath(values: number[]): string {
  const top = Math.max(...values, Number.EPSILON);
  const step = WIDTH / Math.max(1, values.length - 1);
  const points = values.map((value, index) => {
    const y = HEIGHT - 1 - (value / top) * (HEIGHT - 2);
    return `${(index * step).toFixed(1)} ${y.toFixed(1)}`;
  });
  return `M${points.join("L")}`;
}
