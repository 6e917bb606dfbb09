// Where alerts are sent.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { createWebhook, removeWebhook } from "../../api/calls";
import { queryClient, webhooksQuery } from "../../api/queries";
import type { WebhookView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Button, Empty, TableScroll } from "../../ui/basics";
import { CopyLine } from "../../ui/copy";
import { Loaded, ProblemNote } from "../../ui/loaded";

const readAgain = () => queryClient.invalidateQueries({ queryKey: webhooksQuery.queryKey });

export function Webhooks() {
  const { say } = useLocale();
  const webhooks = useQuery(webhooksQuery);
  const remove = useMutation({ mutationFn: removeWebhook, onSuccess: readAgain });
  return (
    <div className="stack">
      <Loaded query={webhooks}>
        {({ items }) =>
          items.length === 0 ? (
            <Empty icon="alerts">{say("settings.webhooksNone")}</Empty>
          ) : (
            <WebhookTable webhooks={items} onRemove={(id) => remove.mutate(id)} />
          )
        }
      </Loaded>
      {remove.isError && <ProblemNote error={remove.error} />}
      <NewWebhook />
    </div>
  );
}

function WebhookTable({ webhooks, onRemove }: { webhooks: WebhookView[]; onRemove: (id: number) => void }) {
  const { say, number } = useLocale();
  return (
    <TableScroll label={say("settings.webhooks")}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("settings.webhookUrl")}</th>
            <th scope="col">{say("settings.webhookLast")}</th>
            <th scope="col" className="number">{say("settings.webhookPending")}</th>
            <td />
          </tr>
        </thead>
        <tbody>
          {webhooks.map((webhook) => (
            <tr key={webhook.id}>
              <th scope="row" className="break">{webhook.url}</th>
              <td>{webhook.last_delivery ?? say("settings.webhookNever")}</td>
              <td className="number">{number(webhook.pending)}</td>
              <td>
                <Button look="quiet" aria-label={say("settings.webhookRemove", { url: webhook.url })} onClick={() => onRemove(webhook.id)}>
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

function NewWebhook() {
  const { say } = useLocale();
  const [url, setUrl] = useState("");
  const create = useMutation({
    mutationFn: () => createWebhook(url.trim()),
    onSuccess: () => {
      setUrl("");
      return readAgain();
    },
  });
  return (
    <form
      className="form-row"
      onSubmit={(event) => {
        event.preventDefault();
        create.mutate();
      }}
    >
      <label className="field">
        <span>{say("settings.webhookUrl")}</span>
        <input type="url" required placeholder="https://" value={url} onChange={(event) => setUrl(event.target.value)} />
      </label>
      <Button type="submit" look="main" disabled={create.isPending}>{say("settings.webhookAdd")}</Button>
      {create.isError && <ProblemNote error={create.error} />}
      {create.data?.secret && (
        <div className="form-result" role="status">
          <p>{say("settings.webhookSecret")}</p>
          <CopyLine text={create.data.secret} label={say("settings.webhookSecret")} />
        </div>
      )}
    </form>
  );
}
