// Two distributions on the same bins: the reference as an outline, the present as bars.

import type { HistogramView } from "../api/types";
import { useLocale } from "../i18n/language";

const WIDTH = 480;
const HEIGHT = 160;
/** Part of a bin that its bar fills. */
const BAR_SHARE = 0.7;

export function Histogram({ histogram, isSmall = false }: { histogram: HistogramView; isSmall?: boolean }) {
  const { say, share } = useLocale();
  const { bins, reference, current } = histogram;
  const top = Math.max(...reference, ...current, Number.EPSILON);
  const y = (value: number) => HEIGHT - (value / top) * HEIGHT;
  const step = WIDTH / Math.max(1, bins.length);
  return (
    <figure className={isSmall ? "histogram histogram-small" : "histogram"}>
      <svg
        viewBox={`0 -2 ${WIDTH} ${HEIGHT + 4}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={say("chart.histogram", { subject: histogram.subject, rows: histogram.rows })}
      >
        {bins.map((bin, index) => {
          const height = HEIGHT - y(current[index] ?? 0);
          const left = index * step + (step * (1 - BAR_SHARE)) / 2;
          return (
            <rect key={bin} className="bar-current" x={left} y={HEIGHT - height} width={step * BAR_SHARE} height={height}>
              <title>{say("chart.bin", { bin, reference: share(reference[index] ?? 0), current: share(current[index] ?? 0) })}</title>
            </rect>
          );
        })}
        <path className="line-reference" d={stepPath(reference.map(y), step)} />
        <path className="line-ground" d={`M0 ${HEIGHT}H${WIDTH}`} />
      </svg>
      {!isSmall && (
        <>
          <p className="histogram-ends muted small">
            <span>{bins[0]}</span>
            <span>{bins.at(-1)}</span>
          </p>
          <figcaption className="legend-row small">
            <span><span className="swatch swatch-line" aria-hidden="true" /> {say("chart.reference")}</span>
            <span><span className="swatch fill-version-1" aria-hidden="true" /> {say("chart.current")} · {say("chart.rows", { count: histogram.rows })}</span>
          </figcaption>
          <HistogramTable histogram={histogram} />
        </>
      )}
    </figure>
  );
}

function HistogramTable({ histogram }: { histogram: HistogramView }) {
  const { say, share } = useLocale();
  return (
    <details className="twin">
      <summary>{say("chart.asTable")}</summary>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("chart.binName")}</th>
            <th scope="col" className="number">{say("chart.reference")}</th>
            <th scope="col" className="number">{say("chart.current")}</th>
          </tr>
        </thead>
        <tbody>
          {histogram.bins.map((bin, index) => (
            <tr key={bin}>
              <th scope="row">{bin}</th>
              <td className="number">{share(histogram.reference[index] ?? 0)}</td>
              <td className="number">{share(histogram.current[index] ?? 0)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}

/** A line that keeps its height over each bin. */
function stepPath(heights: number[], step: number): string {
  const steps = heights.map((height, index) => `L${index * step} ${height}L${(index + 1) * step} ${height}`);
  return `M0 ${HEIGHT}${steps.join("")}`;
}
