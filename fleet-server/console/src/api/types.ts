// The bodies of /api/v1, by the names under which pages know them. `npm run generate` writes the schema.

import type { components } from "./schema";

type Schemas = components["schemas"];

export interface Page<T> {
  items: T[];
  total: number;
  next_cursor?: string | null;
}

export type Problem = Schemas["Problem"];
export type SessionView = Schemas["SessionView"];
export type SessionEntry = Schemas["SessionEntry"];
export type Status = Schemas["Status"];
export type AttentionItem = Schemas["AttentionItem"];
export type ModelAdoption = Schemas["ModelAdoption"];
export type AuditEntry = Schemas["AuditEntry"];
export type AuditCheck = Schemas["AuditCheck"];

export type DeviceView = Schemas["DeviceView"];
export type DeviceState = Schemas["DeviceState"];
export type SlotView = Schemas["SlotView"];
export type HealthView = Schemas["HealthView"];
export type Outcome = Schemas["Outcome"];
export type TimelineEntry = Schemas["TimelineEntry"];

/** What the model has answered is its own: the schema leaves it open. */
export type InferView = Omit<Schemas["InferView"], "answer"> & { answer: unknown };

export type BatchJob = Schemas["BatchJob"];
export type BatchState = Schemas["BatchState"];
export type BatchResultView = Schemas["BatchResultView"];
export type DeviceForgotten = Schemas["DeviceForgotten"];

export type VersionState = Schemas["VersionState"];
/** The schema leaves the contract open: it is the image's own file. */
export type VersionView = Omit<Schemas["VersionView"], "contract"> & { contract?: IoContract | null };
export type ModelView = Omit<Schemas["ModelView"], "versions"> & { versions: VersionView[] };

/** The I/O contract in an image. */
export interface IoContract {
  schema: number;
  inputs: TensorSpec[];
  outputs: TensorSpec[];
}

export interface TensorSpec {
  name: string;
  datatype: string;
  /** Less than 0 for any length. */
  shape: number[];
  role?: string | null;
  labels?: string[];
  features?: { name: string; group: string }[];
}

export type RolloutState = Schemas["RolloutState"];
export type WaveState = Schemas["WaveState"];
export type DeviceProgress = Schemas["DeviceProgress"];
export type Action = Schemas["Action"];
export type AllowedAction = Schemas["AllowedAction"];
export type WavePlan = Omit<Schemas["WavePlan"], "gates"> & { gates?: Partial<Schemas["ModelGates"]> };
export type WaveView = Schemas["WaveView"];
export type GateView = Schemas["GateView"];
export type RolloutView = Schemas["RolloutView"];
export type WhyView = Schemas["WhyView"];
/** What of a trial is not given takes the server's default. */
export type Finding = Schemas["Finding"];
export type FindingSeverity = Schemas["FindingSeverity"];
export type RolloutForecast = Schemas["RolloutForecast"];
export type RolloutCourse = Schemas["RolloutCourse"];
export type Trial = Schemas["Trial"];
export type RolloutNew = Omit<Schemas["RolloutNew"], "trial" | "waves"> & { trial?: Partial<Trial>; waves?: WavePlan[] };

export type RollbackTarget = Schemas["RollbackTarget"];
export type RollbackRequest = Schemas["RollbackRequest"];
export type RollbackResult = Schemas["RollbackResult"];

export type HaltView = Schemas["HaltView"];

export type DriftState = Schemas["DriftState"];
export type DriftView = Schemas["DriftView"];
export type DriftPoint = Schemas["DriftPoint"];
export type HistogramView = Schemas["HistogramView"];
export type AlertView = Schemas["AlertView"];

export type EnrolTokenNew = Schemas["EnrolTokenNew"];
export type EnrolTokenCreated = Schemas["EnrolTokenCreated"];
export type EnrolTokenView = Schemas["EnrolTokenView"];
export type EnrolRequestView = Schemas["EnrolRequestView"];
export type RoleView = Schemas["RoleView"];
export type ChannelKind = Schemas["ChannelKind"];
export type ChannelNew = Schemas["ChannelNew"];
export type ChannelView = Schemas["ChannelView"];
export type DeliveryView = Schemas["DeliveryView"];
export type Destination = Schemas["Destination"];
export type KindChange = Schemas["KindChange"];
export type KindView = Schemas["KindView"];
export type RuleView = Schemas["RuleView"];
export type SilenceNew = Schemas["SilenceNew"];

export type CaptureView = Schemas["CaptureView"];
export type AccuracyView = Schemas["AccuracyView"];
export type TensorView = Schemas["TensorView"];
export type Why = "confidence" | "margin" | "disagreement" | "random";
/** The schema knows the reasons as texts. */
export type SampleView = Omit<Schemas["SampleView"], "why"> & { why: Why[] };
export type QueueView = Omit<Schemas["QueueView"], "items"> & { items: SampleView[] };
export type SampleDetail = Omit<Schemas["SampleDetail"], "sample"> & { sample: SampleView };
