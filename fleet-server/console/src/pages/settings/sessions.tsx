// The browsers in which one is logged in, and how to end that.

import { useMutation, useQuery } from "@tanstack/react-query";
import { endSession } from "../../api/calls";
import { queryClient, sessionsQuery } from "../../api/queries";
import type { SessionEntry } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Age, Button, Empty, TableScroll } from "../../ui/basics";
import { Loaded, ProblemNote } from "../../ui/loaded";

export function Sessions() {
  const { say } = useLocale();
  const sessions = useQuery(sessionsQuery);
  const end = useMutation({
    mutationFn: endSession,
    onSuccess: () => queryClient.invalidateQueries({ queryKey: sessionsQuery.queryKey }),
  });
  return (
    <div className="stack">
      <Loaded query={sessions}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty icon="shield">{say("settings.sessionNone")}</Empty>
          ) : (
            <SessionTable sessions={items} onEnd={(id) => end.mutate(id)} />
          )
        }
      </Loaded>
      {end.isError && <ProblemNote error={end.error} />}
    </div>
  );
}

function SessionTable({ sessions, onEnd }: { sessions: SessionEntry[]; onEnd: (id: string) => void }) {
  const { say } = useLocale();
  return (
    <TableScroll label={say("settings.sessions")}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("settings.sessionBrowser")}</th>
            <th scope="col">{say("settings.sessionUsed")}</th>
            <th scope="col">{say("settings.sessionEnds")}</th>
            <td />
          </tr>
        </thead>
        <tbody>
          {sessions.map((session) => (
            <tr key={session.id}>
              <th scope="row">
                {session.browser || session.id} {session.is_own && <span className="muted">({say("settings.sessionOwn")})</span>}
              </th>
              <td><Age at={session.used_at} /></td>
              <td><Age at={session.expires_at} /></td>
              <td>
                <Button look="quiet" aria-label={say("settings.sessionEndNamed", { id: session.id })} onClick={() => onEnd(session.id)}>
                  {say("settings.sessionEnd")}
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
