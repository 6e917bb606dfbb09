// A real browser, logged in once; what it asks of other origins and what goes wrong in it is kept.

import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";

const flags = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The one-time address that `fleet-server login-link` prints. */
const loginUrl = new URL(needed("SEALIFT_CONSOLE_URL"));

export interface Session {
  browser: Browser;
  context: BrowserContext;
  page: Page;
  /** Addresses asked for outside of the fleet server. */
  foreign: string[];
  /** Errors of scripts and of the content security policy. */
  faults: string[];
}

export async function openBrowser(): Promise<Session> {
  const executablePath = process.env.SEALIFT_CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: flags });
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: "en" });
  const page = await context.newPage();
  const session: Session = { browser, context, page, foreign: [], faults: [] };
  context.on("request", (request) => {
    if (new URL(request.url()).origin !== loginUrl.origin) session.foreign.push(request.url());
  });
  page.on("pageerror", (error) => session.faults.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") session.faults.push(message.text());
  });
  return session;
}

export async function logIn({ page }: Session): Promise<void> {
  await page.goto(loginUrl.href);
  await page.waitForURL((url) => url.pathname === "/");
}

export const address = (path: string) => new URL(path, loginUrl.origin).href;

export type Theme = "light" | "dark";
export type Language = "en" | "ja";

/** Chooses as the buttons in the header do, and opens the page anew. */
export async function open({ page }: Session, path: string, theme: Theme, language: Language): Promise<void> {
  await page.evaluate(
    ([chosen, spoken]) => {
      localStorage.setItem("sealift.theme", chosen);
      localStorage.setItem("sealift.language", spoken);
    },
    [theme, language] as const,
  );
  await page.goto(address(path));
  await settled(page);
}

/** The heading is there, and nothing is being waited for. */
export async function settled(page: Page): Promise<void> {
  await page.getByRole("heading", { level: 1 }).waitFor();
  await page.waitForFunction(() => document.querySelector(".waiting") === null);
}

/** Reads what the console itself reads. */
export async function read<T>({ page }: Session, path: string): Promise<T> {
  const response = await page.request.get(address(`/api/v1/${path}`));
  if (!response.ok()) throw new Error(`${path}: ${response.status()} ${await response.text()}`);
  return (await response.json()) as T;
}

function needed(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; it is the address that \`fleet-server login-link\` prints`);
  return value;
}
