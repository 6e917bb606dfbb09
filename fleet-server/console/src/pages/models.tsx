// Models and their versions.

import { useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { modelQuery, modelsQuery } from "../api/queries";
import type { ModelView } from "../api/types";
import { useLocale } from "../i18n/language";
import { wishRollback } from "../rollback/wish";
import { Age, Button, Digest, Empty, PageHeader, Panel, TableScroll } from "../ui/basics";
import { CopyLine } from "../ui/copy";
import { Loaded } from "../ui/loaded";
import { VersionMark } from "../ui/mark";
import { ModelLink, VersionLink } from "../ui/model-link";

const route = getRouteApi("/shell/models/$team/$name");

export function ModelsPage() {
  const { say } = useLocale();
  const models = useQuery(modelsQuery);
  return (
    <>
      <PageHeader title={say("models.title")} />
      <Loaded query={models}>
        {({ items }) =>
          items.length === 0 ? (
            <>
              <Empty icon="models">{say("models.none")}</Empty>
              <CopyLine text="fleetctl model push DIR" label={say("models.push")} />
            </>
          ) : (
            items.map((model) => (
              <Panel key={model.name} title={<ModelLink model={model.name} />} aside={<RollBackModel model={model.name} />}>
                <p className="muted">{model.description}</p>
                <Versions model={model} />
              </Panel>
            ))
          )
        }
      </Loaded>
    </>
  );
}

export function ModelPage() {
  const { say } = useLocale();
  const { team, name } = route.useParams();
  const model = useQuery(modelQuery(`${team}/${name}`));
  return (
    <>
      <PageHeader title={`${team}/${name}`} hint={model.data?.description}>
        <RollBackModel model={`${team}/${name}`} />
      </PageHeader>
      <Loaded query={model}>
        {(view) => (
          <Panel title={say("models.versions")}>
            <Versions model={view} />
          </Panel>
        )}
      </Loaded>
    </>
  );
}

function RollBackModel({ model }: { model: string }) {
  const { say } = useLocale();
  return <Button icon="back" onClick={() => wishRollback({ model })}>{say("models.rollBack")}</Button>;
}

function Versions({ model }: { model: ModelView }) {
  const { say, number, bytes } = useLocale();
  return (
    <TableScroll label={say("models.versionsOf", { model: model.name })}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("models.version")}</th>
            <th scope="col">{say("models.state")}</th>
            <th scope="col" className="number">{say("models.devices")}</th>
            <th scope="col">{say("models.digest")}</th>
            <th scope="col">{say("models.variants")}</th>
            <th scope="col" className="number">{say("models.size")}</th>
            <th scope="col">{say("models.baseline")}</th>
            <th scope="col">{say("models.pushed")}</th>
          </tr>
        </thead>
        <tbody>
          {model.versions.map((version) => (
            <tr key={version.version}>
              <th scope="row"><VersionLink model={model.name} version={version.version} /></th>
              <td>
                <VersionMark state={version.state} />
                {version.quarantine_reason && <p className="muted small">{version.quarantine_reason}</p>}
              </td>
              <td className="number">{number(version.devices)}</td>
              <td><Digest digest={version.digest} /></td>
              <td>{version.variants.join(", ")}</td>
              <td className="number">{bytes(version.size_bytes)}</td>
              <td>{version.has_baseline ? say("common.yes") : say("common.no")}</td>
              <td><Age at={version.pushed_at} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
