// What was foreseen of a rollout against what came of it, by uPlot; and the same as a table.

import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import UPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { courseQuery } from "../../api/queries";
import type { RolloutCourse, RolloutForecast } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { useTheme } from "../../theme";
import { Loaded } from "../../ui/loaded";
import { curvesOf, factAfter } from "./course-curves";

const HEIGHT_PX = 200;
const SHARES = [50, 90, 99] as const;

export function Course({ rollout }: { rollout: string }) {
  const { say } = useLocale();
  const course = useQuery(courseQuery(rollout));
  return (
    <Loaded query={course}>
      {(course) => (course.forecast ? <Compared course={course} forecast={course.forecast} /> : <p className="muted">{say("course.none")}</p>)}
    </Loaded>
  );
}

function Compared({ course, forecast }: { course: RolloutCourse; forecast: RolloutForecast }) {
  const { say, number, duration } = useLocale();
  const last = course.fact.at(-1);
  return (
    <>
      {course.begun_at != null && <Plot course={course} />}
      <p className="legend-row small">
        <span><span className="swatch swatch-dashed" aria-hidden="true" /> {say("course.foreseen")}</span>
        <span><span className="swatch fill-version-1" aria-hidden="true" /> {say("course.fact")}</span>
      </p>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("course.point")}</th>
            <th scope="col" className="number">{say("course.foreseen")}</th>
            <th scope="col" className="number">{say("course.fact")}</th>
          </tr>
        </thead>
        <tbody>
          {SHARES.map((percent, index) => {
            const foreseen = forecast.done_after_s?.[index];
            const fact = factAfter(course, percent);
            return (
              <tr key={percent}>
                <th scope="row">{say("course.after", { percent })}</th>
                <td className="number">{foreseen === undefined ? "—" : duration(foreseen)}</td>
                <td className="number">{fact === undefined ? say("course.notYet") : duration(fact)}</td>
              </tr>
            );
          })}
          <tr>
            <th scope="row">{say("course.refused")}</th>
            <td className="number">{number(forecast.refused ?? 0)}</td>
            <td className="number">{number(last?.refused ?? 0)}</td>
          </tr>
        </tbody>
      </table>
    </>
  );
}

function Plot({ course }: { course: RolloutCourse }) {
  const { say } = useLocale();
  const place = useRef<HTMLDivElement>(null);
  const theme = useTheme();
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const plot = new UPlot(optionsOf(element), curvesOf(course), element);
    const watch = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    watch.observe(element);
    return () => {
      watch.disconnect();
      plot.destroy();
    };
    // The theme changes the colours that are read from the style.
  }, [course, theme]);
  return <div ref={place} className="plot" role="img" aria-label={say("course.plot")} />;
}

function optionsOf(element: HTMLElement): UPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name);
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px sans-serif" };
  const steps = UPlot.paths.stepped?.({ align: 1 });
  return {
    width: element.clientWidth,
    height: HEIGHT_PX,
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false } },
    axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => `${Math.round(tick / 60)} min`) }, { ...axis, size: 44 }],
    series: [
      {},
      { stroke: colour("--bad"), width: 1.5, dash: [6, 4], points: { show: false }, ...(steps && { paths: steps }), spanGaps: true },
      { stroke: colour("--fill-1"), width: 2, points: { show: false }, ...(steps && { paths: steps }), spanGaps: true },
    ],
  };
}
