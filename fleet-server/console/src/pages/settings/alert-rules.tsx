// When people are told: kinds of alerts, and rules of one's own.

import { useMutation, useQuery } from "@tanstack/react-query";
import { changeAlertKind, removeAlertRule } from "../../api/calls";
import { alertKindsQuery, alertRulesQuery, queryClient } from "../../api/queries";
import type { KindView, RuleView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Button } from "../../ui/basics";
import { Listing } from "../../ui/listing";
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
    <Listing
      label={say("settings.alertKinds")}
      items={kinds}
      keyOf={({ kind }) => kind}
      columns={[
        { title: say("settings.alertKind"), cell: ({ kind, meaning }) => <>{kind} <span className="muted">{meaning}</span></> },
        { title: say("settings.alertHold"), look: "number", cell: ({ change, hold_s }) => number(change.hold_s ?? hold_s) },
        { title: say("settings.alertSeverity"), cell: ({ change }) => change.severity ?? say("settings.alertBuiltIn") },
      ]}
      actions={(kind) => (
        <Button look="quiet" aria-pressed={kind.change.is_off ?? false} onClick={() => onTurn(kind)}>
          {say(kind.change.is_off ? "settings.alertOn" : "settings.alertOff", { kind: kind.kind })}
        </Button>
      )}
    />
  );
}

function RuleTable({ rules, onRemove }: { rules: RuleView[]; onRemove: (name: string) => void }) {
  const { say, number } = useLocale();
  return (
    <Listing
      label={say("settings.alertOwn")}
      items={rules}
      keyOf={({ id }) => id}
      columns={[
        { title: say("settings.alertOwn"), cell: ({ name, filter }) => <>{name} <code>{filter}</code></> },
        { title: say("settings.alertHold"), look: "number", cell: ({ hold_s }) => number(hold_s ?? 0) },
        { title: say("settings.alertSeverity"), cell: ({ severity }) => severity },
      ]}
      actions={({ name }) => (
        <Button look="quiet" aria-label={say("settings.channelRemove", { name })} onClick={() => onRemove(name)}>
          {say("settings.remove")}
        </Button>
      )}
    />
  );
}
