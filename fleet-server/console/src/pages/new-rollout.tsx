// A new rollout on one page: what, where, in which waves, when, why; the plan, what would come of it, and its file beside it.

import { useMutation, useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { useState } from "react";
import { changeRollout, createRollout } from "../api/calls";
import { deviceCountQuery, modelsQuery, queryClient, rolloutQuery } from "../api/queries";
import type { ModelView, RolloutView } from "../api/types";
import { FilterField } from "../filter/field";
import { useLocale } from "../i18n/language";
import { Button, Empty, PageHeader, Panel } from "../ui/basics";
import { ChooseOne } from "../ui/choose";
import { Loaded, ProblemNote } from "../ui/loaded";
import { type Draft, draftFrom, draftOf, faultOf, rolloutOf } from "./rollout/draft";
import { Forecast } from "./rollout/forecast";
import { PlanInWords } from "./rollout/plan-in-words";
import { BudgetFields, WhenFields } from "./rollout/policy";
import { BehaviourFields, ShadowFields } from "./rollout/trial-fields";
import { NumberField, WavesEditor } from "./rollout/waves-editor";
import "../styles/rollout.css";

const route = getRouteApi("/shell/rollouts/new");

export function NewRolloutPage() {
  const { say } = useLocale();
  const { draft: id } = route.useSearch();
  return (
    <>
      <PageHeader title={id ? say("newRollout.titleEdit", { id }) : say("newRollout.title")} />
      {id ? <SavedDraft id={id} /> : <FormOnce />}
    </>
  );
}

function SavedDraft({ id }: { id: string }) {
  const saved = useQuery(rolloutQuery(id));
  return <Loaded query={saved}>{(view) => <FormOnce saved={view} />}</Loaded>;
}

function FormOnce({ saved }: { saved?: RolloutView }) {
  const { say } = useLocale();
  const models = useQuery(modelsQuery);
  return (
    <Loaded query={models}>
      {({ items }) => (items.length === 0 ? <Empty icon="models">{say("models.none")}</Empty> : <RolloutForm models={items} saved={saved} />)}
    </Loaded>
  );
}

function RolloutForm({ models, saved }: { models: ModelView[]; saved: RolloutView | undefined }) {
  const { say } = useLocale();
  const wish = route.useSearch();
  const navigate = route.useNavigate();
  const [draft, setDraft] = useState<Draft>(() => (saved ? draftFrom(saved) : draftOf(models, wish)));
  const change = (part: Partial<Draft>) => setDraft((before) => ({ ...before, ...part }));
  const devices = useQuery({ ...deviceCountQuery(draft.filter), retry: false });
  const create = useMutation({
    mutationFn: (asDraft: boolean) => {
      const rollout = { ...rolloutOf(draft), draft: asDraft };
      return saved ? changeRollout(saved.id, rollout) : createRollout(rollout);
    },
    onSuccess: async (view) => {
      await queryClient.invalidateQueries({ queryKey: ["rollouts"] });
      queryClient.setQueryData(["rollout", view.id], view);
      await navigate({ to: "/rollouts/$rollout", params: { rollout: view.id } });
    },
  });
  const fault = faultOf(draft);
  const versions = models.find(({ name }) => name === draft.model)?.versions ?? [];
  return (
    <form
      className="columns columns-form"
      onSubmit={(event) => {
        event.preventDefault();
        if (fault === undefined) create.mutate(saved !== undefined);
      }}
    >
      <div className="stack">
        <Panel title={say("newRollout.what")}>
          <div className="field-row">
            <ChooseOne
              label={say("newRollout.model")}
              options={models.map(({ name }) => ({ id: name, text: name }))}
              chosen={draft.model}
              onChoose={(model) => setDraft(draftOf(models, { model, filter: draft.filter }))}
            />
            <ChooseOne
              label={say("newRollout.version")}
              options={versions.map(({ version, state }) => ({ id: version, text: version, hint: say(`version.state.${state}`) }))}
              chosen={draft.version}
              onChoose={(version) => change({ version })}
            />
          </div>
        </Panel>
        <Panel title={say("newRollout.where")}>
          <FilterField
            label={say("newRollout.filter")}
            hint={say("newRollout.filterHint")}
            filter={draft.filter}
            onFilter={(filter) => change({ filter })}
          />
        </Panel>
        <Panel title={say("newRollout.waves")}>
          <WavesEditor waves={draft.waves} onWaves={(waves) => change({ waves })} />
          <div className="field-row field-row-apart">
            <NumberField label={say("newRollout.maxBad")} unit="%" max={100} value={draft.maxBadPercent} onValue={(maxBadPercent) => change({ maxBadPercent })} />
            <NumberField label={say("newRollout.trial")} unit={say("newRollout.minutes")} max={10_080} value={draft.trialMinutes} onValue={(trialMinutes) => change({ trialMinutes })} />
          </div>
        </Panel>
        <Panel title={say("newRollout.tried")}>
          <div className="stack">
            <BehaviourFields draft={draft} onChange={change} />
            <ShadowFields draft={draft} onChange={change} />
          </div>
        </Panel>
        <Panel title={say("newRollout.when")}>
          <WhenFields draft={draft} onChange={change} />
        </Panel>
        <Panel title={say("newRollout.disturb")}>
          <BudgetFields draft={draft} onChange={change} />
        </Panel>
        <Panel title={say("newRollout.why")}>
          <label className="field">
            <span>{say("newRollout.reason")}</span>
            <textarea rows={2} value={draft.reason} onChange={(event) => change({ reason: event.target.value })} />
          </label>
        </Panel>
      </div>
      <div className="stack">
        <Panel title={say("newRollout.plan")} className="plan">
          <PlanInWords draft={draft} devices={devices.data} />
          {create.isError && <ProblemNote error={create.error} />}
          {fault && <p className="warn-text" id="draft-fault">{say(`newRollout.fault.${fault}`)}</p>}
          <div className="actions-row">
            {!saved && (
              <Button type="submit" look="main" aria-disabled={fault !== undefined || create.isPending} aria-describedby={fault && "draft-fault"}>
                {say("newRollout.start")}
              </Button>
            )}
            <Button
              type="button"
              aria-disabled={fault !== undefined || create.isPending}
              onClick={() => {
                if (fault === undefined) create.mutate(true);
              }}
            >
              {say("newRollout.saveDraft")}
            </Button>
          </div>
        </Panel>
        {fault === undefined && (
          <Panel title={say("newRollout.forecast")}>
            <Forecast rollout={rolloutOf(draft)} />
          </Panel>
        )}
      </div>
    </form>
  );
}
