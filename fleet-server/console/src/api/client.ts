// One way to the server: JSON, the session cookie, the CSRF token on changes, problems as errors.

import createClient from "openapi-fetch";
import type { paths } from "./schema";
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

let csrfToken = "";

/** Takes the token that `GET /session` gave. */
export function takeCsrfToken(token: string): void {
  csrfToken = token;
}

export const http = createClient<paths>({
  baseUrl: window.location.origin,
  credentials: "same-origin",
  fetch: async (request) => {
    const again = request.method === "GET" ? undefined : request.clone();
    const response = await send(request);
    // What does most harm is confirmed by the person once more, and then asked for again.
    if (again === undefined || !(await wantsConfirmation(response))) return response;
    return (await confirm()) ? send(again) : response;
  },
});

function send(request: Request): Promise<Response> {
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(ANSWER_WITHIN_MS)]);
  return fetch(request, { signal });
}

async function wantsConfirmation(response: Response): Promise<boolean> {
  if (response.status !== 403) return false;
  const problem: unknown = await response.clone().json().catch(() => undefined);
  return (problem as Partial<Problem> | undefined)?.code === "auth.step-up";
}

/** Asks the person to confirm; resolves to whether they did. */
let confirm: () => Promise<boolean> = () => Promise.resolve(false);

/** Says who asks the person to confirm; the returned function takes it back. */
export function confirmThrough(asker: () => Promise<boolean>): () => void {
  confirm = asker;
  return () => {
    confirm = () => Promise.resolve(false);
  };
}

http.use({
  onRequest: ({ request }) => {
    if (request.method !== "GET") request.headers.set("X-Csrf-Token", csrfToken);
  },
  onError: ({ error, request }) => {
    if (request.signal.aborted) return;
    return new ApiError({ status: 0, code: "unreachable", detail: String(error) });
  },
});

/** The body of an answer; a refusal is thrown. */
export async function answer<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok) throw problemOf(response, error);
  return data as T;
}

/** As `answer`, under a type of ours: openapi-fetch makes arrays of pairs, and the schema leaves contracts open. */
export const answerAs = <T>(call: Promise<{ data?: unknown; error?: unknown; response: Response }>) => answer(call) as Promise<T>;

/** A proxy in between may answer with something that is no problem document. */
function problemOf(response: Response, body: unknown): ApiError {
  const problem: Partial<Problem> = typeof body === "object" && body !== null ? body : {};
  return new ApiError({
    status: response.status,
    code: problem.code ?? `http.${response.status}`,
    detail: problem.detail ?? problem.title ?? response.statusText,
    help: problem.help ?? null,
    request_id: problem.request_id ?? null,
  });
}
