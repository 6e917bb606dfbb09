// The bodies of /api/v1, as `protocol::api` defines them. A value that the server may leave out or send as null is `?: T | null`.

/** Milliseconds since 1970, UTC. */
export type UnixMillis = number;

export interface Page<T> {
  items: T[];
  total: number;
  next_cursor?: string | null;
}

/** RFC 9457. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  code: string;
  detail: string;
  help?: string | null;
  request_id?: string | null;
}

export type Role = "viewer" | "operator" | "publisher" | "admin";

export interface SessionView {
  operator: string;
  roles: Role[];
  csrf_token: string;
  server_version: string;
}

export type Severity = "info" | "warning" | "critical" | "security";

export interface AttentionItem {
  severity: string;
  title: string;
  detail: string;
  href: string;
}

export interface ModelAdoption {
  model: string;
  version?: string | null;
  devices: number;
}

export interface Status {
  at: UnixMillis;
  attention: AttentionItem[];
  devices_online: number;
  devices_offline: number;
  devices_unhealthy: number;
  adoption: ModelAdoption[];
  rollouts_running: number;
  alerts_open: number;
  requests_per_s: number;
}

export interface AuditEntry {
  sequence: number;
  at: UnixMillis;
  actor: string;
  action: string;
  subject: string;
  reason?: string | null;
  detail: string;
  hash: string;
}

export type DeviceState = "online" | "unhealthy" | "offline" | "revoked";

export type Phase =
  | "idle"
  | "checking"
  | "waiting"
  | "downloading"
  | "verifying"
  | "staged"
  | "warming"
  | "shadowing"
  | "activating"
  | "probation"
  | "watch"
  | "reverting"
  | "safe-mode";

export interface ImageRef {
  version: string;
  index: string;
}

export type OutcomeKind = "committed" | "failed" | "rejected" | "not-applicable" | "rolled-back" | "superseded";

export interface Outcome {
  generation: number;
  rollout?: string | null;
  image: ImageRef;
  result: OutcomeKind;
  code?: string;
  reason?: string;
  at: UnixMillis;
}

export interface Facts {
  os: string;
  architecture: string;
  processors: number;
  memory_mb: number;
  disk_mb: number;
  providers?: string[];
  runtime?: string;
  simulated?: boolean;
}

export interface SlotView {
  model: string;
  desired?: string | null;
  serving?: string | null;
  serving_digest?: string | null;
  previous?: string | null;
  phase?: Phase | null;
  rollout?: string | null;
  outcome?: Outcome | null;
  /** Execution provider and its count of nodes. */
  providers: [string, number][];
}

export interface HealthView {
  at: UnixMillis;
  uptime_s: number;
  cpu: number;
  memory_free_mb: number;
  disk_free_mb: number;
  temperature_c?: number | null;
  requests: number;
  errors: number;
  restarts: number;
  spooled: number;
  latency_p95_ms: number;
  clock_skew_ms: number;
}

export interface DeviceView {
  id: string;
  state: DeviceState;
  labels: Record<string, string>;
  seen_at?: UnixMillis | null;
  enrolled_at: UnixMillis;
  certificate_expires_at: UnixMillis;
  agent?: string | null;
  facts?: Facts | null;
  endpoint?: string | null;
  desired_generation: number;
  reported_generation: number;
  slots: SlotView[];
  health?: HealthView | null;
}

export interface TimelineEntry {
  at: UnixMillis;
  kind: string;
  severity: string;
  code?: string;
  text: string;
  model?: string | null;
}

export type VersionState = "unsigned" | "signed" | "quarantined";

export interface TensorSpec {
  name: string;
  datatype: string;
  shape: number[];
  role?: string | null;
  labels?: string[];
  features?: { name: string; group: string }[];
}

export interface IoContract {
  schema: number;
  inputs: TensorSpec[];
  outputs: TensorSpec[];
}

export interface VersionView {
  model: string;
  version: string;
  state: VersionState;
  quarantine_reason?: string | null;
  digest: string;
  size_bytes: number;
  pushed_at: UnixMillis;
  signed_by: string[];
  epoch: number;
  family: string;
  description: string;
  licenses: string[];
  variants: string[];
  contract?: IoContract | null;
  has_baseline: boolean;
  devices: number;
  rollouts: string[];
}

export interface ModelView {
  name: string;
  description: string;
  versions: VersionView[];
}

export type RolloutState = "running" | "paused" | "halted" | "completing" | "succeeded" | "aborted" | "superseded";

export type WaveState = "pending" | "open" | "soaking" | "passed" | "failed";

export type DeviceProgress =
  | "queued"
  | "offered"
  | "in-progress"
  | "probation"
  | "succeeded"
  | "failed"
  | "rejected"
  | "not-applicable"
  | "rolled-back"
  | "silent"
  | "offline"
  | "superseded";

export type Action = "pause" | "resume" | "promote" | "abort" | "retry" | "rollback";

export interface AllowedAction {
  action: Action;
  refused?: string | null;
}

export interface WavePlan {
  name?: string;
  percent?: number | null;
  count?: number | null;
  soak_s?: number;
  max_bad_share?: number | null;
  max_error_share?: number | null;
}

export interface GateView {
  name: string;
  value?: number | null;
  limit: number;
  passed: boolean;
}

export interface WaveView {
  plan: WavePlan;
  state: WaveState;
  devices: number;
  succeeded: number;
  bad: number;
  opened_at?: UnixMillis | null;
  soak_until?: UnixMillis | null;
  gates: GateView[];
}

export interface RolloutView {
  id: string;
  model: string;
  version: string;
  filter: string;
  state: RolloutState;
  is_rollback: boolean;
  reason: string;
  why: string;
  created_by: string;
  created_at: UnixMillis;
  finished_at?: UnixMillis | null;
  waves: WaveView[];
  progress: Partial<Record<DeviceProgress, number>>;
  allowed_actions: AllowedAction[];
}

export interface RolloutNew {
  model: string;
  version: string;
  filter: string;
  waves: WavePlan[];
  /** What is not given takes the server's default. */
  trial: { probation_s: number };
  reason: string;
}

export interface WhyView {
  device: string;
  wave: number;
  progress: DeviceProgress;
  why: string;
}

export type RollbackTarget = "previous" | { version: string };

export interface RollbackRequest {
  model: string;
  to: RollbackTarget;
  filter: string;
  reason: string;
  dry_run: boolean;
}

export interface RollbackResult {
  rollout?: string | null;
  version: string;
  quarantined: string[];
  devices: number;
  without_download: number;
  superseded: string[];
}

export type DriftState = "steady" | "suspect" | "drifted" | "too-few";

export interface DriftView {
  model: string;
  version: string;
  scope: string;
  subject: string;
  state: DriftState;
  metric: string;
  value: number;
  threshold: number;
  p?: number | null;
  rows: number;
  from: UnixMillis;
  until: UnixMillis;
  why: string;
}

export interface DriftPoint {
  at: UnixMillis;
  value: number;
  rows: number;
  state: DriftState;
}

export interface HistogramView {
  subject: string;
  bins: string[];
  reference: number[];
  current: number[];
  rows: number;
}

export type AlertState = "open" | "acknowledged" | "closed";

export interface AlertView {
  id: string;
  state: AlertState;
  severity: string;
  kind: string;
  title: string;
  detail: string;
  help: string;
  labels: Record<string, string>;
  opened_at: UnixMillis;
  seen_at: UnixMillis;
  closed_at?: UnixMillis | null;
  acknowledged_by?: string | null;
  note?: string | null;
}

export interface EnrolTokenNew {
  labels: Record<string, string>;
  device?: string | null;
  uses?: number | null;
  expires_in_s?: number | null;
}

export interface EnrolTokenCreated {
  id: string;
  token: string;
  expires_at: UnixMillis;
  url: string;
}

export interface EnrolTokenView {
  id: string;
  labels: Record<string, string>;
  uses_left: number;
  expires_at: UnixMillis;
  created_by: string;
}

/** A role of the TUF repository. */
export interface RoleView {
  name: string;
  version: number;
  expires_at: UnixMillis;
  targets: number;
}

export interface WebhookView {
  id: number;
  url: string;
  /** Only in the answer to the request that made it. */
  secret?: string | null;
  last_delivery?: string | null;
  pending: number;
}
