// Alerts: what happened, what to do next, and who looks after it.

import { useMutation, useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useState } from "react";
import { acknowledgeAlert } from "../api/calls";
import { alertsQuery, queryClient } from "../api/queries";
import type { AlertView } from "../api/types";
import { useLocale } from "../i18n/language";
import { Age, Button, Empty, Labels, PageHeader } from "../ui/basics";
import { Loaded, ProblemNote } from "../ui/loaded";
import { Mark, SeverityMark } from "../ui/mark";
import { ServerLink } from "../ui/server-link";
import { Silence } from "./alerts/silence";
import { Silences } from "./alerts/silences";
import "../styles/alerts.css";

const route = getRouteApi("/shell/alerts");
const states = ["open", "acknowledged", "closed", "all"] as const;

export function AlertsPage() {
  const { say } = useLocale();
  const { state = "open" } = route.useSearch();
  const [typed, setTyped] = useState("");
  const [match, setMatch] = useState("");
  const alerts = useQuery(alertsQuery(state, match));
  return (
    <>
      <PageHeader title={say("alerts.title")} />
      <nav className="chips" aria-label={say("alerts.which")}>
        {states.map((one) => (
          <Link key={one} className="chip" to="/alerts" search={{ state: one }} aria-current={one === state ? "true" : undefined}>
            {say(`alert.state.${one}`)}
          </Link>
        ))}
      </nav>
      <form
        className="acknowledge"
        onSubmit={(event) => {
          event.preventDefault();
          setMatch(typed.trim().split(/\s+/).join(","));
        }}
      >
        <input aria-label={say("alerts.filter")} placeholder={say("alerts.filter")} value={typed} onChange={(event) => setTyped(event.target.value)} />
        <Button type="submit">{say("alerts.filterShow")}</Button>
      </form>
      <Silences />
      <Loaded query={alerts}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty icon="check">{say(state === "open" ? "alerts.noneOpen" : "alerts.none")}</Empty>
          ) : (
            <ul className="alerts">
              {items.map((alert) => <AlertCard key={alert.id} alert={alert} />)}
            </ul>
          )
        }
      </Loaded>
    </>
  );
}

function AlertCard({ alert }: { alert: AlertView }) {
  const { say, dateTime } = useLocale();
  const href = hrefOf(alert);
  return (
    <li id={alert.id} className={`panel alert severity-${alert.severity}`}>
      <div className="alert-head">
        <SeverityMark severity={alert.severity} />
        <h2>{href ? <ServerLink href={href}>{alert.title}</ServerLink> : alert.title}</h2>
        <span className="muted small">{alert.id} · {alert.kind} · {say("alerts.opened")} <Age at={alert.opened_at} /></span>
      </div>
      <p>{alert.detail}</p>
      {alert.help && <p className="alert-help"><strong>{say("alerts.next")}</strong> {alert.help}</p>}
      <Labels labels={alert.labels} />
      {alert.state === "open" ? <Acknowledge alert={alert} /> : <Settled alert={alert} />}
      {alert.silenced_until != null && <p className="muted">{say("alerts.silencedUntil", { until: dateTime(alert.silenced_until) })}</p>}
      {alert.state !== "closed" && alert.silenced_until == null && <Silence alert={alert} />}
    </li>
  );
}

function Settled({ alert }: { alert: AlertView }) {
  const { say } = useLocale();
  return (
    <p className="muted">
      {alert.closed_at != null && <Mark tone="ok" icon="check">{say("alert.state.closed")} <Age at={alert.closed_at} /></Mark>}
      {alert.closed_at == null && <Mark tone="info" icon="eye">{say("alerts.by", { who: alert.acknowledged_by ?? "" })}</Mark>}
      {alert.note && <> “{alert.note}”</>}
    </p>
  );
}

function Acknowledge({ alert }: { alert: AlertView }) {
  const { say } = useLocale();
  const [note, setNote] = useState("");
  const acknowledge = useMutation({
    mutationFn: () => acknowledgeAlert(alert.id, note.trim()),
    onSuccess: () => {
      void queryClient.invalidateQueries({ queryKey: ["alerts"] });
      void queryClient.invalidateQueries({ queryKey: ["status"] });
    },
  });
  return (
    <form
      className="acknowledge"
      onSubmit={(event) => {
        event.preventDefault();
        acknowledge.mutate();
      }}
    >
      <input aria-label={say("alerts.note")} placeholder={say("alerts.note")} value={note} onChange={(event) => setNote(event.target.value)} />
      <Button type="submit" icon="eye" disabled={acknowledge.isPending}>{say("alerts.acknowledge")}</Button>
      {acknowledge.isError && <ProblemNote error={acknowledge.error} />}
    </form>
  );
}

/** The page about what the alert is about, most telling label first. */
function hrefOf({ labels, kind }: AlertView): string | undefined {
  if (labels.rollout) return `/rollouts/${labels.rollout}`;
  if (kind === "drift" && labels.model) {
    const search = new URLSearchParams({ model: labels.model, ...(labels.scope ? { scope: labels.scope } : {}) });
    return `/drift?${search.toString()}`;
  }
  if (labels.device) return `/devices/${labels.device}`;
  return labels.model ? `/models/${labels.model}` : undefined;
}
