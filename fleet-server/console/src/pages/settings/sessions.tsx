// The browsers in which one is logged in, and how to end that.

import { useMutation, useQuery } from "@tanstack/react-query";
import { endSession } from "../../api/calls";
import { queryClient, sessionsQuery } from "../../api/queries";
import type { SessionEntry } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Age, Button } from "../../ui/basics";
import { Items, Listing } from "../../ui/listing";
import { ProblemNote } from "../../ui/loaded";

export function Sessions() {
  const { say } = useLocale();
  const sessions = useQuery(sessionsQuery);
  const end = useMutation({
    mutationFn: endSession,
    onSuccess: () => queryClient.invalidateQueries({ queryKey: sessionsQuery.queryKey }),
  });
  return (
    <div className="stack">
      <Items query={sessions} icon="shield" none={say("settings.sessionNone")}>
        {(items) => <SessionTable sessions={items} onEnd={(id) => end.mutate(id)} />}
      </Items>
      {end.isError && <ProblemNote error={end.error} />}
    </div>
  );
}

function SessionTable({ sessions, onEnd }: { sessions: SessionEntry[]; onEnd: (id: string) => void }) {
  const { say } = useLocale();
  return (
    <Listing
      label={say("settings.sessions")}
      items={sessions}
      keyOf={({ id }) => id}
      columns={[
        {
          title: say("settings.sessionBrowser"),
          cell: ({ browser, id, is_own }) => (
            <>{browser || id} {is_own && <span className="muted">({say("settings.sessionOwn")})</span>}</>
          ),
        },
        { title: say("settings.sessionUsed"), cell: ({ used_at }) => <Age at={used_at} /> },
        { title: say("settings.sessionEnds"), cell: ({ expires_at }) => <Age at={expires_at} /> },
      ]}
      actions={({ id }) => (
        <Button look="quiet" aria-label={say("settings.sessionEndNamed", { id })} onClick={() => onEnd(id)}>
          {say("settings.sessionEnd")}
        </Button>
      )}
    />
  );
}
