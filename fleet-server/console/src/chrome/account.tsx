// Who is logged in, and the way out.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { closeSession } from "../api/calls";
import { sessionQuery } from "../api/queries";
import { useLocale } from "../i18n/language";

export function AccountMenu() {
  const { say } = useLocale();
  const client = useQueryClient();
  const navigate = useNavigate();
  const session = useQuery(sessionQuery).data;
  const leave = async () => {
    await closeSession();
    client.clear();
    await navigate({ to: "/login", search: {} });
  };
  return (
    <details className="account">
      <summary className="icon-button" aria-label={say("account.label", { operator: session?.operator ?? "" })}>
        <span aria-hidden="true">{(session?.operator ?? "?").slice(0, 2).toUpperCase()}</span>
      </summary>
      <div className="account-box">
        <p><strong>{session?.operator}</strong></p>
        <p className="muted small">{session?.roles.join(", ")}</p>
        {session?.scope && <p className="muted small"><code>{session.scope}</code></p>}
        <p className="muted small">{say("account.server", { version: session?.server_version ?? "" })}</p>
        <button type="button" className="button button-plain" onClick={() => void leave()}>{say("account.leave")}</button>
      </div>
    </details>
  );
}
