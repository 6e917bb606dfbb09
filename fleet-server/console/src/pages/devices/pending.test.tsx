import { QueryClientProvider } from "@tanstack/react-query";
import { render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { queryClient } from "../../api/queries";
import type { EnrolRequestView } from "../../api/types";
import { Pending } from "./pending";

const camera: EnrolRequestView = {
  id: "q-1",
  batch: "spring",
  device: "cam-1",
  serial: "<b>SN-1</b>",
  key: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
  address: "192.0.2.1",
  labels: { site: "tokyo" },
  state: "waiting",
  asked_at: 1_790_000_000_000,
};
let waiting: EnrolRequestView[] = [];
const orders: { path: string; body: string }[] = [];
let server: Server;

beforeAll(async () => {
  server = createServer(async (request, response) => {
    const body = await textOf(request);
    response.setHeader("Content-Type", "application/json");
    if (request.method === "GET") return response.end(JSON.stringify({ items: waiting, total: waiting.length }));
    orders.push({ path: request.url ?? "", body });
    waiting = [];
    response.statusCode = 204;
    return response.end();
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
  orders.length = 0;
  waiting = [];
  queryClient.clear();
});

afterAll(() => {
  vi.unstubAllGlobals();
  server.close();
});

describe("devices that wait", () => {
  it("are shown as what they say, and approved", async () => {
    waiting = [camera];
    show();

    await userEvent.click(await screen.findByRole("button", { name: "Approve cam-1" }));

    await waitFor(() => expect(orders.map((order) => order.path)).toEqual(["/api/v1/enrol-requests/q-1/approve"]));
    await waitFor(() => expect(screen.queryByText("cam-1")).toBeNull());
  });

  it("are denied with a reason only, and their words are never markup", async () => {
    waiting = [camera];
    show();

    await userEvent.click(await screen.findByRole("button", { name: "Deny cam-1" }));
    expect(screen.getByText("<b>SN-1</b>")).toBeTruthy();
    expect(screen.getByRole<HTMLButtonElement>("button", { name: "Deny" }).disabled).toBe(true);
    await userEvent.type(screen.getByRole("textbox"), "not ours");
    await userEvent.click(screen.getByRole("button", { name: "Deny" }));

    await waitFor(() => expect(orders).toHaveLength(1));
    expect(orders[0]?.path).toBe("/api/v1/enrol-requests/q-1/deny");
    expect(JSON.parse(orders[0]?.body ?? "")).toEqual({ reason: "not ours" });
  });

  it("draw nothing while there are none", async () => {
    const { container } = show();
    await waitFor(() => expect(queryClient.isFetching()).toBe(0));
    expect(container.textContent).toBe("");
  });
});

function show() {
  return render(
    <QueryClientProvider client={queryClient}>
      <Pending />
    </QueryClientProvider>,
  );
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request) text += String(chunk);
  return text;
}
