// Search and commands: type a few letters, go there. On React Aria's autocomplete.

import { useQuery } from "@tanstack/react-query";
import { useRouter } from "@tanstack/react-router";
import { useState } from "react";
import { Autocomplete, Dialog, Input, ListBox, ListBoxItem, Modal, ModalOverlay, SearchField } from "react-aria-components";
import { listDevices } from "../api/calls";
import { modelsQuery, rolloutsQuery } from "../api/queries";
import { wishHalt } from "../halt/wish";
import { useLocale } from "../i18n/language";
import { wishRollback } from "../rollback/wish";
import { chooseTheme, useTheme } from "../theme";
import { Icon, type IconName } from "../ui/icon";
import { destinations } from "./shell";

interface Entry {
  id: string;
  icon: IconName;
  text: string;
  hint: string;
  act: () => void;
}

/** More are not read; a further letter narrows them. */
const DEVICES_MAX = 8;
const ENTRIES_MAX = 24;

export function Palette({ onClose }: { onClose: () => void }) {
  const { say } = useLocale();
  const [text, setText] = useState("");
  const entries = useEntries(text.trim().toLowerCase());
  return (
    <ModalOverlay className="overlay" isOpen isDismissable onOpenChange={(isOpen) => !isOpen && onClose()}>
      <Modal className="modal palette">
        <Dialog className="dialog" aria-label={say("palette.title")}>
          <Autocomplete inputValue={text} onInputChange={setText}>
            <SearchField className="palette-field" aria-label={say("palette.title")} autoFocus>
              <Icon name="search" />
              <Input role="combobox" aria-expanded placeholder={say("palette.hint")} />
            </SearchField>
            <ListBox
              className="palette-list"
              aria-label={say("palette.results")}
              items={entries}
              selectionMode="none"
              renderEmptyState={() => <p className="empty">{say("palette.nothing")}</p>}
              onAction={(key) => {
                onClose();
                entries.find(({ id }) => id === key)?.act();
              }}
            >
              {(entry) => (
                <ListBoxItem className="list-item palette-item" textValue={entry.text}>
                  <Icon name={entry.icon} />
                  <span>{entry.text}</span>
                  <span className="muted small">{entry.hint}</span>
                </ListBoxItem>
              )}
            </ListBox>
          </Autocomplete>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}

function useEntries(text: string): Entry[] {
  const { say, language, setLanguage } = useLocale();
  const router = useRouter();
  const theme = useTheme();
  const go = (path: string) => () => router.history.push(path);
  const models = useQuery(modelsQuery).data?.items ?? [];
  const rollouts = useQuery(rolloutsQuery).data?.items ?? [];
  const devices = useDevices(text);
  const other = theme === "light" ? "dark" : "light";
  const pages = destinations.map(({ to, key, icon }): Entry => ({ id: to, icon, text: say(key), hint: say("palette.page"), act: go(to) }));
  const commands: Entry[] = [
    { id: "rollback", icon: "back", text: say("rollback.title"), hint: say("palette.command"), act: () => wishRollback({}) },
    { id: "halt", icon: "pause", text: say("halt.open"), hint: say("palette.command"), act: () => wishHalt("halt") },
    { id: "new", icon: "plus", text: say("newRollout.title"), hint: say("palette.command"), act: go("/rollouts/new") },
    { id: "theme", icon: other === "dark" ? "moon" : "sun", text: say(`theme.${other}`), hint: say("palette.command"), act: () => chooseTheme(other) },
    { id: "language", icon: "language", text: say("language.switch"), hint: say("palette.command"), act: () => setLanguage(language === "en" ? "ja" : "en") },
  ];
  const things: Entry[] = [
    ...models.map(({ name }): Entry => ({ id: `m ${name}`, icon: "models", text: name, hint: say("palette.model"), act: go(`/models/${name}`) })),
    ...rollouts.map(({ id, model, version }): Entry => ({ id: `r ${id}`, icon: "rollouts", text: `${id} ${model}@${version}`, hint: say("palette.rollout"), act: go(`/rollouts/${id}`) })),
  ];
  const found = [...pages, ...commands, ...things].filter((entry) => entry.text.toLowerCase().includes(text));
  const foundDevices = devices.map((id): Entry => ({ id: `d ${id}`, icon: "devices", text: id, hint: say("palette.device"), act: go(`/devices/${encodeURIComponent(id)}`) }));
  return [...foundDevices, ...found].slice(0, ENTRIES_MAX);
}

/** Devices whose id has the text in it; asked of the server, since there may be very many. */
function useDevices(text: string): string[] {
  const pattern = text.replaceAll(/[^a-z0-9._-]/g, "");
  const devices = useQuery({
    queryKey: ["devices", "named", pattern],
    queryFn: ({ signal }) => listDevices({ filter: `id:*${pattern}*`, limit: DEVICES_MAX }, signal),
    enabled: pattern !== "",
    retry: false,
  });
  return pattern === "" ? [] : (devices.data?.items.map(({ id }) => id) ?? []);
}
