// What happened, newest first.

import { useLocale } from "../i18n/language";
import { Age, Empty } from "./basics";
import { SeverityMark } from "./mark";

export interface TimelineItem {
  at: number;
  kind: string;
  severity: string;
  code?: string;
  text: string;
  model?: string | null;
}

export function Timeline({ entries }: { entries: TimelineItem[] }) {
  const { say } = useLocale();
  if (entries.length === 0) return <Empty icon="queued">{say("timeline.empty")}</Empty>;
  return (
    <ol className="timeline">
      {entries.map((entry, index) => (
        <li key={`${entry.at}-${index}`} className={`severity-${entry.severity}`}>
          <span className="timeline-at muted"><Age at={entry.at} /></span>
          <SeverityMark severity={entry.severity} />
          <p>{entry.text}</p>
          <p className="muted small">
            {entry.model && <>{entry.model} · </>}
            {entry.code && <><code>{entry.code}</code> · </>}
            {entry.kind}
          </p>
        </li>
      ))}
    </ol>
  );
}
