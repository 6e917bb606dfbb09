// What to roll back, where, and why; with its effect in counts before anything happens.

import { queryOptions, useMutation, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { rollBack } from "../api/calls";
import { queryClient } from "../api/queries";
import type { ModelView, RollbackResult } from "../api/types";
import { FilterField } from "../filter/field";
import { useLocale } from "../i18n/language";
import { Age, Button } from "../ui/basics";
import { ChooseInSight, ChooseOne, type Option } from "../ui/choose";
import { CopyLine } from "../ui/copy";
import { Icon } from "../ui/icon";
import { ProblemNote } from "../ui/loaded";
import { RollbackEffect } from "./effect";
import { type Choice, commandOf, firstChoice, isAskable, missingOf, PREVIOUS, requestOf, targetsOf, THEN } from "./plan";
import type { RollbackWish } from "./wish";

interface RollbackFormProps {
  models: ModelView[];
  wish: RollbackWish;
  onStarted: (result: RollbackResult) => void;
  onClose: () => void;
}

/** The server wants a reason with every rollback; nothing is done or kept for a dry run. */
const DRY_RUN_REASON = "dry run";

const EFFECT_KEY = "rollback-effect";

const effectQuery = (choice: Choice) =>
  queryOptions({
    queryKey: [EFFECT_KEY, choice.model, choice.target, choice.time, choice.filter, choice.devices],
    queryFn: () => rollBack({ ...requestOf(choice, true), reason: DRY_RUN_REASON }),
    enabled: isAskable(choice),
    retry: false,
    staleTime: 0,
    gcTime: 0,
  });

export function RollbackForm({ models, wish, onStarted, onClose }: RollbackFormProps) {
  const { say } = useLocale();
  const [choice, setChoice] = useState<Choice>(() => firstChoice(models, wish));
  const change = (part: Partial<Choice>) => setChoice((before) => ({ ...before, ...part }));
  const effect = useQuery(effectQuery(choice));
  const start = useMutation({
    mutationFn: () => rollBack(requestOf(choice, false)),
    onSuccess: (result) => {
      // All that is shown is old now; what this very rollback would do is past.
      void queryClient.invalidateQueries({ predicate: ({ queryKey }) => queryKey[0] !== EFFECT_KEY });
      onStarted(result);
    },
  });
  const known = effect.isFetching ? undefined : effect.data;
  const missing = missingOf(choice, known);
  return (
    <form
      className="dialog-form"
      onSubmit={(event) => {
        event.preventDefault();
        if (missing === undefined && !start.isPending) start.mutate();
      }}
    >
      <div className="dialog-body rollback-body">
        <div className="stack">
          <WhatToRollBack models={models} choice={choice} onChange={change} resolved={effect.data?.version} />
          <FilterField
            label={say("rollback.scope")}
            hint={say("rollback.scopeHint")}
            filter={choice.filter}
            onFilter={(filter) => change({ filter })}
          />
          <label className="field">
            <span>{say("rollback.devices")}</span>
            <input
              value={choice.devices ?? ""}
              placeholder={say("rollback.devicesHint")}
              onChange={(event) => change({ devices: event.target.value })}
            />
          </label>
          <label className="field">
            <span>{say("rollback.reason")}</span>
            <textarea
              rows={2}
              required
              value={choice.reason}
              placeholder={say("rollback.reasonHint")}
              onChange={(event) => change({ reason: event.target.value })}
            />
          </label>
        </div>
        <div className="stack">
          <RollbackEffect query={effect} />
          <div className="field">
            <span>{say("rollback.command")}</span>
            <CopyLine text={commandOf(choice)} label={say("rollback.command")} />
          </div>
        </div>
        {start.isError && <ProblemNote error={start.error} />}
      </div>
      <div className="dialog-foot">
        <p className="muted" aria-live="polite" id="rollback-missing">
          {missing && <><Icon name="info" size={14} /> {say(`rollback.missing.${missing}`)}</>}
        </p>
        <Button look="plain" onClick={onClose}>{say("common.cancel")}</Button>
        <Button
          look="danger"
          type="submit"
          icon="back"
          aria-disabled={missing !== undefined || start.isPending}
          aria-describedby="rollback-missing"
        >
          {known
            ? say("rollback.confirm", { count: known.devices, version: known.version })
            : say("rollback.button")}
        </Button>
      </div>
    </form>
  );
}

interface WhatProps {
  models: ModelView[];
  choice: Choice;
  resolved: string | undefined;
  onChange: (part: Partial<Choice>) => void;
}

function WhatToRollBack({ models, choice, resolved, onChange }: WhatProps) {
  const { say } = useLocale();
  const model = models.find(({ name }) => name === choice.model);
  const previous: Option = {
    id: PREVIOUS,
    text: say("rollback.previous"),
    hint: choice.target === PREVIOUS && resolved ? say("rollback.previousIs", { version: resolved }) : say("rollback.previousHint"),
  };
  const then: Option = { id: THEN, text: say("rollback.then"), hint: say("rollback.thenHint") };
  const versions = targetsOf(model).map(
    (version): Option => ({
      id: version.version,
      text: say("version.named", { version: version.version }),
      hint: (
        <>
          {say("rollback.servedBy", { devices: version.devices })} · <Age at={version.pushed_at} />
        </>
      ),
    }),
  );
  return (
    <>
      <ChooseOne
        label={say("rollback.model")}
        options={models.map(({ name }) => ({ id: name, text: name }))}
        chosen={choice.model}
        onChoose={(name) => onChange({ model: name, target: PREVIOUS })}
      />
      <ChooseInSight
        label={say("rollback.target")}
        options={[previous, then, ...versions]}
        chosen={choice.target}
        onChoose={(target) => onChange({ target })}
      />
      {choice.target === THEN && (
        <label className="field">
          <span>{say("rollback.time")}</span>
          <input type="datetime-local" value={choice.time ?? ""} onChange={(event) => onChange({ time: event.target.value })} />
        </label>
      )}
    </>
  );
}
