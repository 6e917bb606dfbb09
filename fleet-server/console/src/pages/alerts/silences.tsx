// Silences that are not over, and how to end them.

import { useMutation, useQuery } from "@tanstack/react-query";
import { endSilence } from "../../api/calls";
import { queryClient, silencesQuery } from "../../api/queries";
import { useLocale } from "../../i18n/language";
import { Button, Panel } from "../../ui/basics";
import { Listing } from "../../ui/listing";
import { ProblemNote } from "../../ui/loaded";

export function Silences() {
  const { say, number, dateTime } = useLocale();
  const silences = useQuery(silencesQuery);
  const end = useMutation({
    mutationFn: endSilence,
    onSuccess: () => {
      void queryClient.invalidateQueries({ queryKey: ["silences"] });
      return queryClient.invalidateQueries({ queryKey: ["alerts"] });
    },
  });
  const items = silences.data?.items ?? [];
  if (items.length === 0) return null;
  return (
    <Panel title={say("alerts.silences")}>
      <Listing
        label={say("alerts.silences")}
        items={items}
        keyOf={({ id }) => id}
        columns={[
          { title: say("alerts.silenceWhich"), cell: ({ matchers }) => matchers.join(" ") },
          { title: say("alerts.silenceUntil"), cell: ({ until }) => dateTime(until) },
          { title: say("alerts.silenceCovers"), look: "number", cell: ({ covers }) => number(covers) },
          { title: say("alerts.silenceReason"), cell: ({ created_by, reason }) => `${created_by}: ${reason}` },
        ]}
        actions={({ id, matchers }) => (
          <Button look="quiet" aria-label={say("alerts.silenceEndOf", { which: matchers.join(" ") })} onClick={() => end.mutate(id)}>
            {say("alerts.silenceEnd")}
          </Button>
        )}
      />
      {end.isError && <ProblemNote error={end.error} />}
    </Panel>
  );
}
