// Whom alerts are sent to, and what became of it.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { removeChannel, testChannel } from "../../api/calls";
import { channelsQuery, queryClient } from "../../api/queries";
import type { ChannelView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Button, Empty, TableScroll } from "../../ui/basics";
import { Loaded, ProblemNote } from "../../ui/loaded";
import { DeliveryLog } from "./deliveries";
import { NewChannel } from "./new-channel";

const readAgain = () => queryClient.invalidateQueries({ queryKey: channelsQuery.queryKey });

export function Channels() {
  const { say } = useLocale();
  const channels = useQuery(channelsQuery);
  const [shown, setShown] = useState<number>();
  const remove = useMutation({ mutationFn: removeChannel, onSuccess: readAgain });
  const test = useMutation({ mutationFn: testChannel, onSettled: readAgain });
  return (
    <div className="stack">
      <Loaded query={channels}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty icon="alerts">{say("settings.channelsNone")}</Empty>
          ) : (
            <ChannelTable
              channels={items}
              isTesting={test.isPending}
              onTest={(id) => test.mutate(id)}
              onLog={setShown}
              onRemove={(id) => remove.mutate(id)}
            />
          )
        }
      </Loaded>
      {test.data && <p role="status">{test.data.title}: {test.data.outcome}</p>}
      {test.isError && <ProblemNote error={test.error} />}
      {remove.isError && <ProblemNote error={remove.error} />}
      {shown !== undefined && <DeliveryLog channel={channels.data?.items.find(({ id }) => id === shown)} />}
      <NewChannel onAdded={readAgain} />
    </div>
  );
}

interface TableProps {
  channels: ChannelView[];
  isTesting: boolean;
  onTest: (id: number) => void;
  onLog: (id: number) => void;
  onRemove: (id: number) => void;
}

function ChannelTable({ channels, isTesting, onTest, onLog, onRemove }: TableProps) {
  const { say, number } = useLocale();
  return (
    <TableScroll label={say("settings.channels")}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("settings.channelName")}</th>
            <th scope="col">{say("settings.channelTo")}</th>
            <th scope="col">{say("settings.channelLeast")}</th>
            <th scope="col">{say("settings.channelLast")}</th>
            <th scope="col" className="number">{say("settings.channelPending")}</th>
            <td />
          </tr>
        </thead>
        <tbody>
          {channels.map(({ id, name, kind, address, least, matchers, last_delivery, pending }) => (
            <tr key={id}>
              <th scope="row">{name}</th>
              <td className="break">{kind}: {address}</td>
              <td>{[least, ...matchers].join(" ")}</td>
              <td>{last_delivery ?? say("settings.channelNever")}</td>
              <td className="number">{number(pending)}</td>
              <td>
                <Button look="quiet" disabled={isTesting} aria-label={say("settings.channelTestOf", { name })} onClick={() => onTest(id)}>
                  {say("settings.channelTest")}
                </Button>
                <Button look="quiet" aria-label={say("settings.channelLogOf", { name })} onClick={() => onLog(id)}>
                  {say("settings.channelLog")}
                </Button>
                <Button look="quiet" aria-label={say("settings.channelRemove", { name })} onClick={() => onRemove(id)}>
                  {say("settings.remove")}
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
