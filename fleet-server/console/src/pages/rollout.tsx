// One rollout: its waves and gates, what each device does, what can be done.

import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { lazy, Suspense } from "react";
import { auditOfQuery, rolloutQuery } from "../api/queries";
import type { AuditEntry, RolloutState, RolloutView } from "../api/types";
import { useLocale } from "../i18n/language";
import { Age, Facts, PageHeader, Panel } from "../ui/basics";
import { Icon, type IconName } from "../ui/icon";
import { Loaded } from "../ui/loaded";
import { RolloutMark } from "../ui/mark";
import { ModelLink, VersionLink } from "../ui/model-link";
import { ProgressBar, ProgressCounts } from "../ui/progress-counts";
import { Timeline, type TimelineItem } from "../ui/timeline";
import { Actions } from "./rollout/actions";
import { clockOf } from "./rollout/draft";
import { Findings } from "./rollout/findings";
import { Waves } from "./rollout/waves";
import { Why } from "./rollout/why";
import "../styles/rollout.css";

const Course = lazy(() => import("./rollout/course").then((module) => ({ default: module.Course })));

const route = getRouteApi("/shell/rollouts/$rollout");

export function RolloutPage() {
  const { rollout: id } = route.useParams();
  const rollout = useQuery(rolloutQuery(id));
  return (
    <>
      {!rollout.data && <PageHeader title={id} />}
      <Loaded query={rollout}>{(view) => <Sections key={view.id} rollout={view} />}</Loaded>
    </>
  );
}

function Sections({ rollout }: { rollout: RolloutView }) {
  const { say } = useLocale();
  const title = say(rollout.is_rollback ? "rollout.titleBack" : "rollout.title", { id: rollout.id });
  return (
    <>
      <PageHeader
        title={title}
        hint={<><ModelLink model={rollout.model} /> @ <VersionLink model={rollout.model} version={rollout.version} /></>}
      >
        <RolloutMark state={rollout.state} />
      </PageHeader>
      <p className={`verdict verdict-${rollout.state}`} role="status">
        <Icon name={verdictIcon(rollout.state)} />
        <span>{rollout.why}</span>
      </p>
      <Actions rollout={rollout} />
      {rollout.state === "draft" && <p><Link to="/rollouts/new" search={{ draft: rollout.id }}>{say("rollout.edit")}</Link></p>}
      {(rollout.findings?.length ?? 0) > 0 && (
        <Panel title={say("rollout.findings")}>
          <Findings findings={rollout.findings ?? []} />
        </Panel>
      )}
      <Panel title={say("rollout.waves")}>
        <Waves rollout={rollout} />
      </Panel>
      <div className="columns">
        <Panel title={say("rollout.progress")}>
          <ProgressBar progress={rollout.progress} />
          <ProgressCounts progress={rollout.progress} />
        </Panel>
        <Panel title={say("rollout.about")}>
          <About rollout={rollout} />
        </Panel>
      </div>
      {rollout.state !== "draft" && !rollout.is_rollback && (
        <Panel title={say("course.title")}>
          <Suspense fallback={null}>
            <Course rollout={rollout.id} />
          </Suspense>
        </Panel>
      )}
      <Panel title={say("rollout.whyEach")}>
        <Why rollout={rollout.id} />
      </Panel>
      <Panel title={say("rollout.timeline")}>
        <History rollout={rollout} />
      </Panel>
    </>
  );
}

function verdictIcon(state: RolloutState): IconName {
  if (state === "halted") return "critical";
  return state === "succeeded" ? "check" : "info";
}

function About({ rollout }: { rollout: RolloutView }) {
  const { say } = useLocale();
  const policy = usePolicy(rollout);
  const reversion = useReversion(rollout);
  return (
    <Facts
      rows={[
        [say("rollout.scope"), rollout.filter ? <code key="filter">{rollout.filter}</code> : say("rollout.everyDevice")],
        [say("rollout.reason"), rollout.reason || "—"],
        [say("rollout.by"), rollout.created_by],
        [say("rollout.campaign"), rollout.campaign ? <code key="campaign">{rollout.campaign}</code> : "—"],
        ...(rollout.approved_by ? [[say("rollout.approvedBy"), rollout.approved_by] as [string, string]] : []),
        ...policy,
        ...reversion,
        ...(rollout.late ? [[say("rollout.late"), <Late key="late" late={rollout.late} />] as [string, React.ReactNode]] : []),
        [say("rollout.created"), <Age key="created" at={rollout.created_at} />],
        [say("rollout.finished"), rollout.finished_at ? <Age key="finished" at={rollout.finished_at} /> : say("rollout.notFinished")],
      ]}
    />
  );
}

/** Devices that went back after the end. */
function Late({ late }: { late: NonNullable<RolloutView["late"]> }) {
  const { say } = useLocale();
  return (
    <>
      {say("rollout.lateIs", { count: late.devices })} (<Age at={late.since} />); {say("rollout.lateNewest")}{" "}
      <Link to="/devices/$device" params={{ device: late.newest }}>{late.newest}</Link>: {late.why}
    </>
  );
}

/** What took it back, and how far its devices are. */
function useReversion({ reverted_by: by = [], reversion }: RolloutView): [string, React.ReactNode][] {
  const { say } = useLocale();
  if (by.length === 0) return [];
  const links = by.map((id, index) => (
    <span key={id}>{index > 0 && ", "}<Link to="/rollouts/$rollout" params={{ rollout: id }}>{id}</Link></span>
  ));
  if (!reversion) return [[say("rollout.revertedInPart"), links]];
  const { back = 0, at_work: atWork = 0, offline = 0, bad = 0, kept = 0 } = reversion;
  const total = back + atWork + offline + bad + kept;
  return [
    [say("rollout.revertedBy"), links],
    [say("rollout.reversion"), say("rollout.reversionIs", { back, total, atWork, offline, bad, kept })],
  ];
}

/** How each device compares the version before it makes it live. */
function useShadowInWords() {
  const { say, number, duration, share } = useLocale();
  return (shadow: NonNullable<NonNullable<RolloutView["trial"]>["shadow"]>) => {
    const { span_s: span = 0, rows_min: rows = 0, cpu_permille: cpu = 0, agreement_permille: agreement = 0, split_permille: split = 0 } = shadow;
    return [
      say("rollout.shadowIs", { duration: duration(span), rows: number(rows), cpu: share(cpu / 1000) }),
      ...(agreement > 0 ? [say("rollout.shadowAgreement", { share: share(agreement / 1000) })] : []),
      ...(split > 0 ? [say("rollout.shadowSplit", { share: share(split / 1000) })] : []),
    ].join(", ");
  };
}

/** What was asked for besides; only what was. */
function usePolicy({ budget, trial, start_at: startAt, tail_until: tailUntil }: RolloutView): [string, React.ReactNode][] {
  const { say, number, dateTime } = useLocale();
  const shadowInWords = useShadowInWords();
  const rows: [string, React.ReactNode][] = [];
  if (startAt != null) rows.push([say("rollout.startsAt"), dateTime(startAt)]);
  const { window, shadow } = trial ?? {};
  if (shadow?.span_s) rows.push([say("rollout.shadow"), shadowInWords(shadow)]);
  if (window != null) {
    const days = WEEK.filter((day) => (window.days & (1 << day)) !== 0).map((day) => say(`weekday.${day}`));
    rows.push([say("rollout.window"), say("rollout.windowIs", { days: days.join(" "), from: clockOf(window.from_minute), to: clockOf(window.to_minute) })]);
  }
  if (budget) {
    const size = budget.percent == null ? number(budget.count ?? 0) : `${number(budget.percent)} %`;
    rows.push([say("rollout.budget"), say("rollout.budgetIs", { size, label: budget.label })]);
  }
  if (tailUntil != null) rows.push([say("rollout.tailUntil"), dateTime(tailUntil)]);
  return rows;
}

const WEEK = [0, 1, 2, 3, 4, 5, 6] as const;

/** The rollout tells when its waves were opened; the audit log tells who did what, and why. */
function History({ rollout }: { rollout: RolloutView }) {
  const { say } = useLocale();
  const audit = useQuery(auditOfQuery(rollout.id));
  const opened = rollout.waves.flatMap((wave, index): TimelineItem[] =>
    wave.opened_at == null
      ? []
      : [{ at: wave.opened_at, kind: "wave", severity: "info", text: say("rollout.waveOpened", { wave: wave.plan.name || say("wave.numbered", { number: index + 1 }) }) }],
  );
  return (
    <Loaded query={audit}>
      {(entries) => (
        <Timeline entries={[...opened, ...entries.map(itemOf)].sort((left, right) => right.at - left.at)} />
      )}
    </Loaded>
  );
}

function itemOf(entry: AuditEntry): TimelineItem {
  const why = entry.reason ? `: ${entry.reason}` : "";
  const kind = entry.detail ? `${entry.detail} · ${entry.actor}` : entry.actor;
  return { at: entry.at, kind, severity: "info", text: `${entry.action}${why}` };
}
