// Adds somebody whom alerts are sent to. What is secret goes in here and never comes out again.

import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { createChannel } from "../../api/calls";
import type { ChannelKind, ChannelNew, Destination } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Button } from "../../ui/basics";
import { ChooseOne } from "../../ui/choose";
import { CopyLine } from "../../ui/copy";
import { ProblemNote } from "../../ui/loaded";

interface Draft {
  name: string;
  kind: ChannelKind;
  least: "info" | "warning" | "critical";
  matchers: string;
  url: string;
  host: string;
  port: string;
  tls: "starttls" | "tls" | "none";
  username: string;
  password: string;
  from: string;
  to: string;
}

const EMPTY: Draft = {
  name: "",
  kind: "webhook",
  least: "warning",
  matchers: "",
  url: "",
  host: "",
  port: "587",
  tls: "starttls",
  username: "",
  password: "",
  from: "",
  to: "",
};

const KINDS = [
  { id: "webhook", key: "settings.kindWebhook" },
  { id: "slack", key: "settings.kindSlack" },
  { id: "smtp", key: "settings.kindSmtp" },
  { id: "alertmanager", key: "settings.kindAlertmanager" },
] as const;

/** The words between commas or spaces. */
export function words(text: string): string[] {
  return text.split(/[\s,]+/).filter((word) => word !== "");
}

function destination(draft: Draft): Destination {
  const login = draft.username === "" ? {} : { username: draft.username, password: draft.password };
  switch (draft.kind) {
    case "webhook":
    case "slack":
      return { kind: draft.kind, url: draft.url.trim() };
    case "alertmanager":
      return { kind: "alertmanager", url: draft.url.trim(), ...login };
    case "smtp":
      return {
        kind: "smtp",
        host: draft.host.trim(),
        port: Number(draft.port),
        tls: draft.tls,
        from: draft.from.trim(),
        to: words(draft.to),
        ...login,
      };
  }
}

/** What the server is asked to add. */
export function channelOf(draft: Draft): ChannelNew {
  const { name, least, matchers } = draft;
  return { name: name.trim(), least, matchers: words(matchers), destination: destination(draft) };
}

export function NewChannel({ onAdded }: { onAdded: () => Promise<void> }) {
  const { say } = useLocale();
  const [draft, setDraft] = useState(EMPTY);
  const change = (part: Partial<Draft>) => setDraft((before) => ({ ...before, ...part }));
  const create = useMutation({
    mutationFn: () => createChannel(channelOf(draft)),
    onSuccess: () => {
      setDraft(EMPTY);
      return onAdded();
    },
  });
  return (
    <form
      className="form-row"
      onSubmit={(event) => {
        event.preventDefault();
        create.mutate();
      }}
    >
      <Line label={say("settings.channelName")} value={draft.name} onChange={(name) => change({ name })} />
      <ChooseOne
        label={say("settings.channelKind")}
        options={KINDS.map(({ id, key }) => ({ id, text: say(key) }))}
        chosen={draft.kind}
        onChoose={(kind) => change({ kind: kind as ChannelKind })}
      />
      {draft.kind === "smtp" ? <MailLines draft={draft} change={change} /> : (
        <Line label={say("settings.channelUrl")} type="url" value={draft.url} onChange={(url) => change({ url })} />
      )}
      {(draft.kind === "smtp" || draft.kind === "alertmanager") && <LoginLines draft={draft} change={change} />}
      <ChooseOne
        label={say("settings.channelLeast")}
        options={["info", "warning", "critical"].map((id) => ({ id, text: id }))}
        chosen={draft.least}
        onChoose={(least) => change({ least: least as Draft["least"] })}
      />
      <Line
        label={say("settings.channelMatch")}
        isNeeded={false}
        placeholder={say("settings.channelMatchHint")}
        value={draft.matchers}
        onChange={(matchers) => change({ matchers })}
      />
      <Button type="submit" look="main" disabled={create.isPending}>{say("settings.channelAdd")}</Button>
      {create.isError && <ProblemNote error={create.error} />}
      {create.data?.secret && (
        <div className="form-result" role="status">
          <p>{say("settings.channelSecret")}</p>
          <CopyLine text={create.data.secret} label={say("settings.channelSecret")} />
        </div>
      )}
    </form>
  );
}

interface LinesProps {
  draft: Draft;
  change: (part: Partial<Draft>) => void;
}

function MailLines({ draft, change }: LinesProps) {
  const { say } = useLocale();
  return (
    <>
      <Line label={say("settings.channelHost")} value={draft.host} onChange={(host) => change({ host })} />
      <Line label={say("settings.channelPort")} type="number" value={draft.port} onChange={(port) => change({ port })} />
      <ChooseOne
        label={say("settings.channelTls")}
        options={["starttls", "tls", "none"].map((id) => ({ id, text: id }))}
        chosen={draft.tls}
        onChoose={(tls) => change({ tls: tls as Draft["tls"] })}
      />
      <Line label={say("settings.channelFrom")} value={draft.from} onChange={(from) => change({ from })} />
      <Line label={say("settings.channelReceivers")} value={draft.to} onChange={(to) => change({ to })} />
    </>
  );
}

function LoginLines({ draft, change }: LinesProps) {
  const { say } = useLocale();
  return (
    <>
      <Line
        label={say("settings.channelUser")}
        isNeeded={false}
        value={draft.username}
        onChange={(username) => change({ username })}
      />
      <Line
        label={say("settings.channelPassword")}
        isNeeded={false}
        type="password"
        value={draft.password}
        onChange={(password) => change({ password })}
      />
    </>
  );
}

interface LineProps {
  label: string;
  value: string;
  onChange: (value: string) => void;
  type?: string;
  placeholder?: string;
  isNeeded?: boolean;
}

function Line({ label, value, onChange, type = "text", placeholder, isNeeded = true }: LineProps) {
  return (
    <label className="field">
      <span>{label}</span>
      <input
        type={type}
        required={isNeeded}
        autoComplete="off"
        placeholder={placeholder}
        value={value}
        onChange={(event) => onChange(event.target.value)}
      />
    </label>
  );
}
