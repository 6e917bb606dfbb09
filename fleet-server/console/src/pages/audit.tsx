// Who did what, to what, why, on what evidence. Rows are chained by hashes.

import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { auditQuery, auditVerdictQuery } from "../api/queries";
import type { AuditEntry } from "../api/types";
import { useLocale } from "../i18n/language";
import { Age, Button, Empty, PageHeader, TableScroll } from "../ui/basics";
import { ProblemNote, Waiting } from "../ui/loaded";
import { Mark } from "../ui/mark";

export function AuditPage() {
  const { say } = useLocale();
  const audit = useInfiniteQuery(auditQuery);
  const entries = audit.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <PageHeader title={say("audit.title")} hint={say("audit.hint")}>
        <Verdict />
      </PageHeader>
      {audit.isError && <ProblemNote error={audit.error} onRetry={() => void audit.refetch()} />}
      {audit.isPending && <Waiting />}
      {audit.isSuccess && entries.length === 0 && <Empty icon="audit">{say("audit.none")}</Empty>}
      {entries.length > 0 && <AuditTable entries={entries} />}
      {audit.hasNextPage && (
        <Button disabled={audit.isFetchingNextPage} onClick={() => void audit.fetchNextPage()}>{say("audit.more")}</Button>
      )}
    </>
  );
}

/** The server has checked that each row's hash follows from the row before. */
function Verdict() {
  const { say } = useLocale();
  const verdict = useQuery(auditVerdictQuery).data;
  if (!verdict) return null;
  return verdict.is_intact ? (
    <Mark tone="ok" icon="shield">{say("audit.intact", { count: verdict.rows })}</Mark>
  ) : (
    <Mark tone="bad" icon="critical">{say("audit.broken", { row: verdict.first_broken ?? 0 })}</Mark>
  );
}

function AuditTable({ entries }: { entries: AuditEntry[] }) {
  const { say, number } = useLocale();
  return (
    <TableScroll label={say("audit.title")}>
      <table className="table table-panel">
        <thead>
          <tr>
            <th scope="col" className="number">{say("audit.number")}</th>
            <th scope="col">{say("audit.when")}</th>
            <th scope="col">{say("audit.who")}</th>
            <th scope="col">{say("audit.action")}</th>
            <th scope="col">{say("audit.subject")}</th>
            <th scope="col">{say("audit.reason")}</th>
            <th scope="col">{say("audit.hash")}</th>
          </tr>
        </thead>
        <tbody>
          {entries.map((entry) => (
            <tr key={entry.sequence}>
              <td className="number">{number(entry.sequence)}</td>
              <td><Age at={entry.at} /></td>
              <td>{entry.actor}</td>
              <td><code>{entry.action}</code></td>
              <th scope="row">{entry.subject}</th>
              <td className="cell-text">
                {entry.reason}
                {entry.detail && <p className="muted small">{entry.detail}</p>}
              </td>
              <td><code className="digest" title={entry.hash}>{entry.hash.slice(0, 12)}</code></td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
