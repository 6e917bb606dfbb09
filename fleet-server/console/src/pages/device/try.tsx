// Asks a model on this device, as an application there would, and shows what comes back.

import { useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { askModel } from "../../api/calls";
import { queryClient, timelineQuery, versionQuery } from "../../api/queries";
import type { DeviceView, InferView, IoContract } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Button, Digest, Empty, TableScroll } from "../../ui/basics";
import { ChooseOne } from "../../ui/choose";
import { ProblemNote } from "../../ui/loaded";
import { VersionLink } from "../../ui/model-link";
import { exampleOf, firstRow, outputsOf, parseQuestion } from "./question";

export function TryIt({ device }: { device: DeviceView }) {
  const { say } = useLocale();
  const served = device.slots.filter((slot) => slot.serving);
  const [chosen, setChosen] = useState("");
  const slot = served.find(({ model }) => model === chosen) ?? served[0];
  if (!slot?.serving) return <Empty icon="models">{say("try.nothing")}</Empty>;
  const options = served.map(({ model, serving }) => ({ id: model, text: model, hint: serving ?? "" }));
  return (
    <div className="stack">
      {served.length > 1 && <ChooseOne label={say("device.model")} options={options} chosen={slot.model} onChoose={setChosen} />}
      <Question key={`${slot.model}@${slot.serving}`} device={device} model={slot.model} version={slot.serving} />
    </div>
  );
}

function Question({ device, model, version }: { device: DeviceView; model: string; version: string }) {
  const { say } = useLocale();
  const contract = useQuery(versionQuery(model, version)).data?.contract;
  const [written, setWritten] = useState<string>();
  const text = written ?? exampleOf(contract?.inputs ?? []) ?? "";
  const question = parseQuestion(text);
  const ask = useMutation({
    mutationFn: (body: object) => askModel(device.id, model, body),
    // The question stands on the device's timeline, answered or not.
    onSettled: () => queryClient.invalidateQueries({ queryKey: timelineQuery(device.id).queryKey }),
  });
  const isAway = device.state === "offline" || device.state === "revoked";
  const missing = isAway ? say("try.away") : question ? "" : say("try.noJson");
  const mayAsk = !missing && !ask.isPending;
  return (
    <form
      className="stack"
      onSubmit={(event) => {
        event.preventDefault();
        if (mayAsk && question) ask.mutate(question);
      }}
    >
      <label className="field">
        <span>{say("try.question", { model })}</span>
        <textarea rows={5} spellCheck={false} value={text} onChange={(event) => setWritten(event.target.value)} />
      </label>
      <p className="muted small">{say("try.means")}</p>
      <div className="dialog-foot">
        <p className="muted" aria-live="polite" id="try-missing">{ask.isPending ? say("try.asking") : missing}</p>
        <Button look="main" type="submit" aria-disabled={!mayAsk} aria-describedby="try-missing">{say("try.ask")}</Button>
      </div>
      {ask.isError && <ProblemNote error={ask.error} />}
      {ask.isSuccess && <Answer view={ask.data} contract={contract} />}
    </form>
  );
}

function Answer({ view, contract }: { view: InferView; contract: IoContract | null | undefined }) {
  const { say, number } = useLocale();
  const outputs = outputsOf(view.answer);
  return (
    <div className="stack" role="status">
      <p>
        {say("try.answered", { device: number(view.latency_us / 1_000), way: number(view.took_ms) })}{" "}
        <VersionLink model={view.model} version={view.version} /> <Digest digest={view.digest} />
      </p>
      <TableScroll label={say("try.outputs")}>
        <table className="table">
          <thead>
            <tr>
              <th scope="col">{say("try.output")}</th>
              <th scope="col">{say("try.element")}</th>
              <th scope="col">{say("try.value")}</th>
            </tr>
          </thead>
          <tbody>
            {outputs.flatMap((tensor) =>
              firstRow(tensor, contract?.outputs.find(({ name }) => name === tensor.name)).map((line) => (
                <tr key={`${tensor.name} ${line.name}`}>
                  <th scope="row">{tensor.name} <span className="muted small">{tensor.datatype}</span></th>
                  <td>{line.name}</td>
                  <td><code>{line.value}</code></td>
                </tr>
              )),
            )}
          </tbody>
        </table>
      </TableScroll>
    </div>
  );
}
