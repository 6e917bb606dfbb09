// What was sent to a channel, newest first.

import { useMutation, useQuery } from "@tanstack/react-query";
import { resendDelivery } from "../../api/calls";
import { channelsQuery, deliveriesQuery, queryClient } from "../../api/queries";
import type { ChannelView, DeliveryView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Age, Button } from "../../ui/basics";
import { Items, Listing } from "../../ui/listing";
import { ProblemNote } from "../../ui/loaded";

const STATES = {
  waiting: "settings.stateWaiting",
  delivered: "settings.stateDelivered",
  "given-up": "settings.stateGivenUp",
} as const;

export function DeliveryLog({ channel }: { channel: ChannelView | undefined }) {
  if (channel === undefined) return null;
  return <Log channel={channel} />;
}

function Log({ channel }: { channel: ChannelView }) {
  const { say } = useLocale();
  const log = useQuery(deliveriesQuery(channel.id));
  const resend = useMutation({
    mutationFn: (delivery: number) => resendDelivery(channel.id, delivery),
    onSuccess: () => queryClient.invalidateQueries({ queryKey: channelsQuery.queryKey }),
  });
  return (
    <>
      <h3>{say("settings.channelLogOf", { name: channel.name })}</h3>
      <Items query={log} icon="alerts" none={say("settings.deliveriesNone")}>
        {(items) => <LogTable label={channel.name} deliveries={items} onResend={(id) => resend.mutate(id)} />}
      </Items>
      {resend.isError && <ProblemNote error={resend.error} />}
    </>
  );
}

interface TableProps {
  label: string;
  deliveries: DeliveryView[];
  onResend: (id: number) => void;
}

function LogTable({ label, deliveries, onResend }: TableProps) {
  const { say, number } = useLocale();
  return (
    <Listing
      label={say("settings.channelLogOf", { name: label })}
      items={deliveries}
      keyOf={({ id }) => id}
      columns={[
        {
          title: say("settings.deliveryWhat"),
          cell: ({ alert, verb, title, queued_at }) => <>{alert} {verb}: {title} <Age at={queued_at} /></>,
        },
        { title: say("settings.deliveryState"), cell: ({ state }) => say(STATES[state]) },
        { title: say("settings.deliveryTries"), look: "number", cell: ({ attempts }) => number(attempts) },
        { title: say("settings.deliveryOutcome"), look: "break", cell: ({ outcome }) => outcome },
      ]}
      actions={({ id, title, state }) =>
        state !== "waiting" && (
          <Button look="quiet" aria-label={say("settings.deliveryResendOf", { title })} onClick={() => onResend(id)}>
            {say("settings.deliveryResend")}
          </Button>
        )
      }
    />
  );
}
