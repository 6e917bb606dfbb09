// Silences that are not over, and how to end them.

import { useMutation, useQuery } from "@tanstack/react-query";
import { endSilence } from "../../api/calls";
import { queryClient, silencesQuery } from "../../api/queries";
import { useLocale } from "../../i18n/language";
import { Button, Panel, TableScroll } from "../../ui/basics";
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
      <TableScroll label={say("alerts.silences")}>
        <table className="table">
          <thead>
            <tr>
              <th scope="col">{say("alerts.silenceWhich")}</th>
              <th scope="col">{say("alerts.silenceUntil")}</th>
              <th scope="col" className="number">{say("alerts.silenceCovers")}</th>
              <th scope="col">{say("alerts.silenceReason")}</th>
              <td />
            </tr>
          </thead>
          <tbody>
            {items.map(({ id, matchers, until, covers, reason, created_by }) => (
              <tr key={id}>
                <th scope="row">{matchers.join(" ")}</th>
                <td>{dateTime(until)}</td>
                <td className="number">{number(covers)}</td>
                <td>{created_by}: {reason}</td>
                <td>
                  <Button look="quiet" aria-label={say("alerts.silenceEndOf", { which: matchers.join(" ") })} onClick={() => end.mutate(id)}>
                    {say("alerts.silenceEnd")}
                  </Button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableScroll>
      {end.isError && <ProblemNote error={end.error} />}
    </Panel>
  );
}
