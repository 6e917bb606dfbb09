import { QueryClientProvider } from "@tanstack/react-query";
import { render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { queryClient } from "../api/queries";
import type { ModelView, RollbackRequest, RollbackResult } from "../api/types";
import { RollbackForm } from "./form";

const effect: RollbackResult = { version: "1", quarantined: ["2"], devices: 3, without_download: 2, superseded: [], reverting: ["r-12"], reverting_in_part: ["r-11"] };
const requests: RollbackRequest[] = [];
let server: Server;

beforeAll(async () => {
  server = createServer(async (request, response) => {
    const body = await textOf(request);
    response.setHeader("Content-Type", "application/json");
    if (request.url !== "/api/v1/rollback") return response.end('{"items":[],"total":3}');
    const asked = JSON.parse(body) as RollbackRequest;
    requests.push(asked);
    return response.end(JSON.stringify(asked.dry_run ? effect : { ...effect, rollout: "r-13" }));
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const real = globalThis.fetch;
  vi.stubGlobal("fetch", async (request: Request) => {
    const { pathname, search } = new URL(request.url);
    const body = request.method === "GET" ? {} : { body: await request.text() };
    return real(base + pathname + search, { method: request.method, headers: request.headers, ...body });
  });
});

afterEach(() => {
  requests.length = 0;
  queryClient.clear();
});

afterAll(() => {
  vi.unstubAllGlobals();
  server.close();
});

describe("the form for a rollback", () => {
  it("has the previous healthy version chosen, and shows what would happen", async () => {
    show();

    expect(await screen.findByText("devices go back to version 1")).toBeTruthy();
    expect(screen.getByText("Takes r-12 back")).toBeTruthy();
    expect(screen.getByText("Takes r-11 back in part; other devices keep it")).toBeTruthy();
    expect(screen.getByRole<HTMLInputElement>("radio", { name: /Previous healthy version/ }).checked).toBe(true);
    expect(requests).toMatchObject([{ to: "previous", dry_run: true }]);
  });

  it("does nothing without a reason, and says so", async () => {
    const started = show();
    await screen.findByText("devices go back to version 1");
    const button = screen.getByRole("button", { name: "Roll back 3 devices to 1" });

    await userEvent.click(button);

    expect(button.getAttribute("aria-disabled")).toBe("true");
    expect(screen.getByText("Write down why.")).toBeTruthy();
    expect(requests.filter(({ dry_run }) => !dry_run)).toEqual([]);
    expect(started).not.toHaveBeenCalled();
  });

  it("starts with a reason", async () => {
    const started = show();
    await screen.findByText("devices go back to version 1");

    await userEvent.type(screen.getByLabelText("Why"), "scratches are missed");
    await userEvent.click(screen.getByRole("button", { name: "Roll back 3 devices to 1" }));

    await waitFor(() => expect(started).toHaveBeenCalledTimes(1));
    expect(started.mock.calls[0]?.[0]).toMatchObject({ rollout: "r-13" });
    expect(requests.filter(({ dry_run }) => !dry_run)).toEqual([
      { model: "vision/digits", to: "previous", filter: "", devices: [], reason: "scratches are missed", dry_run: false },
    ]);
  });
});

function show() {
  const started = vi.fn();
  const version = (name: string, devices: number) => ({
    model: "vision/digits",
    version: name,
    state: "signed" as const,
    digest: `sha256:${"0".repeat(64)}`,
    size_bytes: 1,
    pushed_at: 0,
    signed_by: [],
    epoch: 1,
    family: "",
    description: "",
    licenses: [],
    variants: [],
    has_baseline: false,
    devices,
    rollouts: [],
  });
  const models: ModelView[] = [{ name: "vision/digits", description: "", versions: [version("2", 3), version("1", 0)] }];
  render(
    <QueryClientProvider client={queryClient}>
      <RollbackForm models={models} wish={{}} onStarted={started} onClose={() => {}} />
    </QueryClientProvider>,
  );
  return started;
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request) text += String(chunk);
  return text;
}
