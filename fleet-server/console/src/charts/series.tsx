// A value over time against its threshold, by uPlot; and the same as a table.

import { useEffect, useRef } from "react";
import UPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { DriftPoint } from "../api/types";
import { useLocale } from "../i18n/language";
import { useTheme } from "../theme";
import { Age } from "../ui/basics";
import { DriftMark } from "../ui/mark";

const HEIGHT_PX = 190;
/** Rows of the table twin: the newest ones. */
const TABLE_ROWS_MAX = 30;

export function Series({ points, threshold }: { points: DriftPoint[]; threshold: number }) {
  const { say, number } = useLocale();
  const ordered = [...points].sort((left, right) => left.at - right.at);
  return (
    <>
      <Plot points={ordered} threshold={threshold} />
      <p className="legend-row small">
        <span><span className="swatch fill-version-1" aria-hidden="true" /> {say("drift.value")}</span>
        <span><span className="swatch swatch-dashed" aria-hidden="true" /> {say("chart.threshold", { threshold: number(threshold) })}</span>
      </p>
      <details className="twin">
        <summary>{say("chart.asTable")}</summary>
        <table className="table">
          <thead>
            <tr>
              <th scope="col">{say("chart.window")}</th>
              <th scope="col" className="number">{say("drift.value")}</th>
              <th scope="col" className="number">{say("drift.rows")}</th>
              <th scope="col">{say("drift.stateName")}</th>
            </tr>
          </thead>
          <tbody>
            {ordered.slice(-TABLE_ROWS_MAX).reverse().map((point) => (
              <tr key={point.at}>
                <th scope="row"><Age at={point.at} /></th>
                <td className="number">{point.value.toFixed(3)}</td>
                <td className="number">{number(point.rows)}</td>
                <td><DriftMark state={point.state} /></td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </>
  );
}

function Plot({ points, threshold }: { points: DriftPoint[]; threshold: number }) {
  const { say, language } = useLocale();
  const place = useRef<HTMLDivElement>(null);
  const theme = useTheme();
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const values = points.map(({ value }) => value);
    const columns: UPlot.AlignedData = [points.map(({ at }) => at / 1000), values, values.map(() => threshold)];
    const plot = new UPlot(optionsOf(element, Math.max(threshold, ...values), language), columns, element);
    const watch = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    watch.observe(element);
    return () => {
      watch.disconnect();
      plot.destroy();
    };
    // The theme changes the colours that are read from the style.
  }, [points, threshold, theme, language]);
  return <div ref={place} className="plot" role="img" aria-label={say("chart.series", { count: points.length })} />;
}

function optionsOf(element: HTMLElement, top: number, language: string): UPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name);
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px sans-serif" };
  const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit" });
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: [0, top * 1.1] } },
    axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => clock.format(tick * 1000)) }, { ...axis, size: 44 }],
    series: [
      {},
      { stroke: colour("--fill-1"), width: 2, points: { size: 5 } },
      { stroke: colour("--bad"), width: 1.5, dash: [6, 4], points: { show: false } },
    ],
  };
}
