// When people are told: kinds of alerts, and rules of one's own.

import { useMutation, useQuery } from "@tanstack/react-query";
import { changeAlertKind, removeAlertRule } from "../../api/calls";
import { alertKindsQuery, alertRulesQuery, queryClient } from "../../api/queries";
import type { KindView, RuleView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Button, TableScroll } from "../../ui/basics";
import { Loaded, ProblemNote } from "../../ui/loaded";

export function AlertRules() {
  const kinds = useQuery(alertKindsQuery);
  const rules = useQuery(alertRulesQuery);
  const remove = useMutation({
    mutationFn: removeAlertRule,
    onSuccess: () => queryClient.invalidateQueries({ queryKey: alertRulesQuery.queryKey }),
  });
  const change = useMutation({
    mutationFn: (kind: KindView) => changeAlertKind(kind.kind, { ...kind.change, is_off: !kind.change.is_off }),
    onSuccess: () => queryClient.invalidateQueries({ queryKey: alertKindsQuery.queryKey }),
  });
  return (
    <div className="stack">
      <Loaded query={kinds}>{({ items }) => <KindTable kinds={items} onTurn={(kind) => change.mutate(kind)} />}</Loaded>
      {change.isError && <ProblemNote error={change.error} />}
      <Loaded query={rules}>
        {({ items }) => (items.length === 0 ? null : <RuleTable rules={items} onRemove={(name) => remove.mutate(name)} />)}
      </Loaded>
      {remove.isError && <ProblemNote error={remove.error} />}
    </div>
  );
}

function KindTable({ kinds, onTurn }: { kinds: KindView[]; onTurn: (kind: KindView) => void }) {
  const { say, number } = useLocale();
  return (
    <TableScroll label={say("settings.alertKinds")}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("settings.alertKind")}</th>
            <th scope="col" className="number">{say("settings.alertHold")}</th>
            <th scope="col">{say("settings.alertSeverity")}</th>
            <td />
          </tr>
        </thead>
        <tbody>
          {kinds.map((kind) => (
            <tr key={kind.kind}>
              <th scope="row">{kind.kind} <span className="muted">{kind.meaning}</span></th>
              <td className="number">{number(kind.change.hold_s ?? kind.hold_s)}</td>
              <td>{kind.change.severity ?? say("settings.alertBuiltIn")}</td>
              <td>
                <Button look="quiet" aria-pressed={kind.change.is_off ?? false} onClick={() => onTurn(kind)}>
                  {say(kind.change.is_off ? "settings.alertOn" : "settings.alertOff", { kind: kind.kind })}
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

function RuleTable({ rules, onRemove }: { rules: RuleView[]; onRemove: (name: string) => void }) {
  const { say, number } = useLocale();
  return (
    <TableScroll label={say("settings.alertOwn")}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("settings.alertOwn")}</th>
            <th scope="col" className="number">{say("settings.alertHold")}</th>
            <th scope="col">{say("settings.alertSeverity")}</th>
            <td />
          </tr>
        </thead>
        <tbody>
          {rules.map(({ id, name, filter, hold_s, severity }) => (
            <tr key={id}>
              <th scope="row">{name} <code>{filter}</code></th>
              <td className="number">{number(hold_s ?? 0)}</td>
              <td>{severity}</td>
              <td>
                <Button look="quiet" aria-label={say("settings.channelRemove", { name })} onClick={() => onRemove(name)}>
                  {say("settings.remove")}
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
