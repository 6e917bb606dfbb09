// Journeys through the console of a fleet server that runs, in a real browser.

import AxeBuilder from "@axe-core/playwright";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DeviceView, ModelView, Page as PageOf, RolloutView, Status } from "../src/api/types";
import { type Language, logIn, open, openBrowser, read, type Session, settled, type Theme } from "./browser";

let session: Session;
let page: Page;

beforeAll(async () => {
  session = await openBrowser();
  page = session.page;
});

afterAll(() => session?.browser.close());

const looks: [Theme, Language][] = [
  ["light", "en"],
  ["light", "ja"],
  ["dark", "en"],
  ["dark", "ja"],
];

describe("the way in", () => {
  it("says how to get a link to somebody without one", async () => {
    const origin = new URL(process.env.SEALIFT_CONSOLE_URL ?? "").origin;
    await page.goto(`${origin}/devices`);

    await page.getByText("fleet-server login-link").waitFor();
    expect(new URL(page.url()).pathname).toBe("/login");
    expect(await violationsOf(page)).toEqual([]);
    session.faults.length = 0;
  });

  it("opens the overview, and keeps the code out of the address", async () => {
    await logIn(session);
    await settled(page);

    expect(page.url()).not.toContain("code=");
    await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  });

  it("lets somebody in with a name and a password, and out again", async () => {
    const other = await session.browser.newContext({ locale: "en" });
    const place = await other.newPage();
    await place.goto(new URL("/login", page.url()).href);
    await place.getByLabel("Operator").fill("kei");
    await place.getByLabel("Password").fill("not the password");
    await place.getByRole("button", { name: "Log in" }).click();
    await place.getByText("auth.wrong").waitFor();
    expect(await violationsOf(place)).toEqual([]);

    await place.getByLabel("Password").fill("a quiet harbour at dawn");
    await place.getByRole("button", { name: "Log in" }).click();
    await place.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
    await place.getByLabel("Account of kei").click();
    await place.getByRole("button", { name: "Log out" }).click();
    await place.getByRole("heading", { level: 1, name: "Log in to Sealift" }).waitFor();
    await other.close();
  });

  it("shows a label as text, whatever markup it holds", async () => {
    await page.goto(new URL("/devices?filter=" + encodeURIComponent("note:*"), page.url()).href);
    await settled(page);
    await page.getByText("<img src=x onerror=window.stolen=1>").first().waitFor();
    expect(await page.evaluate(() => "stolen" in window)).toBe(false);
    await page.goto(new URL("/", page.url()).href);
    await settled(page);
  });

  it.runIf(process.env.SEALIFT_E2E_HOSTILE)("shows as text what a device says, on every page", async () => {
    const hostile = `/devices/${process.env.SEALIFT_E2E_HOSTILE}`;
    for (const path of [...(await paths()), hostile]) {
      await open(session, path, "light", "en");
      expect(await page.evaluate(() => "stolen" in window), path).toBe(false);
      expect(await page.locator("img[src=x]").count(), path).toBe(0);
    }
    await page.getByText("<img src=x onerror=window.stolen=1>").first().waitFor();
    await page.goto(new URL("/", page.url()).href);
    await settled(page);
  });

  it("shows the fleet that the server tells of, live", async () => {
    const status = await read<Status>(session, "status");
    const online = page.getByRole("list", { name: "The fleet in numbers" }).getByRole("listitem").first();

    await page.getByText(/^Live · /).waitFor();
    expect(await online.textContent()).toContain(status.devices_online.toLocaleString("en"));
    expect(await page.locator("canvas").count()).toBeGreaterThan(0);
  });
});

describe("every page", () => {
  it.each(looks)("has no accessibility violation in %s and %s", async (theme, language) => {
    const found: string[] = [];
    for (const path of await paths()) {
      await open(session, path, theme, language);
      found.push(...(await violationsOf(page)).map((violation) => `${path}: ${violation}`));
    }
    expect(found).toEqual([]);
  });

  it.each(looks)("has none with the rollback dialog and the palette open in %s and %s", async (theme, language) => {
    await open(session, "/", theme, language);
    await page.keyboard.press("Control+k");
    await page.getByRole("dialog").waitFor();
    expect(await violationsOf(page)).toEqual([]);

    await page.keyboard.press("Escape");
    await page.locator(".rollback-button").click();
    await page.locator(".effect:not([aria-busy=true])").waitFor();
    expect(await violationsOf(page)).toEqual([]);
  });

  it("can be photographed", async () => {
    for (const [theme, language] of looks) {
      await open(session, "/", theme, language);
      const folder = process.env.SEALIFT_SCREENSHOTS;
      if (folder) await page.screenshot({ path: `${folder}/overview-${theme}-${language}.png` });
      expect(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth)).toBe(true);
    }
  });
});

describe("the filter", () => {
  it("shows what is wrong with it, in the server's words", async () => {
    await open(session, "/devices", "light", "en");
    await page.getByRole("combobox").fill("nonsense");

    await page.locator(".said-bad", { hasText: "nonsense" }).waitFor();
    expect(await page.getByRole("combobox").getAttribute("aria-invalid")).toBe("true");
    forgetRefusals();
  });

  it("is kept in the address, and completed by keyboard", async () => {
    await open(session, "/devices", "light", "en");
    await page.getByRole("combobox").focus();
    await page.keyboard.type("state:onl");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");

    await page.waitForURL((url) => url.searchParams.get("filter") === "state:online");
  });
});

describe("a device", () => {
  it.runIf(process.env.SEALIFT_E2E_DEVICE)("answers a question that somebody tries on its page", async () => {
    await open(session, `/devices/${process.env.SEALIFT_E2E_DEVICE}`, "light", "en");
    const card = page.getByRole("region", { name: "Try it" });
    await card.getByRole("textbox").fill("{");
    await card.getByText("This is not an object of JSON.").waitFor();

    await card.getByRole("textbox").fill(exampleQuestion);
    await card.getByRole("button", { name: "Ask the model" }).click();
    await card.getByText(/ms on the device/).waitFor();
    await card.getByRole("cell", { name: /^0\.\d{4}$/ }).first().waitFor();
    expect(await violationsOf(page)).toEqual([]);

    await card.getByRole("textbox").fill('{"inputs": []}');
    await card.getByRole("button", { name: "Ask the model" }).click();
    await card.getByText("infer.input").waitFor();
    forgetRefusals();
  });
});

/** A blank picture of a digit. */
const exampleQuestion = JSON.stringify({
  inputs: [{ name: "pixels", datatype: "FP32", shape: [1, 64], data: new Array(64).fill(0) }],
});

describe("the palette", () => {
  it("leads to a device by a few letters of its name", async () => {
    await open(session, "/", "light", "en");
    const [device] = (await read<PageOf<DeviceView>>(session, "devices?limit=1")).items;
    await page.keyboard.press("Control+k");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.type(device?.id ?? "");
    await page.getByRole("option", { name: device?.id, exact: false }).first().waitFor();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");

    await page.waitForURL((url) => url.pathname.startsWith("/devices/"));
  });
});

describe("the way back, by keyboard alone", () => {
  it("is reached, shows its effect, and wants a reason", async () => {
    await open(session, "/", "light", "en");
    await tabTo(page, "Roll back");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog", { name: "Roll back" }).waitFor();
    await page.locator(".effect:not([aria-busy=true])").waitFor();

    expect(await page.getByRole("radio", { name: /Previous healthy version/ }).isChecked()).toBe(true);
    await tabTo(page, "Why");
    await page.keyboard.type("journey of the browser test");
    await page.getByText(/fleetctl rollback .* --reason 'journey of the browser test'/).waitFor();
  });

  it("closes with Escape and gives the focus back", async () => {
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });

    await expect.poll(() => focusedName(page)).toBe("Roll back");
  });

  it.runIf(process.env.SEALIFT_E2E_ROLLBACK === "1")("goes back, proved by the devices' own reports", async () => {
    await page.keyboard.press("Enter");
    await page.locator(".effect-main").waitFor();
    await tabTo(page, "Why");
    await page.keyboard.type("journey of the browser test");
    await tabTo(page, /^Roll back \d/);
    await page.keyboard.press("Enter");

    await page.getByText(/^Proved: \d+ of \d+ devices report version/).waitFor({ timeout: 90_000 });
    await page.keyboard.press("Escape");
  });
});

describe("the browser", () => {
  it("asked nothing of another origin, and met no error", () => {
    expect(session.foreign).toEqual([]);
    expect(session.faults).toEqual([]);
  });
});

/** Every kind of page, those about one thing with a thing that exists. */
async function paths(): Promise<string[]> {
  const devices = await read<PageOf<DeviceView>>(session, "devices?limit=1");
  const models = await read<PageOf<ModelView>>(session, "models");
  const rollouts = await read<PageOf<RolloutView>>(session, "rollouts");
  const about = [
    ...devices.items.slice(0, 1).map(({ id }) => `/devices/${id}`),
    ...models.items.slice(0, 1).flatMap(({ name, versions }) => [
      `/models/${name}`,
      ...versions.slice(0, 1).map(({ version }) => `/models/${name}/versions/${version}`),
    ]),
    ...rollouts.items.slice(0, 1).map(({ id }) => `/rollouts/${id}`),
  ];
  const lists = ["/", "/devices", "/models", "/rollouts", "/rollouts/new", "/drift", "/review", "/alerts", "/audit", "/settings", "/nowhere"];
  return [...lists, ...about];
}

async function violationsOf(place: Page): Promise<string[]> {
  const { violations } = await new AxeBuilder({ page: place }).analyze();
  return violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id} at ${target.join(" ")}: ${failureSummary ?? ""}`));
}

/** Presses Tab until something of this name has the focus; a page has fewer stops than this. */
async function tabTo(place: Page, name: string | RegExp): Promise<void> {
  for (let stops = 0; stops < 150; stops += 1) {
    await place.keyboard.press("Tab");
    const focused = await focusedName(place);
    if (typeof name === "string" ? focused === name : name.test(focused)) return;
  }
  throw new Error(`no press of Tab leads to ${name}`);
}

function focusedName(place: Page): Promise<string> {
  return place.evaluate(() => {
    const element = document.activeElement;
    if (!(element instanceof HTMLElement)) return "";
    const label = element instanceof HTMLTextAreaElement ? element.labels[0]?.querySelector("span")?.textContent : undefined;
    return (element.getAttribute("aria-label") ?? label ?? element.textContent ?? "").trim();
  });
}

/** A refused filter is also an entry of the browser's console. */
function forgetRefusals(): void {
  session.faults = session.faults.filter((fault) => !/status of 4(00|22)/.test(fault));
}
