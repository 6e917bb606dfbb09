// Devices of a batch that wait until somebody approves them. Nothing is drawn while none does.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { approveEnrolRequest, denyEnrolRequest } from "../../api/calls";
import { enrolRequestsQuery, queryClient } from "../../api/queries";
import type { EnrolRequestView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Age, Button, Labels, TableScroll } from "../../ui/basics";
import { ProblemNote } from "../../ui/loaded";

/** Enough of a key's digest to compare it with what the device shows. */
const KEY_SHOWN = "sha256:".length + 12;

const readAgain = () => queryClient.invalidateQueries({ queryKey: enrolRequestsQuery.queryKey });

export function Pending() {
  const { say } = useLocale();
  const waiting = useQuery(enrolRequestsQuery);
  const items = waiting.data?.items ?? [];
  if (waiting.isError) return <ProblemNote error={waiting.error} onRetry={() => void waiting.refetch()} />;
  if (items.length === 0) return null;
  const title = say("pending.title", { count: items.length });
  return (
    <section className="stack" aria-label={title}>
      <h2>{title}</h2>
      <TableScroll label={title}>
        <table className="table">
          <thead>
            <tr>
              <th scope="col">{say("devices.device")}</th>
              <th scope="col">{say("pending.serial")}</th>
              <th scope="col">{say("pending.batch")}</th>
              <th scope="col">{say("devices.labels")}</th>
              <th scope="col">{say("pending.from")}</th>
              <th scope="col">{say("pending.key")}</th>
              <th scope="col">{say("pending.since")}</th>
              <td />
            </tr>
          </thead>
          <tbody>{items.map((request) => <Row key={request.id} request={request} />)}</tbody>
        </table>
      </TableScroll>
    </section>
  );
}

function Row({ request }: { request: EnrolRequestView }) {
  return (
    <tr>
      <th scope="row"><code>{request.device}</code></th>
      <td>{request.serial ?? "–"}</td>
      <td>{request.batch}</td>
      <td><Labels labels={request.labels} /></td>
      <td>{request.address}</td>
      <td><code>{request.key.slice(0, KEY_SHOWN)}</code></td>
      <td><Age at={request.asked_at} /></td>
      <td><Decision request={request} /></td>
    </tr>
  );
}

function Decision({ request: { id, device } }: { request: EnrolRequestView }) {
  const { say } = useLocale();
  const [reason, setReason] = useState<string | null>(null);
  const approve = useMutation({ mutationFn: () => approveEnrolRequest(id), onSuccess: readAgain });
  const deny = useMutation({ mutationFn: (why: string) => denyEnrolRequest(id, why), onSuccess: readAgain });
  const error = approve.error ?? deny.error;
  if (reason === null) {
    return (
      <>
        <Button look="main" aria-label={say("pending.approveNamed", { device })} disabled={approve.isPending} onClick={() => approve.mutate()}>
          {say("pending.approve")}
        </Button>{" "}
        <Button look="quiet" aria-label={say("pending.denyNamed", { device })} onClick={() => setReason("")}>{say("pending.deny")}</Button>
        {error && <ProblemNote error={error} />}
      </>
    );
  }
  return (
    <form
      className="form-row"
      onSubmit={(event) => {
        event.preventDefault();
        deny.mutate(reason.trim());
      }}
    >
      <label className="field">
        <span>{say("pending.reason", { device })}</span>
        <input value={reason} required maxLength={400} onChange={(event) => setReason(event.target.value)} />
      </label>
      <Button type="submit" disabled={deny.isPending || reason.trim() === ""}>{say("pending.deny")}</Button>
      <Button look="quiet" onClick={() => setReason(null)}>{say("pending.cancel")}</Button>
      {error && <ProblemNote error={error} />}
    </form>
  );
}
