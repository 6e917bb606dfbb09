// What is read from the server and kept, by key. The stream of events writes to the same keys.

import { QueryClient, infiniteQueryOptions, queryOptions } from "@tanstack/react-query";
import type { DriftPoint, RolloutNew } from "./types";
import * as calls from "./calls";
import { ApiError } from "./client";

/** Rows of a page of devices: a screen is 30 or so, and the answer stays well below 256 KB. */
export const DEVICES_PER_PAGE = 100;
/** The stream tells most changes; what it cannot tell is read again after this long. */
const STALE_AFTER_MS = 15_000;

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: STALE_AFTER_MS,
      refetchOnWindowFocus: true,
      // A refusal will not change by asking again.
      retry: (failures, error) => failures < 2 && !(error instanceof ApiError && error.status >= 400),
    },
  },
});

export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: calls.readSession,
  staleTime: Number.POSITIVE_INFINITY,
});

export const loginWaysQuery = queryOptions({ queryKey: ["login-ways"], queryFn: calls.readLoginWays });

export const sessionsQuery = queryOptions({ queryKey: ["sessions"], queryFn: calls.listSessions });

export const statusQuery = queryOptions({
  queryKey: ["status"],
  queryFn: ({ signal }) => calls.readStatus(signal),
});

/** The halt of all rollouts. Every page shows it, and it is asked for often while devices confirm it. */
export const haltQuery = queryOptions({
  queryKey: ["halt"],
  queryFn: calls.readHalt,
  refetchInterval: ({ state }) => (state.data?.halt ? 2_000 : 10_000),
});

export const devicesQuery = (filter: string) =>
  infiniteQueryOptions({
    queryKey: ["devices", "list", filter],
    queryFn: ({ pageParam, signal }) =>
      calls.listDevices({ filter, limit: DEVICES_PER_PAGE, ...(pageParam ? { cursor: pageParam } : {}) }, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next_cursor ?? null,
  });

export const deviceCountQuery = (filter: string) =>
  queryOptions({
    queryKey: ["devices", "count", filter],
    queryFn: async ({ signal }) => (await calls.listDevices({ filter, limit: 1 }, signal)).total,
  });

export const deviceQuery = (id: string) =>
  queryOptions({ queryKey: ["device", id], queryFn: () => calls.readDevice(id) });

export const timelineQuery = (id: string) =>
  queryOptions({ queryKey: ["timeline", id], queryFn: () => calls.readTimeline(id) });

/** Each look is a question to the device: while a batch goes on it is asked again, seldom enough for others to ask, too. */
export const batchesQuery = (id: string) =>
  queryOptions({
    queryKey: ["batches", id],
    queryFn: () => calls.listBatches(id),
    refetchOnWindowFocus: false,
    refetchInterval: ({ state }) => (state.data?.some((job) => job.state === "waiting" || job.state === "running") ? 6_000 : false),
  });

export const batchResultsQuery = (id: string) =>
  queryOptions({ queryKey: ["batch-results", id], queryFn: () => calls.listBatchResults(id), refetchInterval: 10_000 });

export const modelsQuery = queryOptions({ queryKey: ["models"], queryFn: calls.listModels });

export const modelQuery = (model: string) =>
  queryOptions({ queryKey: ["model", model], queryFn: () => calls.readModel(model) });

export const versionQuery = (model: string, version: string) =>
  queryOptions({ queryKey: ["version", model, version], queryFn: () => calls.readVersion(model, version) });

export const rolloutsQuery = queryOptions({ queryKey: ["rollouts"], queryFn: calls.listRollouts });

export const rolloutQuery = (id: string) =>
  queryOptions({ queryKey: ["rollout", id], queryFn: () => calls.readRollout(id) });

export const forecastQuery = (rollout: RolloutNew) =>
  queryOptions({ queryKey: ["forecast", rollout], queryFn: () => calls.planRollout(rollout), retry: false });

/** Below "rollout", so that it is read again whenever the rollout has changed. */
export const courseQuery = (id: string) =>
  queryOptions({ queryKey: ["rollout", id, "course"], queryFn: () => calls.readCourse(id) });

export const whyQuery = (id: string) =>
  queryOptions({ queryKey: ["why", id], queryFn: () => calls.explainRollout(id) });

export const driftQuery = (model?: string) =>
  queryOptions({ queryKey: ["drift", "list", model ?? ""], queryFn: () => calls.listDrift(model) });

export const driftSeriesQuery = (of: calls.DriftSubject) =>
  queryOptions({ queryKey: ["drift", "series", of], queryFn: () => calls.readDriftSeries(of) });

/** By hours or days, which change slowly: the stream says nothing of them. Of two versions in one span, the one that was asked more. */
export const driftHistoryQuery = (of: calls.DriftSubject, step: "hour" | "day") =>
  queryOptions({
    queryKey: ["drift-history", of, step],
    queryFn: async (): Promise<DriftPoint[]> => {
      const spans = await calls.readDriftHistory(of, step);
      const asked = [...spans].sort((left, right) => left.rows - right.rows);
      return [...new Map(asked.map((span) => [span.until, { ...span, at: span.until }])).values()];
    },
    staleTime: 60_000,
  });

export const histogramQuery = (of: calls.DriftSubject) =>
  queryOptions({ queryKey: ["drift", "histogram", of], queryFn: () => calls.readHistogram(of) });

export const alertsQuery = (state: string, match = "") =>
  queryOptions({ queryKey: ["alerts", state, match], queryFn: () => calls.listAlerts(state === "all" ? undefined : state, match) });

export const silencesQuery = queryOptions({ queryKey: ["silences"], queryFn: calls.listSilences });

export const alertKindsQuery = queryOptions({ queryKey: ["alert-kinds"], queryFn: calls.listAlertKinds });

export const alertRulesQuery = queryOptions({ queryKey: ["alert-rules"], queryFn: calls.listAlertRules });

export const auditQuery = infiniteQueryOptions({
  queryKey: ["audit", "list"],
  queryFn: ({ pageParam }) => calls.listAudit(pageParam || undefined),
  initialPageParam: "",
  getNextPageParam: (page) => page.next_cursor ?? null,
});

/** Entries about one subject, among the newest; older ones are on the page of the audit log. */
export const auditOfQuery = (subject: string) =>
  queryOptions({
    queryKey: ["audit", "of", subject],
    queryFn: async () => (await calls.listAudit()).items.filter((entry) => entry.subject === subject),
  });

export const enrolTokensQuery = queryOptions({ queryKey: ["enrol-tokens"], queryFn: calls.listEnrolTokens });

/** Devices that wait to be approved. Each page of devices asks for it, so it is asked for seldom. */
export const enrolRequestsQuery = queryOptions({
  queryKey: ["enrol-requests"],
  queryFn: calls.listEnrolRequests,
  refetchInterval: 15_000,
});

export const rolesQuery = queryOptions({ queryKey: ["roles"], queryFn: calls.listRoles });

export const channelsQuery = queryOptions({ queryKey: ["channels"], queryFn: calls.listChannels });

export const deliveriesQuery = (id: number) =>
  queryOptions({ queryKey: ["channels", id, "deliveries"], queryFn: () => calls.listDeliveries(id) });

export const auditVerdictQuery = queryOptions({ queryKey: ["audit", "verdict"], queryFn: calls.checkAudit });

export const reviewPoliciesQuery = queryOptions({ queryKey: ["review", "policies"], queryFn: calls.listReviewPolicies });

/** Asked for once, and again when somebody comes back: an order that changes under the hands of who labels is none. */
export const reviewQueueQuery = queryOptions({
  queryKey: ["review", "queue"],
  queryFn: calls.readReviewQueue,
  staleTime: Number.POSITIVE_INFINITY,
  gcTime: 0,
});

export const reviewSampleQuery = (id: string) =>
  queryOptions({ queryKey: ["review", "sample", id], queryFn: () => calls.readReviewSample(id), gcTime: 0 });

export const reviewAccuracyQuery = (model: string) =>
  queryOptions({ queryKey: ["review", "accuracy", model], queryFn: () => calls.readReviewAccuracy(model) });
