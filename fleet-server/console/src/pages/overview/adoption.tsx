// Which version of each model runs on how many devices.

import { Link } from "@tanstack/react-router";
import type { ModelAdoption } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { StackedBar } from "../../ui/bar";
import { Empty } from "../../ui/basics";
import { modelParams } from "../../ui/model-link";
import { byVersion } from "../../ui/version-order";

/** Versions with a fill of their own; the older ones share the last. */
const FILLS = 5;

export function Adoption({ adoption }: { adoption: ModelAdoption[] }) {
  const { say } = useLocale();
  if (adoption.length === 0) return <Empty icon="models">{say("overview.noModels")}</Empty>;
  const models = [...new Set(adoption.map(({ model }) => model))].sort();
  return (
    <div className="stack">
      {models.map((model) => (
        <ModelBar key={model} model={model} versions={adoption.filter((row) => row.model === model)} />
      ))}
    </div>
  );
}

function ModelBar({ model, versions }: { model: string; versions: ModelAdoption[] }) {
  const { say, number, share } = useLocale();
  const total = versions.reduce((sum, { devices }) => sum + devices, 0);
  const rows = [...versions].sort((left, right) => byVersion(right.version ?? "", left.version ?? "")).map((row, index) => ({
    key: row.version ?? "",
    label: row.version == null ? say("overview.notServing") : say("version.named", { version: row.version }),
    value: row.devices,
    className: row.version == null ? "fill-none" : `fill-version-${Math.min(index, FILLS - 1)}`,
    version: row.version,
  }));
  return (
    <div className="adoption">
      <p className="adoption-name">
        <Link to="/models/$team/$name" params={modelParams(model)}>{model}</Link>
        <span className="muted">{say("filter.matches", { count: total })}</span>
      </p>
      <StackedBar segments={rows} label={say("overview.adoptionOf", { model })} />
      <ul className="legend">
        {rows.map((row) => (
          <li key={row.key}>
            <span className={`swatch ${row.className}`} aria-hidden="true" />
            {row.version == null ? (
              <span>{row.label}</span>
            ) : (
              <Link to="/devices" search={{ filter: `model:${model}@${row.version}` }}>{row.label}</Link>
            )}
            <span className="number">{number(row.value)}</span>
            <span className="number muted">{share(row.value / Math.max(1, total))}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}
