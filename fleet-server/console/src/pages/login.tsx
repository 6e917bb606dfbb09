// The way in: a one-time code in the fragment of the address, which never reaches a log of requests.

import { useMutation } from "@tanstack/react-query";
import { getRouteApi, useRouter } from "@tanstack/react-router";
import { useEffect, useRef } from "react";
import { openSession } from "../api/calls";
import { queryClient, sessionQuery } from "../api/queries";
import { useLocale } from "../i18n/language";
import { PageHeader } from "../ui/basics";
import { CopyLine } from "../ui/copy";
import { ProblemNote, Waiting } from "../ui/loaded";

const route = getRouteApi("/login");

export function LoginPage() {
  const { say } = useLocale();
  const code = useCode();
  const { to } = route.useSearch();
  const router = useRouter();
  const login = useMutation({
    mutationFn: openSession,
    onSuccess: (session) => {
      queryClient.clear();
      queryClient.setQueryData(sessionQuery.queryKey, session);
      router.history.push(insidePath(to));
    },
  });
  const { mutate } = login;
  const isSent = useRef(false);
  useEffect(() => {
    if (!code || isSent.current) return;
    isSent.current = true;
    mutate(code);
  }, [code, mutate]);
  return (
    <main className="login">
      <div className="panel login-box">
        <PageHeader title={say("login.title")} />
        {login.isPending && <Waiting />}
        {login.isError && <ProblemNote error={login.error} />}
        {(!code || login.isError) && (
          <>
            <p>{say("login.how")}</p>
            <CopyLine text="fleet-server login-link" label={say("login.command")} />
            <p className="muted">{say("login.then")}</p>
          </>
        )}
      </div>
    </main>
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
