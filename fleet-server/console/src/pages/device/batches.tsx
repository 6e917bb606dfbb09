// Batches of one device: how they stand, which the device itself must be asked, and the predictions that it has brought up.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { cancelBatch, deleteBatchResult, predictionsPath } from "../../api/calls";
import { batchResultsQuery, batchesQuery, queryClient } from "../../api/queries";
import type { BatchJob, BatchResultView, BatchState, DeviceView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Age, Button, Empty } from "../../ui/basics";
import type { IconName } from "../../ui/icon";
import { Listing } from "../../ui/listing";
import { Loaded, ProblemNote } from "../../ui/loaded";
import { Mark, type Tone } from "../../ui/mark";

const looks: Record<BatchState, readonly [Tone, IconName]> = {
  waiting: ["idle", "queued"],
  running: ["info", "running"],
  done: ["ok", "check"],
  failed: ["bad", "critical"],
  cancelled: ["idle", "close"],
};

export const isOpen = ({ state }: Pick<BatchJob, "state">) => state === "waiting" || state === "running";

const readAgain = async (device: string) => {
  await queryClient.invalidateQueries({ queryKey: batchesQuery(device).queryKey });
  await queryClient.invalidateQueries({ queryKey: batchResultsQuery(device).queryKey });
};

export function Batches({ device }: { device: DeviceView }) {
  const { say } = useLocale();
  const [isAsked, setAsked] = useState(false);
  const isAway = device.state === "offline" || device.state === "revoked";
  return (
    <div className="stack">
      <Results device={device.id} />
      {isAsked ? (
        <Jobs device={device.id} />
      ) : (
        <div className="dialog-foot">
          <p className="muted" id="batches-means">{say(isAway ? "try.away" : "batches.means")}</p>
          <Button aria-disabled={isAway} aria-describedby="batches-means" onClick={() => setAsked(!isAway)}>
            {say("batches.ask")}
          </Button>
        </div>
      )}
    </div>
  );
}

function Jobs({ device }: { device: string }) {
  const { say } = useLocale();
  const jobs = useQuery(batchesQuery(device));
  const cancel = useMutation({ mutationFn: (name: string) => cancelBatch(device, name), onSettled: () => readAgain(device) });
  return (
    <>
      <Loaded query={jobs}>
        {(found) => (found.length === 0 ? <Empty icon="queued">{say("batches.none")}</Empty> : <JobTable jobs={found} onCancel={cancel.mutate} />)}
      </Loaded>
      {cancel.isError && <ProblemNote error={cancel.error} />}
    </>
  );
}

export function JobTable({ jobs, onCancel }: { jobs: BatchJob[]; onCancel: (name: string) => void }) {
  const { say, number, bytes } = useLocale();
  return (
    <Listing
      label={say("batches.onDevice")}
      items={[...jobs].reverse()}
      keyOf={({ run }) => run.name}
      columns={[
        { title: say("batches.name"), cell: ({ run }) => run.name },
        { title: say("device.model"), cell: ({ run }) => run.model },
        { title: say("batches.state"), cell: (job) => <StateMark state={job.state} /> },
        { title: say("batches.rows"), look: "number", cell: ({ answered }) => number(answered) },
        {
          title: say("batches.brought"),
          cell: ({ brought }) =>
            brought ? say("batches.share", { bytes: bytes(brought.bytes), size: bytes(brought.size_bytes) }) : <span className="muted">—</span>,
        },
        { title: say("batches.by"), cell: ({ by, asked_at }) => <>{by} <Age at={asked_at} /></> },
        { title: say("batches.why"), look: "break", cell: ({ reason }) => reason },
      ]}
      actions={(job) =>
        isOpen(job) && (
          <Button look="quiet" aria-label={say("batches.cancelNamed", { name: job.run.name })} onClick={() => onCancel(job.run.name)}>
            {say("batches.cancel")}
          </Button>
        )
      }
    />
  );
}

function StateMark({ state }: { state: BatchState }) {
  const { say } = useLocale();
  const [tone, icon] = looks[state];
  return <Mark tone={tone} icon={icon}>{say(`batches.state.${state}`)}</Mark>;
}

function Results({ device }: { device: string }) {
  const { say } = useLocale();
  const results = useQuery(batchResultsQuery(device));
  const remove = useMutation({ mutationFn: (name: string) => deleteBatchResult(device, name), onSettled: () => readAgain(device) });
  return (
    <>
      <Loaded query={results}>
        {({ items }) =>
          items.length === 0 ? <p className="muted">{say("batches.nothingBrought")}</p> : <ResultTable results={items} onDelete={remove.mutate} />
        }
      </Loaded>
      {remove.isError && <ProblemNote error={remove.error} />}
    </>
  );
}

export function ResultTable({ results, onDelete }: { results: BatchResultView[]; onDelete: (name: string) => void }) {
  const { say, bytes } = useLocale();
  return (
    <Listing
      label={say("batches.onServer")}
      items={results}
      keyOf={({ name }) => name}
      columns={[
        { title: say("batches.name"), cell: ({ name }) => name },
        { title: say("device.model"), cell: ({ model }) => model },
        { title: say("batches.state"), cell: ({ state }) => say(`batches.result.${state}`) },
        {
          title: say("batches.bytes"),
          look: "number",
          cell: (view) => (view.size_bytes == null ? "—" : say("batches.share", { bytes: bytes(view.bytes), size: bytes(view.size_bytes) })),
        },
        { title: say("batches.kept"), cell: ({ delete_at }) => <Age at={delete_at} /> },
      ]}
      actions={({ device, name, state, format }) => (
        <>
          {state === "here" && (
            <a className="button button-quiet" href={predictionsPath(device, name)} download={`${name}-${device}.${format}`} aria-label={say("batches.downloadNamed", { name })}>
              {say("batches.download")}
            </a>
          )}
          <Button look="quiet" aria-label={say("batches.deleteNamed", { name })} onClick={() => onDelete(name)}>
            {say("batches.delete")}
          </Button>
        </>
      )}
    />
  );
}
