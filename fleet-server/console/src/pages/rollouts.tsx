// All rollouts, newest first.

import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { rolloutsQuery } from "../api/queries";
import type { RolloutView } from "../api/types";
import { useLocale } from "../i18n/language";
import { Age, Empty, PageHeader, TableScroll } from "../ui/basics";
import { Icon } from "../ui/icon";
import { Loaded } from "../ui/loaded";
import { RolloutMark } from "../ui/mark";
import { ModelLink, RolloutLink, VersionLink } from "../ui/model-link";
import { ProgressBar } from "../ui/progress-counts";

export function RolloutsPage() {
  const { say } = useLocale();
  const rollouts = useQuery(rolloutsQuery);
  return (
    <>
      <PageHeader title={say("rollouts.title")}>
        <Link className="button button-main" to="/rollouts/new" search={{}}>
          <Icon name="plus" size={14} /> {say("rollouts.new")}
        </Link>
      </PageHeader>
      <Loaded query={rollouts}>
        {({ items }) => (items.length === 0 ? <Empty icon="rollouts">{say("rollouts.none")}</Empty> : <RolloutTable rollouts={items} />)}
      </Loaded>
    </>
  );
}

function RolloutTable({ rollouts }: { rollouts: RolloutView[] }) {
  const { say } = useLocale();
  return (
    <TableScroll label={say("rollouts.title")}>
      <table className="table table-panel">
        <thead>
          <tr>
            <th scope="col">{say("rollouts.id")}</th>
            <th scope="col">{say("rollouts.what")}</th>
            <th scope="col">{say("rollouts.state")}</th>
            <th scope="col">{say("rollouts.progress")}</th>
            <th scope="col">{say("rollouts.why")}</th>
            <th scope="col">{say("rollouts.who")}</th>
            <th scope="col">{say("rollouts.when")}</th>
          </tr>
        </thead>
        <tbody>
          {rollouts.map((rollout) => (
            <tr key={rollout.id}>
              <th scope="row"><RolloutLink rollout={rollout.id} /></th>
              <td>
                {rollout.is_rollback && <span className="tag"><Icon name="back" size={12} /> {say("rollouts.rollback")}</span>}{" "}
                <ModelLink model={rollout.model} /> @ <VersionLink model={rollout.model} version={rollout.version} />
                {rollout.filter && <p className="small"><code>{rollout.filter}</code></p>}
              </td>
              <td><RolloutMark state={rollout.state} /></td>
              <td className="cell-progress"><ProgressText rollout={rollout} /></td>
              <td className="cell-text">{rollout.why}</td>
              <td>{rollout.created_by}</td>
              <td><Age at={rollout.created_at} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function ProgressText({ rollout }: { rollout: RolloutView }) {
  const { say } = useLocale();
  const total = Object.values(rollout.progress).reduce((sum, count) => sum + count, 0);
  return (
    <>
      <ProgressBar progress={rollout.progress} />
      <span className="muted small">{say("rollout.doneOf", { done: rollout.progress.succeeded ?? 0, total })}</span>
    </>
  );
}
