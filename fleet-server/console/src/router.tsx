// Which page stands where. Each page is loaded when it is first visited.

import { createRootRoute, createRoute, createRouter, lazyRouteComponent, redirect } from "@tanstack/react-router";
import { ApiError } from "./api/client";
import { queryClient, sessionQuery } from "./api/queries";
import { NotFound, RouteProblem } from "./chrome/outside";
import { Shell } from "./chrome/shell";
import { Waiting } from "./ui/loaded";

const root = createRootRoute({ notFoundComponent: NotFound, errorComponent: RouteProblem });

const login = createRoute({
  getParentRoute: () => root,
  path: "/login",
  validateSearch: (search: Record<string, unknown>) => textFields(search, ["to", "problem"]),
  component: lazyRouteComponent(() => import("./pages/login"), "LoginPage"),
});

const shell = createRoute({
  getParentRoute: () => root,
  id: "shell",
  component: Shell,
  beforeLoad: async ({ location }) => {
    try {
      await queryClient.ensureQueryData(sessionQuery);
    } catch (error) {
      if (error instanceof ApiError && error.isLoggedOut) throw redirect({ to: "/login", search: { to: location.href } });
      throw error;
    }
  },
});

const overview = createRoute({
  getParentRoute: () => shell,
  path: "/",
  component: lazyRouteComponent(() => import("./pages/overview"), "OverviewPage"),
});

const devices = createRoute({
  getParentRoute: () => shell,
  path: "/devices",
  validateSearch: (search: Record<string, unknown>) => textFields(search, ["filter"]),
  component: lazyRouteComponent(() => import("./pages/devices"), "DevicesPage"),
});

const device = createRoute({
  getParentRoute: () => shell,
  path: "/devices/$device",
  component: lazyRouteComponent(() => import("./pages/device"), "DevicePage"),
});

const models = createRoute({
  getParentRoute: () => shell,
  path: "/models",
  component: lazyRouteComponent(() => import("./pages/models"), "ModelsPage"),
});

const model = createRoute({
  getParentRoute: () => shell,
  path: "/models/$team/$name",
  component: lazyRouteComponent(() => import("./pages/models"), "ModelPage"),
});

const version = createRoute({
  getParentRoute: () => shell,
  path: "/models/$team/$name/versions/$version",
  component: lazyRouteComponent(() => import("./pages/version"), "VersionPage"),
});

const rollouts = createRoute({
  getParentRoute: () => shell,
  path: "/rollouts",
  component: lazyRouteComponent(() => import("./pages/rollouts"), "RolloutsPage"),
});

const newRollout = createRoute({
  getParentRoute: () => shell,
  path: "/rollouts/new",
  validateSearch: (search: Record<string, unknown>) => textFields(search, ["model", "version", "filter", "draft"]),
  component: lazyRouteComponent(() => import("./pages/new-rollout"), "NewRolloutPage"),
});

const rollout = createRoute({
  getParentRoute: () => shell,
  path: "/rollouts/$rollout",
  component: lazyRouteComponent(() => import("./pages/rollout"), "RolloutPage"),
});

const drift = createRoute({
  getParentRoute: () => shell,
  path: "/drift",
  validateSearch: (search: Record<string, unknown>) => textFields(search, ["model", "scope", "subject"]),
  component: lazyRouteComponent(() => import("./pages/drift"), "DriftPage"),
});

const review = createRoute({
  getParentRoute: () => shell,
  path: "/review",
  component: lazyRouteComponent(() => import("./pages/review"), "ReviewPage"),
});

const alerts = createRoute({
  getParentRoute: () => shell,
  path: "/alerts",
  validateSearch: (search: Record<string, unknown>) => textFields(search, ["state"]),
  component: lazyRouteComponent(() => import("./pages/alerts"), "AlertsPage"),
});

const audit = createRoute({
  getParentRoute: () => shell,
  path: "/audit",
  component: lazyRouteComponent(() => import("./pages/audit"), "AuditPage"),
});

const settings = createRoute({
  getParentRoute: () => shell,
  path: "/settings",
  component: lazyRouteComponent(() => import("./pages/settings"), "SettingsPage"),
});

const inShell = [overview, devices, device, models, model, version, rollouts, newRollout, rollout, drift, review, alerts, audit, settings];

export const router = createRouter({
  routeTree: root.addChildren([login, shell.addChildren(inShell)]),
  defaultPreload: "intent",
  defaultPendingComponent: Waiting,
  defaultErrorComponent: RouteProblem,
  defaultNotFoundComponent: NotFound,
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}

// A session that ends while a page is open leads to the login, from whichever query notices.
queryClient.getQueryCache().subscribe(({ query, type }) => {
  const error = query.state.error;
  if (type !== "updated" || !(error instanceof ApiError) || !error.isLoggedOut) return;
  if (router.state.location.pathname === "/login") return;
  queryClient.removeQueries({ queryKey: sessionQuery.queryKey });
  void router.navigate({ to: "/login", search: { to: router.state.location.href } });
});

/** Keeps the named fields of a search that are texts; a filter such as `7` must not become a number. */
function textFields<K extends string>(search: Record<string, unknown>, names: K[]): { [N in K]?: string } {
  const given = names.filter((name) => search[name] !== undefined && search[name] !== "");
  return Object.fromEntries(given.map((name) => [name, String(search[name])])) as { [N in K]?: string };
}
