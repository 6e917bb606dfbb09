// The queue: one sample after the other, labelled by keyboard or by a click, and taken back the same way.

import { useMutation, useQuery } from "@tanstack/react-query";
import { type KeyboardEvent, useState } from "react";
import { labelSample, unlabelSample } from "../../api/calls";
import { queryClient, reviewQueueQuery, reviewSampleQuery } from "../../api/queries";
import type { QueueView, SampleDetail } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Age, Button, Empty, Facts, Panel } from "../../ui/basics";
import { Loaded, ProblemNote } from "../../ui/loaded";
import { deedOf, nextOf } from "./labelling";
import { ShownTensor } from "./shown";

export function Queue() {
  const { say } = useLocale();
  const queue = useQuery(reviewQueueQuery);
  return (
    <Panel title={say("review.queue")}>
      <Loaded query={queue}>
        {(view) => (view.items.length === 0 ? <Nothing view={view} /> : <Labelling key={view.items[0]?.id} view={view} />)}
      </Loaded>
    </Panel>
  );
}

function Nothing({ view: { left, budget, waiting } }: { view: QueueView }) {
  const { say } = useLocale();
  return <Empty icon="check">{left === 0 ? say("review.spent", { budget, waiting }) : say("review.nothing")}</Empty>;
}

function Labelling({ view }: { view: QueueView }) {
  const { say } = useLocale();
  const ids = view.items.map(({ id }) => id);
  const [at, setAt] = useState(0);
  const [done, setDone] = useState<string[]>([]);
  const id = ids[at] ?? "";
  const sample = useQuery(reviewSampleQuery(id));
  const classes = sample.data?.classes ?? [];
  const told = () => void queryClient.invalidateQueries({ queryKey: ["review", "accuracy"] });
  const label = useMutation({
    mutationFn: ({ sample, label }: { sample: string; label: string }) => labelSample(sample, label),
    onSuccess: (_, { sample }) => {
      const now = [...done.filter((other) => other !== sample), sample];
      setDone(now);
      setAt(nextOf(ids, at, now));
      told();
    },
  });
  const undo = useMutation({
    mutationFn: (sample: string) => unlabelSample(sample),
    onSuccess: (_, sample) => {
      setDone(done.filter((other) => other !== sample));
      setAt(Math.max(0, ids.indexOf(sample)));
      told();
    },
  });
  const isBusy = label.isPending || undo.isPending;
  const newest = done[done.length - 1];
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
    const deed = deedOf(event.key, { classes, count: ids.length, at, done });
    if (!deed || isBusy) return;
    event.preventDefault();
    if (deed.kind === "go") setAt(deed.to);
    else if (deed.kind === "undo") undo.mutate(deed.sample);
    else label.mutate({ sample: id, label: deed.label });
  };
  return (
    <div className="review-labelling" role="group" aria-label={say("review.keys")} tabIndex={0} onKeyDown={onKeyDown}>
      <p className="muted small">{say("review.hint")}</p>
      <p role="status">{say("review.progress", { at: at + 1, count: ids.length, done: done.length, left: Math.max(0, view.left - done.length) })}</p>
      <Loaded query={sample}>{(detail) => <Shown detail={detail} isDone={done.includes(id)} />}</Loaded>
      <div className="review-classes">
        {classes.length <= 10 && classes.map((name, place) => (
          <Button key={name} disabled={isBusy} onClick={() => label.mutate({ sample: id, label: name })}>
            <kbd>{place}</kbd> {name}
          </Button>
        ))}
        <Typed isBusy={isBusy} onLabel={(text) => label.mutate({ sample: id, label: text })} />
        <Button look="quiet" icon="back" disabled={newest === undefined || isBusy} onClick={() => newest !== undefined && undo.mutate(newest)}>
          {say("review.undo")}
        </Button>
      </div>
      {label.isError && <ProblemNote error={label.error} />}
      {undo.isError && <ProblemNote error={undo.error} />}
    </div>
  );
}

function Typed({ isBusy, onLabel }: { isBusy: boolean; onLabel: (label: string) => void }) {
  const { say } = useLocale();
  const [text, setText] = useState("");
  return (
    <form
      className="acknowledge"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim() !== "") onLabel(text.trim());
        setText("");
      }}
    >
      <input aria-label={say("review.other")} placeholder={say("review.other")} value={text} onChange={(event) => setText(event.target.value)} />
      <Button type="submit" disabled={isBusy}>{say("review.label")}</Button>
    </form>
  );
}

function Shown({ detail, isDone }: { detail: SampleDetail; isDone: boolean }) {
  const { say, share } = useLocale();
  const { sample, inputs } = detail;
  const said = sample.prediction ?? "—";
  return (
    <div className="review-sample">
      <div>{inputs.map((tensor) => <ShownTensor key={tensor.name} tensor={tensor} />)}</div>
      <Facts
        rows={[
          [say("review.model"), `${sample.model} ${sample.version}`],
          [say("review.device"), sample.device],
          [say("review.taken"), <Age key="at" at={sample.at} />],
          [say("review.prediction"), sample.confidence == null ? said : `${said} (${share(sample.confidence)})`],
          [say("review.why"), sample.why.map((why) => say(`review.why.${why}`)).join(", ")],
          [say("review.deleted"), <Age key="end" at={sample.delete_at} />],
          [say("review.state"), say(isDone ? "review.isDone" : "review.isOpen")],
        ]}
      />
    </div>
  );
}
