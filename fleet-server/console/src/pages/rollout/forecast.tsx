// What would come of the rollout in the form, by the server's rehearsal.

import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { forecastQuery } from "../../api/queries";
import type { RolloutForecast, RolloutNew } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { ProblemNote } from "../../ui/loaded";
import { ProgressMark } from "../../ui/mark";
import { DeviceLink } from "../../ui/model-link";
import { Findings } from "./findings";

/** Nobody is asked at every letter that is typed. */
const SETTLED_MS = 500;
const REFUSALS_MAX = 8;

export function Forecast({ rollout }: { rollout: RolloutNew }) {
  const { say } = useLocale();
  const settled = useSettled(rollout);
  const forecast = useQuery(forecastQuery(settled));
  if (forecast.isError) return <ProblemNote error={forecast.error} />;
  if (!forecast.data) return <p className="muted">{say("newRollout.forecastWaiting")}</p>;
  return <Foreseen forecast={forecast.data} />;
}

function useSettled(rollout: RolloutNew): RolloutNew {
  const [settled, setSettled] = useState(rollout);
  const text = JSON.stringify(rollout);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(JSON.parse(text) as RolloutNew), SETTLED_MS);
    return () => clearTimeout(timer);
  }, [text]);
  return settled;
}

function Foreseen({ forecast }: { forecast: RolloutForecast }) {
  const { say, number, duration, bytes } = useLocale();
  const [half, , late] = forecast.done_after_s ?? [];
  const { refusals = [], basis } = forecast;
  return (
    <div className="stack" aria-live="polite">
      {half !== undefined && late !== undefined && (
        <p>{say("newRollout.forecastDone", { done: number(forecast.done ?? 0), devices: number(forecast.devices), half: duration(half), late: duration(late) })}</p>
      )}
      <p>{say("newRollout.forecastBytes", { bytes: bytes(forecast.download_bytes), largest: bytes(forecast.largest_download_bytes ?? 0) })}</p>
      {forecast.needs_approval && <p>{say("newRollout.approvalNeeded")}</p>}
      {refusals.length > 0 && (
        <>
          <p className="warn-text">{say("newRollout.forecastRefused", { count: forecast.refused ?? refusals.length })}</p>
          <ul className="findings">
            {refusals.slice(0, REFUSALS_MAX).map(({ device, progress, reason }) => (
              <li key={device}><DeviceLink device={device} /> <ProgressMark progress={progress} /> <span>{reason}</span></li>
            ))}
          </ul>
        </>
      )}
      <Findings findings={forecast.findings ?? []} />
      {basis && (
        <p className="muted small">
          {say("newRollout.forecastBasis", { devices: number(basis.devices), speed: number(basis.with_speed), hours: number(basis.with_hours), disk: number(basis.with_disk) })}
        </p>
      )}
    </div>
  );
}
