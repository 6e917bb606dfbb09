// What is shown until an answer is there, or when there is none.

import type { UseQueryResult } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { ApiError } from "../api/client";
import { useLocale } from "../i18n/language";
import { Button } from "./basics";
import { Icon } from "./icon";

/** Shows the answer; a failed refresh keeps the old one in sight and says so. */
export function Loaded<T>({ query, children }: { query: UseQueryResult<T>; children: (data: T) => ReactNode }) {
  const retry = () => void query.refetch();
  if (query.data !== undefined) {
    return (
      <>
        {query.isError && <ProblemNote error={query.error} onRetry={retry} />}
        {children(query.data)}
      </>
    );
  }
  return query.isError ? <ProblemNote error={query.error} onRetry={retry} /> : <Waiting />;
}

export function Waiting() {
  const { say } = useLocale();
  return (
    <div className="waiting" role="status">
      <span className="visually-hidden">{say("common.loading")}</span>
      <span className="bone" />
      <span className="bone" />
      <span className="bone" />
    </div>
  );
}

/** What went wrong, and what to do about it. */
export function ProblemNote({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const { say } = useLocale();
  const problem = error instanceof ApiError ? error : undefined;
  const text = problem?.code === "unreachable" ? say("problem.unreachable") : (problem?.message ?? String(error));
  return (
    <div className="note note-bad" role="alert">
      <Icon name="critical" />
      <div>
        <p>{text}</p>
        {problem?.help && <p className="muted">{problem.help}</p>}
        {problem && <p className="muted small"><code>{problem.code}</code> {problem.requestId}</p>}
      </div>
      {onRetry && <Button onClick={onRetry}>{say("common.retry")}</Button>}
    </div>
  );
}
