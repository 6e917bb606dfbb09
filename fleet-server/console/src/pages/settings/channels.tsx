// Whom alerts are sent to, and what became of it.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { removeChannel, testChannel } from "../../api/calls";
import { channelsQuery, queryClient } from "../../api/queries";
import type { ChannelView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Button } from "../../ui/basics";
import { Items, Listing } from "../../ui/listing";
import { ProblemNote } from "../../ui/loaded";
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
      <Items query={channels} icon="alerts" none={say("settings.channelsNone")}>
        {(items) => (
          <ChannelTable
            channels={items}
            isTesting={test.isPending}
            onTest={(id) => test.mutate(id)}
            onLog={setShown}
            onRemove={(id) => remove.mutate(id)}
          />
        )}
      </Items>
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
    <Listing
      label={say("settings.channels")}
      items={channels}
      keyOf={({ id }) => id}
      columns={[
        { title: say("settings.channelName"), cell: ({ name }) => name },
        { title: say("settings.channelTo"), look: "break", cell: ({ kind, address }) => `${kind}: ${address}` },
        { title: say("settings.channelLeast"), cell: ({ least, matchers }) => [least, ...matchers].join(" ") },
        { title: say("settings.channelLast"), cell: ({ last_delivery }) => last_delivery ?? say("settings.channelNever") },
        { title: say("settings.channelPending"), look: "number", cell: ({ pending }) => number(pending) },
      ]}
      actions={({ id, name }) => (
        <>
          <Button look="quiet" disabled={isTesting} aria-label={say("settings.channelTestOf", { name })} onClick={() => onTest(id)}>
            {say("settings.channelTest")}
          </Button>
          <Button look="quiet" aria-label={say("settings.channelLogOf", { name })} onClick={() => onLog(id)}>
            {say("settings.channelLog")}
          </Button>
          <Button look="quiet" aria-label={say("settings.channelRemove", { name })} onClick={() => onRemove(id)}>
            {say("settings.remove")}
          </Button>
        </>
      )}
    />
  );
}
