// Where data is not as in training: subject by scope, and the numbers behind each verdict.

import { useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { driftQuery } from "../api/queries";
import type { DriftView } from "../api/types";
import { useLocale } from "../i18n/language";
import { Empty, PageHeader, Panel } from "../ui/basics";
import { ChooseOne } from "../ui/choose";
import { Loaded } from "../ui/loaded";
import { DriftDetail } from "./drift/detail";
import { DriftHeatMap } from "./drift/heat-map";
import { worstOf } from "./drift/order";
import "../styles/drift.css";

const route = getRouteApi("/shell/drift");

export function DriftPage() {
  const { say } = useLocale();
  const drift = useQuery(driftQuery());
  return (
    <>
      <PageHeader title={say("drift.title")} hint={say("drift.hint")} />
      <Loaded query={drift}>
        {({ items }) => (items.length === 0 ? <Empty icon="drift">{say("drift.none")}</Empty> : <Verdicts verdicts={items} />)}
      </Loaded>
    </>
  );
}

function Verdicts({ verdicts }: { verdicts: DriftView[] }) {
  const { say } = useLocale();
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const models = [...new Set(verdicts.map(({ model }) => model))].sort();
  const model = search.model && models.includes(search.model) ? search.model : (worstOf(verdicts)?.model ?? "");
  const ofModel = verdicts.filter((verdict) => verdict.model === model);
  const inScope = search.scope ? ofModel.filter(({ scope }) => scope === search.scope) : ofModel;
  const chosen =
    ofModel.find(({ scope, subject }) => scope === search.scope && subject === search.subject) ?? worstOf(inScope) ?? worstOf(ofModel);
  const choose = (verdict: DriftView) =>
    void navigate({ search: { model, scope: verdict.scope, subject: verdict.subject }, replace: true, resetScroll: false });
  return (
    <>
      {models.length > 1 && (
        <ChooseOne
          label={say("drift.model")}
          options={models.map((name) => ({ id: name, text: name }))}
          chosen={model}
          onChoose={(name) => void navigate({ search: { model: name } })}
        />
      )}
      <Panel title={say("drift.map", { model })}>
        <DriftHeatMap verdicts={ofModel} chosen={chosen} onChoose={choose} />
      </Panel>
      {chosen && <DriftDetail key={`${chosen.scope} ${chosen.subject}`} verdict={chosen} verdicts={ofModel} onChoose={choose} />}
    </>
  );
}
