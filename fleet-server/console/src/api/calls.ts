// Every call of the server that the console makes, by name.

import { answer, answerAs, http, takeCsrfToken } from "./client";
import type { components } from "./schema";
import type { Action, BatchJob, BatchResultView, ChannelNew, DeviceForgotten, DeviceView, EnrolTokenNew, InferView, KindChange, ModelView, Page, QueueView, RollbackRequest, RolloutNew, SampleDetail, SessionView, SilenceNew, VersionView } from "./types";

/** Entries of lists that are shown whole; the server allows 1,000. */
const LIST_MAX = 200;

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
  const session = await answer(http.GET("/api/v1/session"));
  takeCsrfToken(session.csrf_token);
  return session;
}

export async function openSession(code: string): Promise<SessionView> {
  const session = await answer(http.POST("/api/v1/session", { body: { code } }));
  takeCsrfToken(session.csrf_token);
  return session;
}

export async function logIn(operator: string, password: string, code: string): Promise<SessionView> {
  const body = { operator, password, code, wants_token: false };
  const session = await answerAs<SessionView>(http.POST("/api/v1/session/password", { body }));
  takeCsrfToken(session.csrf_token);
  return session;
}

export const readLoginWays = () => answer(http.GET("/api/v1/session/ways"));

export const stepUp = (secret: string) => answer(http.POST("/api/v1/session/step-up", { body: { secret } }));

export const listSessions = () => answer(http.GET("/api/v1/sessions"));

export const endSession = (id: string) => answer(http.DELETE("/api/v1/sessions/{id}", { params: { path: { id } } }));

export const closeSession = () => answer(http.DELETE("/api/v1/session"));

export const readStatus = (signal?: AbortSignal) => answer(http.GET("/api/v1/status", { ...given(signal) }));

export const listDevices = (query: DevicesQuery, signal?: AbortSignal) =>
  answerAs<Page<DeviceView>>(http.GET("/api/v1/devices", { params: { query }, ...given(signal) }));

export const readDevice = (id: string) => answerAs<DeviceView>(http.GET("/api/v1/devices/{id}", { params: { path: { id } } }));

export const readTimeline = (id: string) =>
  answer(http.GET("/api/v1/devices/{id}/timeline", { params: { path: { id }, query: { limit: LIST_MAX } } }));

export const changeLabels = (id: string, labels: Record<string, string | null>) =>
  answer(http.PATCH("/api/v1/devices/{id}/labels", { params: { path: { id } }, body: { labels } }));

/** `body` is a request of the Open Inference Protocol v2. */
export const askModel = (id: string, model: string, body: object) =>
  answerAs<InferView>(
    http.POST("/api/v1/devices/{id}/infer", { params: { path: { id }, query: { model } }, body: body as Record<string, never> }),
  );

/** Asks the device itself. */
export const listBatches = (id: string) => answerAs<BatchJob[]>(http.GET("/api/v1/devices/{id}/batches", { params: { path: { id } } }));

export const cancelBatch = (id: string, name: string) =>
  answer(http.DELETE("/api/v1/devices/{id}/batches/{name}", { params: { path: { id, name } } }));

export const listBatchResults = (device: string) =>
  answerAs<Page<BatchResultView>>(http.GET("/api/v1/batches", { params: { query: { device, limit: LIST_MAX } } }));

export const deleteBatchResult = (id: string, name: string) =>
  answer(http.DELETE("/api/v1/devices/{id}/batches/{name}/result", { params: { path: { id, name } } }));

/** Where a browser fetches predictions. */
export const predictionsPath = (id: string, name: string) =>
  `/api/v1/devices/${encodeURIComponent(id)}/batches/${encodeURIComponent(name)}/file`;

export const forgetDevice = (id: string, reason: string) =>
  answerAs<DeviceForgotten>(http.POST("/api/v1/devices/{id}/forget", { params: { path: { id } }, body: { reason } }));

export const listModels = () => answerAs<Page<ModelView>>(http.GET("/api/v1/models"));

export const readModel = (model: string) =>
  answerAs<ModelView>(http.GET("/api/v1/models/{team}/{name}", { params: { path: parts(model) } }));

export const readVersion = (model: string, version: string) =>
  answerAs<VersionView>(
    http.GET("/api/v1/models/{team}/{name}/versions/{version}", { params: { path: { ...parts(model), version } } }),
  );

export const listRollouts = () => answer(http.GET("/api/v1/rollouts", { params: { query: { limit: LIST_MAX } } }));

export const readRollout = (id: string) => answer(http.GET("/api/v1/rollouts/{id}", { params: { path: { id } } }));

export const explainRollout = (id: string) =>
  answer(http.GET("/api/v1/rollouts/{id}/why", { params: { path: { id }, query: { limit: LIST_MAX } } }));

export const createRollout = (rollout: RolloutNew) =>
  answer(http.POST("/api/v1/rollouts", { body: rollout as components["schemas"]["RolloutNew"] }));

export const changeRollout = (id: string, rollout: RolloutNew) =>
  answer(http.PUT("/api/v1/rollouts/{id}", { params: { path: { id } }, body: rollout as components["schemas"]["RolloutNew"] }));

export const planRollout = (rollout: RolloutNew) =>
  answer(http.POST("/api/v1/rollouts/plan", { body: rollout as components["schemas"]["RolloutNew"] }));

export const readCourse = (id: string) => answer(http.GET("/api/v1/rollouts/{id}/forecast", { params: { path: { id } } }));

export function actOnRollout(id: string, action: Exclude<Action, "rollback">, reason: string) {
  const body = { reason };
  if (action === "approve") return answer(http.POST("/api/v1/rollouts/{id}/approve", { params: { path: { id } }, body }));
  if (action === "reject") return answer(http.POST("/api/v1/rollouts/{id}/reject", { params: { path: { id } }, body }));
  return answer(http.POST("/api/v1/rollouts/{id}/{action}", { params: { path: { id, action } }, body }));
}

export const readHalt = () => answer(http.GET("/api/v1/halt"));

export const haltAll = (reason: string) => answer(http.POST("/api/v1/halt", { body: { reason } }));

export const resumeAll = (reason: string) => answer(http.DELETE("/api/v1/halt", { params: { query: { reason } } }));

export const rollBack = (request: RollbackRequest) => answer(http.POST("/api/v1/rollback", { body: request }));

export const listDrift = (model?: string) =>
  answer(http.GET("/api/v1/drift", { params: { query: model === undefined ? {} : { model } } }));

export const readDriftSeries = (of: DriftSubject) => answer(http.GET("/api/v1/drift/series", { params: { query: of } }));

export const readDriftHistory = (of: DriftSubject, step: "hour" | "day") =>
  answer(http.GET("/api/v1/drift/history", { params: { query: { ...of, step } } }));

export const readHistogram = (of: DriftSubject) => answer(http.GET("/api/v1/drift/histogram", { params: { query: of } }));

export const listAlerts = (state: string | undefined, match: string) =>
  answer(http.GET("/api/v1/alerts", { params: { query: { ...(state === undefined ? {} : { state }), ...(match === "" ? {} : { match }) } } }));

export const acknowledgeAlert = (id: string, note: string) =>
  answer(http.POST("/api/v1/alerts/{id}/acknowledge", { params: { path: { id } }, body: { note } }));

export const listReviewPolicies = () => answer(http.GET("/api/v1/review/policies"));

export const readReviewQueue = () => answerAs<QueueView>(http.GET("/api/v1/review/queue", { params: { query: { limit: 50 } } }));

export const readReviewSample = (id: string) => answerAs<SampleDetail>(http.GET("/api/v1/review/samples/{id}", { params: { path: { id } } }));

export const labelSample = (id: string, label: string) =>
  answer(http.PUT("/api/v1/review/samples/{id}/label", { params: { path: { id } }, body: { label } }));

export const unlabelSample = (id: string) => answer(http.DELETE("/api/v1/review/samples/{id}/label", { params: { path: { id } } }));

export const readReviewAccuracy = (model: string) =>
  answer(http.GET("/api/v1/review/accuracy", { params: { query: { model, by: "day" } } }));

export const listAudit = (cursor?: string) =>
  answer(http.GET("/api/v1/audit", { params: { query: { limit: LIST_MAX, ...(cursor === undefined ? {} : { cursor }) } } }));

export const checkAudit = () => answer(http.GET("/api/v1/audit/verify"));

export const listEnrolTokens = () => answer(http.GET("/api/v1/enrol-tokens"));

export const createEnrolToken = (token: EnrolTokenNew) => answer(http.POST("/api/v1/enrol-tokens", { body: token }));

export const revokeEnrolToken = (id: string) =>
  answer(http.DELETE("/api/v1/enrol-tokens/{id}", { params: { path: { id } } }));

export const listEnrolRequests = () => answer(http.GET("/api/v1/enrol-requests"));

export const approveEnrolRequest = (id: string) =>
  answer(http.POST("/api/v1/enrol-requests/{id}/approve", { params: { path: { id } } }));

export const denyEnrolRequest = (id: string, reason: string) =>
  answer(http.POST("/api/v1/enrol-requests/{id}/deny", { params: { path: { id } }, body: { reason } }));

export const listRoles = () => answer(http.GET("/api/v1/trust/roles"));

export const listSilences = () => answer(http.GET("/api/v1/silences"));

export const silenceAlerts = (body: SilenceNew) => answer(http.POST("/api/v1/silences", { body }));

export const endSilence = (id: number) => answer(http.DELETE("/api/v1/silences/{id}", { params: { path: { id } } }));

export const listAlertKinds = () => answer(http.GET("/api/v1/alert-kinds"));

export const changeAlertKind = (kind: string, body: KindChange) =>
  answer(http.PUT("/api/v1/alert-kinds/{kind}", { params: { path: { kind } }, body }));

export const listAlertRules = () => answer(http.GET("/api/v1/alert-rules"));

export const removeAlertRule = (name: string) => answer(http.DELETE("/api/v1/alert-rules/{name}", { params: { path: { name } } }));

export const listChannels = () => answer(http.GET("/api/v1/channels"));

export const createChannel = (body: ChannelNew) => answer(http.POST("/api/v1/channels", { body }));

export const removeChannel = (id: number) => answer(http.DELETE("/api/v1/channels/{id}", { params: { path: { id } } }));

export const testChannel = (id: number) => answer(http.POST("/api/v1/channels/{id}/test", { params: { path: { id } } }));

export const listDeliveries = (id: number) =>
  answer(http.GET("/api/v1/channels/{id}/deliveries", { params: { path: { id }, query: { limit: 20 } } }));

export const resendDelivery = (id: number, number: number) =>
  answer(http.POST("/api/v1/channels/{id}/deliveries/{number}/resend", { params: { path: { id, number } } }));

/** `team/name` as the parts of a path. */
function parts(model: string): { team: string; name: string } {
  const [team = "", name = ""] = model.split("/");
  return { team, name };
}

function given(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}
