// The way in: with an account, through the provider of identities, or by a one-time code in the fragment of the address, which never reaches
// a log of requests.

import { useMutation, useQuery } from "@tanstack/react-query";
import { getRouteApi, useRouter } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";
import { logIn, openSession } from "../api/calls";
import { loginWaysQuery, queryClient, sessionQuery } from "../api/queries";
import type { SessionView } from "../api/types";
import { useLocale } from "../i18n/language";
import { Button, PageHeader } from "../ui/basics";
import { CopyLine } from "../ui/copy";
import { ProblemNote, Waiting } from "../ui/loaded";

const route = getRouteApi("/login");

export function LoginPage() {
  const { say } = useLocale();
  const code = useCode();
  const { to, problem } = route.useSearch();
  const router = useRouter();
  const enter = (session: SessionView) => {
    queryClient.clear();
    queryClient.setQueryData(sessionQuery.queryKey, session);
    router.history.push(insidePath(to));
  };
  const login = useMutation({ mutationFn: openSession, onSuccess: enter });
  const { mutate } = login;
  const isSent = useRef(false);
  useEffect(() => {
    if (!code || isSent.current) return;
    isSent.current = true;
    mutate(code);
  }, [code, mutate]);
  const ways = useQuery(loginWaysQuery).data;
  return (
    <main className="login">
      <div className="panel login-box">
        <PageHeader title={say("login.title")} />
        {login.isPending && <Waiting />}
        {login.isError && <ProblemNote error={login.error} />}
        {problem && <p className="note note-bad" role="alert">{say("login.cameToNothing")}: <code>{problem}</code></p>}
        {(!code || login.isError) && (
          <div className="stack">
            {ways?.password && <PasswordForm onEntered={enter} />}
            {ways?.oidc && <a className="button button-plain" href={ways.oidc}>{say("login.oidc")}</a>}
            {(ways?.password || ways?.oidc) && <h2>{say("login.orLink")}</h2>}
            <p>{say("login.how")}</p>
            <CopyLine text="fleet-server login-link" label={say("login.command")} />
            <p className="muted">{say("login.then")}</p>
          </div>
        )}
      </div>
    </main>
  );
}

function PasswordForm({ onEntered }: { onEntered: (session: SessionView) => void }) {
  const { say } = useLocale();
  const [operator, setOperator] = useState("");
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const login = useMutation({ mutationFn: () => logIn(operator.trim(), password, code.trim()), onSuccess: onEntered });
  return (
    <form
      className="stack"
      aria-label={say("login.title")}
      onSubmit={(event) => {
        event.preventDefault();
        if (!login.isPending) login.mutate();
      }}
    >
      <label className="field">
        <span>{say("login.operator")}</span>
        <input autoComplete="username" required value={operator} onChange={(event) => setOperator(event.target.value)} />
      </label>
      <label className="field">
        <span>{say("login.password")}</span>
        <input type="password" autoComplete="current-password" required value={password} onChange={(event) => setPassword(event.target.value)} />
      </label>
      <label className="field">
        <span>{say("login.code")}</span>
        <input autoComplete="one-time-code" aria-describedby="login-code-hint" value={code} onChange={(event) => setCode(event.target.value)} />
      </label>
      <p className="muted small" id="login-code-hint">{say("login.codeHint")}</p>
      {login.isError && <ProblemNote error={login.error} />}
      <Button type="submit" look="main" disabled={login.isPending}>{say("login.enter")}</Button>
    </form>
  );
}

/** Reads the code once and takes it out of the address, so that it is neither copied nor kept in the history. */
function useCode(): string | undefined {
  const code = useRef<string | undefined>(undefined);
  code.current ??= new URLSearchParams(window.location.hash.slice(1)).get("code") ?? undefined;
  useEffect(() => {
    if (window.location.hash !== "") window.history.replaceState(window.history.state, "", "/login");
  }, []);
  return code.current;
}

/** Only a path of this console; `//host` and `https:` lead elsewhere. */
export function insidePath(to: string | undefined): string {
  return to?.startsWith("/") && !to.startsWith("//") && !to.startsWith("/\\") && !to.startsWith("/login") ? to : "/";
}
