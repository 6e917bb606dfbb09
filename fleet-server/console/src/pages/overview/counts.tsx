// The fleet in numbers; each leads to the list behind it.

import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import type { Status } from "../../api/types";
import { Sparkline } from "../../charts/sparkline";
import { useLocale } from "../../i18n/language";
import { useRates } from "../../live/history";
import { Icon, type IconName } from "../../ui/icon";

export function Counts({ status }: { status: Status }) {
  const { say, number } = useLocale();
  const rates = useRates();
  return (
    <ul className="counts" aria-label={say("overview.counts")}>
      <Count icon="check" tone="ok" value={number(status.devices_online)} name={say("device.state.online")}>
        <Link to="/devices" search={{ filter: "state:online" }}>{say("overview.show")}</Link>
      </Count>
      <Count icon="critical" tone="bad" value={number(status.devices_unhealthy)} name={say("device.state.unhealthy")}>
        <Link to="/devices" search={{ filter: "state:unhealthy" }}>{say("overview.show")}</Link>
      </Count>
      <Count icon="offline" tone="idle" value={number(status.devices_offline)} name={say("device.state.offline")}>
        <Link to="/devices" search={{ filter: "state:offline" }}>{say("overview.show")}</Link>
      </Count>
      <Count icon="rollouts" tone="info" value={number(status.rollouts_running)} name={say("overview.rollouts")}>
        <Link to="/rollouts">{say("overview.show")}</Link>
      </Count>
      <Count icon="alerts" tone="warn" value={number(status.alerts_open)} name={say("overview.alerts")}>
        <Link to="/alerts">{say("overview.show")}</Link>
      </Count>
      <Count icon="drift" tone="info" value={number(status.requests_per_s)} name={say("overview.requests")}>
        <Sparkline values={rates.map(({ perSecond }) => perSecond)} label={say("overview.requestsSince")} />
      </Count>
    </ul>
  );
}

interface CountProps {
  icon: IconName;
  tone: string;
  value: string;
  name: string;
  children: ReactNode;
}

/** A number of nothing is quiet: its colour would call for a look that is not needed. */
function Count({ icon, tone, value, name, children }: CountProps) {
  return (
    <li className={`count tone-${value === "0" ? "idle" : tone}`}>
      <span className="count-name"><Icon name={icon} size={14} /> {name}</span>
      <span className="count-value">{value}</span>
      <span className="count-more">{children}</span>
    </li>
  );
}
