// How devices get in, who signs, who is told.

import { useQuery } from "@tanstack/react-query";
import { rolesQuery } from "../api/queries";
import { useLocale } from "../i18n/language";
import { Age, PageHeader, Panel, TableScroll } from "../ui/basics";
import { Loaded } from "../ui/loaded";
import { AlertRules } from "./settings/alert-rules";
import { Channels } from "./settings/channels";
import { EnrolTokens } from "./settings/enrol-tokens";
import { Sessions } from "./settings/sessions";

export function SettingsPage() {
  const { say } = useLocale();
  return (
    <>
      <PageHeader title={say("settings.title")} />
      <Panel title={say("settings.tokens")}>
        <EnrolTokens />
      </Panel>
      <Panel title={say("settings.sessions")}>
        <Sessions />
      </Panel>
      <Panel title={say("settings.roles")}>
        <Roles />
      </Panel>
      <Panel title={say("settings.channels")}>
        <Channels />
      </Panel>
      <Panel title={say("settings.alertKinds")}>
        <AlertRules />
      </Panel>
    </>
  );
}

function Roles() {
  const { say, number } = useLocale();
  const roles = useQuery(rolesQuery);
  return (
    <>
      <p className="muted">{say("settings.rolesHint")}</p>
      <Loaded query={roles}>
        {({ items }) => (
          <TableScroll label={say("settings.roles")}>
            <table className="table">
              <thead>
                <tr>
                  <th scope="col">{say("settings.role")}</th>
                  <th scope="col" className="number">{say("settings.roleVersion")}</th>
                  <th scope="col" className="number">{say("settings.roleTargets")}</th>
                  <th scope="col">{say("settings.roleEnds")}</th>
                </tr>
              </thead>
              <tbody>
                {items.map((role) => (
                  <tr key={role.name}>
                    <th scope="row">{role.name}</th>
                    <td className="number">{number(role.version)}</td>
                    <td className="number">{number(role.targets)}</td>
                    <td><Age at={role.expires_at} /></td>
                  </tr>
                ))}
              </tbody>
            </table>
          </TableScroll>
        )}
      </Loaded>
    </>
  );
}
