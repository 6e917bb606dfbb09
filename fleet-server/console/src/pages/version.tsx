// One version: who signed it, what it takes and gives, where it runs.

import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { versionQuery } from "../api/queries";
import type { TensorSpec, VersionView } from "../api/types";
import { useLocale } from "../i18n/language";
import { wishRollback } from "../rollback/wish";
import { Age, Button, Digest, Empty, Facts, PageHeader, Panel, TableScroll } from "../ui/basics";
import { CopyLine } from "../ui/copy";
import { Icon } from "../ui/icon";
import { Loaded } from "../ui/loaded";
import { VersionMark } from "../ui/mark";
import { ModelLink, RolloutLink } from "../ui/model-link";

const route = getRouteApi("/shell/models/$team/$name/versions/$version");

export function VersionPage() {
  const { say } = useLocale();
  const { team, name, version } = route.useParams();
  const model = `${team}/${name}`;
  const view = useQuery(versionQuery(model, version));
  return (
    <>
      <PageHeader title={`${model}@${version}`} hint={view.data?.description}>
        {view.data && <VersionMark state={view.data.state} />}
        <Link className="button button-plain" to="/rollouts/new" search={{ model, version }}>{say("version.rollOut")}</Link>
        <Button icon="back" onClick={() => wishRollback({ model })}>{say("version.rollBack")}</Button>
      </PageHeader>
      <Loaded query={view}>{(found) => <Sections version={found} />}</Loaded>
    </>
  );
}

function Sections({ version }: { version: VersionView }) {
  const { say } = useLocale();
  return (
    <>
      {version.quarantine_reason && (
        <div className="note note-bad">
          <Icon name="quarantine" />
          <div>
            <p><strong>{say("version.quarantined")}</strong></p>
            <p>{version.quarantine_reason}</p>
          </div>
        </div>
      )}
      {version.state === "unsigned" && <SignHint version={version} />}
      <div className="columns">
        <Panel title={say("version.image")}>
          <ImageFacts version={version} />
        </Panel>
        <Panel title={say("version.use")}>
          <UseFacts version={version} />
        </Panel>
      </div>
      <Panel title={say("version.contract")}>
        {version.contract ? (
          <>
            <Tensors title={say("version.inputs")} tensors={version.contract.inputs} />
            <Tensors title={say("version.outputs")} tensors={version.contract.outputs} />
          </>
        ) : (
          <Empty icon="info">{say("version.noContract")}</Empty>
        )}
      </Panel>
    </>
  );
}

function SignHint({ version }: { version: VersionView }) {
  const { say } = useLocale();
  const [team] = version.model.split("/");
  return (
    <div className="note note-warn">
      <Icon name="warning" />
      <div className="stack">
        <p>{say("version.unsignedHint")}</p>
        <CopyLine
          text={`fleetctl model sign ${version.model}@${version.version} --key publisher-${team}-1.pem`}
          label={say("version.sign")}
        />
      </div>
    </div>
  );
}

function ImageFacts({ version }: { version: VersionView }) {
  const { say, number, bytes } = useLocale();
  return (
    <Facts
      rows={[
        [say("version.model"), <ModelLink key="model" model={version.model} />],
        [say("version.digest"), <code key="digest" className="break">{version.digest}</code>],
        [say("version.signedBy"), version.signed_by.length > 0 ? <SignedBy key="signed" names={version.signed_by} /> : say("version.nobody")],
        [say("version.pushed"), <Age key="pushed" at={version.pushed_at} />],
        [say("version.size"), bytes(version.size_bytes)],
        [say("version.epoch"), number(version.epoch)],
        [say("version.family"), version.family || "—"],
        [say("version.licenses"), version.licenses.join(", ") || "—"],
      ]}
    />
  );
}

/** A role by its name, a key by the begin of its id. */
function SignedBy({ names }: { names: string[] }) {
  return (
    <ul className="plain-list">
      {names.map((name) => <li key={name}>{/^[0-9a-f]{64}$/.test(name) ? <Digest digest={name} /> : name}</li>)}
    </ul>
  );
}

function UseFacts({ version }: { version: VersionView }) {
  const { say } = useLocale();
  return (
    <Facts
      rows={[
        [
          say("version.devices"),
          <Link key="devices" to="/devices" search={{ filter: `model:${version.model}@${version.version}` }}>
            {say("filter.matches", { count: version.devices })}
          </Link>,
        ],
        [say("version.variants"), version.variants.join(", ") || "—"],
        [
          say("version.baseline"),
          version.has_baseline ? (
            <Link key="drift" to="/drift" search={{ model: version.model }}>{say("version.hasBaseline")}</Link>
          ) : (
            say("version.noBaseline")
          ),
        ],
        [
          say("version.rollouts"),
          version.rollouts.length === 0 ? (
            "—"
          ) : (
            <span key="rollouts" className="labels">{version.rollouts.map((id) => <RolloutLink key={id} rollout={id} />)}</span>
          ),
        ],
      ]}
    />
  );
}

/** A digits image has 64 features; more than these are counted, not listed. */
const FEATURES_SHOWN_MAX = 8;

function Tensors({ title, tensors }: { title: string; tensors: TensorSpec[] }) {
  const { say } = useLocale();
  const meaning = (tensor: TensorSpec) => {
    const names = tensor.features?.map((feature) => feature.name) ?? tensor.labels ?? [];
    const shown = names.slice(0, FEATURES_SHOWN_MAX).join(", ");
    const rest = names.length - FEATURES_SHOWN_MAX;
    return [tensor.role, rest > 0 ? say("version.andMore", { shown, count: rest }) : shown].filter(Boolean).join(": ");
  };
  return (
    <TableScroll label={title}>
      <table className="table">
        <caption>{title}</caption>
        <thead>
          <tr>
            <th scope="col">{say("version.tensor")}</th>
            <th scope="col">{say("version.datatype")}</th>
            <th scope="col">{say("version.shape")}</th>
            <th scope="col">{say("version.meaning")}</th>
          </tr>
        </thead>
        <tbody>
          {tensors.map((tensor) => (
            <tr key={tensor.name}>
              <th scope="row"><code>{tensor.name}</code></th>
              <td><code>{tensor.datatype}</code></td>
              <td><code>[{tensor.shape.map((length) => (length < 0 ? "*" : length)).join(", ")}]</code></td>
              <td>{meaning(tensor) || "—"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
