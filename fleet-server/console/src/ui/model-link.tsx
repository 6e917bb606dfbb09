// Links to models, versions, devices, rollouts: by their names.

import { Link } from "@tanstack/react-router";

/** `team/name` as the parts of a path. */
export function modelParams(model: string): { team: string; name: string } {
  const [team = "", name = ""] = model.split("/");
  return { team, name };
}

export function ModelLink({ model }: { model: string }) {
  return <Link to="/models/$team/$name" params={modelParams(model)}>{model}</Link>;
}

export function VersionLink({ model, version }: { model: string; version: string | null | undefined }) {
  if (version == null) return <span className="muted">—</span>;
  return <Link to="/models/$team/$name/versions/$version" params={{ ...modelParams(model), version }}>{version}</Link>;
}

export function DeviceLink({ device }: { device: string }) {
  return <Link to="/devices/$device" params={{ device }}>{device}</Link>;
}

export function RolloutLink({ rollout }: { rollout: string }) {
  return <Link to="/rollouts/$rollout" params={{ rollout }}>{rollout}</Link>;
}
