// What was sent to a channel, newest first.

import { useMutation, useQuery } from "@tanstack/react-query";
import { resendDelivery } from "../../api/calls";
import { channelsQuery, deliveriesQuery, queryClient } from "../../api/queries";
import type { ChannelView, DeliveryView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Age, Button, Empty, TableScroll } from "../../ui/basics";
import { Loaded, ProblemNote } from "../../ui/loaded";

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
      <Loaded query={log}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty icon="alerts">{say("settings.deliveriesNone")}</Empty>
          ) : (
            <LogTable label={channel.name} deliveries={items} onResend={(id) => resend.mutate(id)} />
          )
        }
      </Loaded>
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
    <TableScroll label={say("settings.channelLogOf", { name: label })}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("settings.deliveryWhat")}</th>
            <th scope="col">{say("settings.deliveryState")}</th>
            <th scope="col" className="number">{say("settings.deliveryTries")}</th>
            <th scope="col">{say("settings.deliveryOutcome")}</th>
            <td />
          </tr>
        </thead>
        <tbody>
          {deliveries.map(({ id, alert, verb, title, state, attempts, outcome, queued_at }) => (
            <tr key={id}>
              <th scope="row">{alert} {verb}: {title} <Age at={queued_at} /></th>
              <td>{say(STATES[state])}</td>
              <td className="number">{number(attempts)}</td>
              <td className="break">{outcome}</td>
              <td>
                {state !== "waiting" && (
                  <Button look="quiet" aria-label={say("settings.deliveryResendOf", { title })} onClick={() => onResend(id)}>
                    {say("settings.deliveryResend")}
                  </Button>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
