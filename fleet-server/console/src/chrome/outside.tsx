// What is shown where no page is.

import { type ErrorComponentProps, Link, useRouter } from "@tanstack/react-router";
import { useLocale } from "../i18n/language";
import { PageHeader } from "../ui/basics";
import { ProblemNote } from "../ui/loaded";

export function NotFound() {
  const { say } = useLocale();
  return (
    <main className="page page-narrow">
      <PageHeader title={say("notFound.title")} hint={say("notFound.hint")} />
      <p>
        <Link to="/">{say("nav.overview")}</Link>
      </p>
    </main>
  );
}

export function RouteProblem({ error }: ErrorComponentProps) {
  const { say } = useLocale();
  const router = useRouter();
  return (
    <main className="page page-narrow">
      <PageHeader title={say("problem.title")} />
      <ProblemNote error={error} onRetry={() => void router.invalidate()} />
    </main>
  );
}
