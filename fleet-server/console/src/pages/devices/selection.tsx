// What can be done with the devices that are selected.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { changeLabels } from "../../api/calls";
import { queryClient } from "../../api/queries";
import { useLocale } from "../../i18n/language";
import { Button } from "../../ui/basics";
import { ProblemNote } from "../../ui/loaded";

/** Requests at the same time; the server answers others meanwhile. */
const AT_ONCE = 4;

export function Selection({ selected, onDone }: { selected: ReadonlySet<string>; onDone: () => void }) {
  const { say } = useLocale();
  const [label, setLabel] = useState("");
  const [value, setValue] = useState("");
  const save = useMutation({
    mutationFn: () => labelAll([...selected], { [label.trim()]: value.trim() === "" ? null : value.trim() }),
    onSuccess: () => {
      void queryClient.invalidateQueries({ queryKey: ["devices"] });
      onDone();
    },
  });
  return (
    <form
      className="selection"
      aria-label={say("devices.selection")}
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate();
      }}
    >
      <strong aria-live="polite">{say("devices.selected", { count: selected.size })}</strong>
      <label>
        {say("devices.label")}
        <input value={label} required pattern="[a-z0-9][a-z0-9-]*" onChange={(event) => setLabel(event.target.value)} />
      </label>
      <label>
        {say("devices.value")}
        <input value={value} placeholder={say("devices.valueHint")} onChange={(event) => setValue(event.target.value)} />
      </label>
      <Button type="submit" disabled={save.isPending || label.trim() === ""}>{say("devices.setLabel")}</Button>
      <Button icon="copy" onClick={() => void navigator.clipboard.writeText([...selected].join("\n"))}>{say("devices.copyIds")}</Button>
      <Button look="quiet" onClick={onDone}>{say("devices.unselect")}</Button>
      {save.isError && <ProblemNote error={save.error} />}
    </form>
  );
}

async function labelAll(ids: string[], labels: Record<string, string | null>): Promise<void> {
  const rest = [...ids];
  const work = async () => {
    for (let id = rest.pop(); id !== undefined; id = rest.pop()) await changeLabels(id, labels);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}
