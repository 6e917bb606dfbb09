// Predictions that devices keep for people to look at: under which notice, what is to be labelled, and what the labels tell.

import { useQuery } from "@tanstack/react-query";
import { reviewPoliciesQuery } from "../api/queries";
import type { CaptureView } from "../api/types";
import { useLocale } from "../i18n/language";
import { Age, Empty, PageHeader, Panel } from "../ui/basics";
import { Loaded } from "../ui/loaded";
import { Mark } from "../ui/mark";
import { Accuracy } from "./review/accuracy";
import { Queue } from "./review/queue";
import "../styles/review.css";

export function ReviewPage() {
  const { say } = useLocale();
  const policies = useQuery(reviewPoliciesQuery);
  return (
    <>
      <PageHeader title={say("review.title")} hint={say("review.about")} />
      <Loaded query={policies}>
        {(views) =>
          views.length === 0 ? (
            <Empty icon="eye">{say("review.off")}</Empty>
          ) : (
            <>
              <Notices views={views} />
              <Queue />
              {views.map(({ model }) => <Accuracy key={model} model={model} />)}
            </>
          )
        }
      </Loaded>
    </>
  );
}

function Notices({ views }: { views: CaptureView[] }) {
  const { say, number, bytes } = useLocale();
  // One list for all models.
  const list = views[0]?.list;
  return (
    <Panel title={say("review.notices")}>
      <ul className="review-notices">
        {views.map((view) => (
          <li key={view.model}>
            <p>
              <strong>{view.model}</strong>{" "}
              <Mark tone={view.is_on ? "warn" : "info"} icon={view.is_on ? "eye" : "offline"}>{say(view.is_on ? "review.isOn" : "review.isOff")}</Mark>
            </p>
            <p>{view.notice_text}</p>
            <p className="muted small">
              {say("review.counts", { samples: number(view.samples), labelled: number(view.labelled), bytes: bytes(view.bytes), lost: number(view.lost) })}{" "}
              {say("review.by", { who: view.changed_by })} <Age at={view.changed_at} />
            </p>
          </li>
        ))}
      </ul>
      {list && (
        <p className="muted small">
          {say("review.list", { sequence: list.sequence, confirmed: list.confirmed, unconfirmed: list.unconfirmed, offline: list.offline })}
        </p>
      )}
    </Panel>
  );
}
