// Every call of the server that the console makes, by name.

import { change, get, takeCsrfToken } from "./client";
import type {
  Action,
  AlertView,
  AuditEntry,
  DeviceView,
  DriftPoint,
  DriftView,
  EnrolTokenCreated,
  EnrolTokenNew,
  EnrolTokenView,
  HistogramView,
  ModelView,
  Page,
  RollbackRequest,
  RoleView,
  RollbackResult,
  RolloutNew,
  RolloutView,
  SessionView,
  Status,
  TimelineEntry,
  VersionView,
  WebhookView,
  WhyView,
} from "./types";

const part = encodeURIComponent;

export interface DevicesQuery {
  filter?: string;
  limit?: number;
  cursor?: string;
}

export interface DriftSubject {
  model: string;
  scope: string;
  subject: string;
}

export async function readSession(): Promise<SessionView> {
  const session = await get<SessionView>("session");
  takeCsrfToken(session.csrf_token);
  return session;
}

export async function openSession(code: string): Promise<SessionView> {
  await change<unknown>("POST", "session", { code });
  return readSession();
}

export const closeSession = () => change<void>("DELETE", "session");

export const readStatus = (signal?: AbortSignal) => get<Status>("status", {}, signal);

export const listDevices = (query: DevicesQuery, signal?: AbortSignal) =>
  get<Page<DeviceView>>("devices", { ...query }, signal);

export const readDevice = (id: string) => get<DeviceView>(`devices/${part(id)}`);

export const readTimeline = (id: string) => get<Page<TimelineEntry>>(`devices/${part(id)}/timeline`);

export const changeLabels = (id: string, labels: Record<string, string | null>) =>
  change<DeviceView>("PATCH", `devices/${part(id)}/labels`, { labels });

export const listModels = () => get<Page<ModelView>>("models");

/** `model` is `team/name`, which is also how it stands in the path. */
export const readModel = (model: string) => get<ModelView>(`models/${model}`);

export const readVersion = (model: string, version: string) =>
  get<VersionView>(`models/${model}/versions/${part(version)}`);

export const listRollouts = () => get<Page<RolloutView>>("rollouts");

export const readRollout = (id: string) => get<RolloutView>(`rollouts/${part(id)}`);

export const explainRollout = (id: string, device?: string) =>
  get<Page<WhyView>>(`rollouts/${part(id)}/why`, { device });

export const createRollout = (rollout: RolloutNew) => change<RolloutView>("POST", "rollouts", rollout);

export const actOnRollout = (id: string, action: Exclude<Action, "rollback">, reason: string) =>
  change<RolloutView>("POST", `rollouts/${part(id)}/${action}`, { reason });

export const rollBack = (request: RollbackRequest) => change<RollbackResult>("POST", "rollback", request);

export const listDrift = (model?: string, scope?: string) => get<Page<DriftView>>("drift", { model, scope });

export const readDriftSeries = (of: DriftSubject) => get<Page<DriftPoint>>("drift/series", { ...of });

export const readHistogram = (of: DriftSubject) => get<HistogramView>("drift/histogram", { ...of });

export const listAlerts = (state?: string) => get<Page<AlertView>>("alerts", { state });

export const acknowledgeAlert = (id: string, note: string) =>
  change<AlertView>("POST", `alerts/${part(id)}/acknowledge`, { note });

export const listAudit = (cursor?: string) => get<Page<AuditEntry>>("audit", { cursor, limit: 100 });

export const listEnrolTokens = () => get<Page<EnrolTokenView>>("enrol-tokens");

export const createEnrolToken = (token: EnrolTokenNew) => change<EnrolTokenCreated>("POST", "enrol-tokens", token);

export const revokeEnrolToken = (id: string) => change<void>("DELETE", `enrol-tokens/${part(id)}`);

export const listRoles = () => get<Page<RoleView>>("trust/roles");

export const listWebhooks = () => get<Page<WebhookView>>("webhooks");

export const createWebhook = (url: string) => change<WebhookView>("POST", "webhooks", { url });

export const removeWebhook = (id: number) => change<void>("DELETE", `webhooks/${id}`);
