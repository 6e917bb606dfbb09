// One way to the server: JSON, the session cookie, the CSRF token on changes, problems as errors.

import type { Problem } from "./types";

/** Longer than any answer of the server takes; a wait without an end would look like a frozen page. */
const ANSWER_WITHIN_MS = 20_000;

/** What the server said went wrong, or what kept us from asking it. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly help: string | undefined;
  readonly requestId: string | undefined;

  constructor(problem: Pick<Problem, "status" | "code" | "detail" | "help" | "request_id">) {
    super(problem.detail);
    this.name = "ApiError";
    this.status = problem.status;
    this.code = problem.code;
    this.help = problem.help ?? undefined;
    this.requestId = problem.request_id ?? undefined;
  }

  /** Whether nobody is logged in any more. */
  get isLoggedOut(): boolean {
    return this.status === 401;
  }
}

export type Query = Record<string, string | number | undefined>;

let csrfToken = "";

/** Takes the token that `GET /session` gave. */
export function takeCsrfToken(token: string): void {
  csrfToken = token;
}

export function get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
  return send<T>("GET", path + queryText(query), undefined, signal);
}

export function change<T>(method: "POST" | "PATCH" | "DELETE", path: string, body?: unknown): Promise<T> {
  return send<T>(method, path, body);
}

function queryText(query: Query): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString();
  return text === "" ? "" : `?${text}`;
}

async function send<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const headers = new Headers({ Accept: "application/json" });
  if (body !== undefined) headers.set("Content-Type", "application/json");
  if (method !== "GET") headers.set("X-Csrf-Token", csrfToken);
  const deadline = AbortSignal.timeout(ANSWER_WITHIN_MS);
  const response = await fetch(`/api/v1/${path}`, {
    method,
    headers,
    credentials: "same-origin",
    signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  }).catch((cause: unknown) => {
    if (signal?.aborted) throw cause;
    throw new ApiError({ status: 0, code: "unreachable", detail: String(cause) });
  });
  if (!response.ok) throw await problemOf(response);
  return (response.status === 204 ? undefined : await response.json()) as T;
}

async function problemOf(response: Response): Promise<ApiError> {
  const body = (await response.json().catch(() => null)) as Partial<Problem> | null;
  return new ApiError({
    status: response.status,
    code: body?.code ?? `http.${response.status}`,
    detail: body?.detail ?? body?.title ?? response.statusText,
    help: body?.help ?? null,
    request_id: body?.request_id ?? null,
  });
}
