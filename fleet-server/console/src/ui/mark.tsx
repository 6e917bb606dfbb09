// A state as shape, colour and word: never as colour alone.

import type { DeviceProgress, DeviceState, DriftState, FindingSeverity, RolloutState, VersionState, WaveState } from "../api/types";
import { useLocale } from "../i18n/language";
import { Icon, type IconName } from "./icon";

export type Tone = "ok" | "warn" | "bad" | "info" | "idle";

type Look = readonly [Tone, IconName];

export function Mark({ tone, icon, children }: { tone: Tone; icon: IconName; children: React.ReactNode }) {
  return (
    <span className={`mark mark-${tone}`}>
      <Icon name={icon} size={14} />
      <span>{children}</span>
    </span>
  );
}

const devices: Record<DeviceState, Look> = {
  online: ["ok", "check"],
  unhealthy: ["bad", "critical"],
  offline: ["idle", "offline"],
  revoked: ["warn", "revoked"],
};

export function DeviceMark({ state }: { state: DeviceState }) {
  const { say } = useLocale();
  const [tone, icon] = devices[state];
  return <Mark tone={tone} icon={icon}>{say(`device.state.${state}`)}</Mark>;
}

const rollouts: Record<RolloutState, Look> = {
  draft: ["idle", "queued"],
  preflight: ["info", "eye"],
  "awaiting-approval": ["warn", "pause"],
  scheduled: ["info", "queued"],
  running: ["info", "running"],
  paused: ["warn", "pause"],
  halted: ["bad", "critical"],
  completing: ["info", "running"],
  succeeded: ["ok", "check"],
  aborted: ["idle", "close"],
  superseded: ["idle", "revoked"],
  reverting: ["warn", "running"],
  reverted: ["idle", "revoked"],
  unknown: ["idle", "info"],
};

export function RolloutMark({ state }: { state: RolloutState }) {
  const { say } = useLocale();
  const [tone, icon] = rollouts[state];
  return <Mark tone={tone} icon={icon}>{say(`rollout.state.${state}`)}</Mark>;
}

const waves: Record<WaveState, Look> = {
  pending: ["idle", "queued"],
  open: ["info", "running"],
  soaking: ["info", "eye"],
  evaluating: ["warn", "eye"],
  passed: ["ok", "check"],
  failed: ["bad", "critical"],
};

export function WaveMark({ state }: { state: WaveState }) {
  const { say } = useLocale();
  const [tone, icon] = waves[state];
  return <Mark tone={tone} icon={icon}>{say(`wave.state.${state}`)}</Mark>;
}

export const progressLooks: Record<DeviceProgress, Look> = {
  succeeded: ["ok", "check"],
  probation: ["info", "eye"],
  "in-progress": ["info", "running"],
  offered: ["info", "arrow"],
  queued: ["idle", "queued"],
  offline: ["idle", "offline"],
  failed: ["bad", "critical"],
  rejected: ["bad", "revoked"],
  "rolled-back": ["bad", "back"],
  silent: ["warn", "warning"],
  "not-applicable": ["idle", "close"],
  superseded: ["idle", "close"],
};

export function ProgressMark({ progress }: { progress: DeviceProgress }) {
  const { say } = useLocale();
  const [tone, icon] = progressLooks[progress];
  return <Mark tone={tone} icon={icon}>{say(`progress.${progress}`)}</Mark>;
}

const findings: Record<FindingSeverity, Look> = {
  error: ["bad", "critical"],
  warning: ["warn", "warning"],
  note: ["info", "info"],
};

export function FindingMark({ severity }: { severity: FindingSeverity }) {
  const { say } = useLocale();
  const [tone, icon] = findings[severity];
  return <Mark tone={tone} icon={icon}>{say(`finding.${severity}`)}</Mark>;
}

const versions: Record<VersionState, Look> = {
  signed: ["ok", "signed"],
  unsigned: ["warn", "warning"],
  quarantined: ["bad", "quarantine"],
};

export function VersionMark({ state }: { state: VersionState }) {
  const { say } = useLocale();
  const [tone, icon] = versions[state];
  return <Mark tone={tone} icon={icon}>{say(`version.state.${state}`)}</Mark>;
}

export const driftLooks: Record<DriftState, Look> = {
  steady: ["ok", "check"],
  suspect: ["warn", "warning"],
  drifted: ["bad", "critical"],
  "too-few": ["idle", "queued"],
};

export function DriftMark({ state }: { state: DriftState }) {
  const { say } = useLocale();
  const [tone, icon] = driftLooks[state];
  return <Mark tone={tone} icon={icon}>{say(`drift.state.${state}`)}</Mark>;
}

const severities: Record<string, Look> = {
  info: ["info", "info"],
  warning: ["warn", "warning"],
  critical: ["bad", "critical"],
  security: ["bad", "shield"],
};

/** Severities are open words of the server; one that is not known is shown as it stands. */
export function SeverityMark({ severity }: { severity: string }) {
  const { say } = useLocale();
  const [tone, icon] = severities[severity] ?? (["idle", "info"] as const);
  const isKnown = severity === "info" || severity === "warning" || severity === "critical" || severity === "security";
  return <Mark tone={tone} icon={icon}>{isKnown ? say(`severity.${severity}`) : severity}</Mark>;
}
