// The list of devices: filtered and paged by the server, drawn as far as it is seen.

import { useInfiniteQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { devicesQuery } from "../api/queries";
import { FilterField } from "../filter/field";
import { useLocale } from "../i18n/language";
import { wishRollback } from "../rollback/wish";
import { Button, Empty, PageHeader } from "../ui/basics";
import { ProblemNote, Waiting } from "../ui/loaded";
import { Pending } from "./devices/pending";
import { QuickFilters } from "./devices/quick-filters";
import { Selection } from "./devices/selection";
import { DeviceTable } from "./devices/table";
import "../styles/devices.css";

const route = getRouteApi("/shell/devices");
/** With more pages loaded, reading all of them again would cost more than it tells; the stream tells of rows in sight. */
const PAGES_READ_AGAIN_MAX = 3;
const READ_AGAIN_MS = 30_000;

export function DevicesPage() {
  const { say } = useLocale();
  const { filter = "" } = route.useSearch();
  const navigate = route.useNavigate();
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const list = useInfiniteQuery({
    ...devicesQuery(filter),
    refetchInterval: (query) => ((query.state.data?.pages.length ?? 0) <= PAGES_READ_AGAIN_MAX ? READ_AGAIN_MS : false),
  });
  const devices = useMemo(() => list.data?.pages.flatMap((page) => page.items) ?? [], [list.data]);
  const total = list.data?.pages[0]?.total ?? 0;
  const setFilter = (next: string) => {
    setSelected(new Set());
    void navigate({ search: next.trim() === "" ? {} : { filter: next.trim() }, replace: true });
  };
  return (
    <div className="page-fill">
      <PageHeader title={say("devices.title")}>
        <Link className="button button-plain" to="/rollouts/new" search={filter === "" ? {} : { filter }}>
          {say("devices.rollOut")}
        </Link>
        <Button look="plain" icon="back" onClick={() => wishRollback({ filter })}>{say("devices.rollBack")}</Button>
      </PageHeader>
      <Pending />
      <FilterField label={say("filter.label")} filter={filter} onFilter={setFilter} />
      <QuickFilters filter={filter} onFilter={setFilter} />
      {selected.size > 0 && <Selection selected={selected} onDone={() => setSelected(new Set())} />}
      {list.isError && <ProblemNote error={list.error} onRetry={() => void list.refetch()} />}
      {list.isPending && <Waiting />}
      {list.isSuccess && devices.length === 0 && <Empty icon="devices">{say(filter === "" ? "devices.none" : "devices.noMatch")}</Empty>}
      {devices.length > 0 && (
        <DeviceTable
          devices={devices}
          total={total}
          readAt={list.dataUpdatedAt}
          selected={selected}
          onSelected={setSelected}
          onEnd={() => {
            if (list.hasNextPage && !list.isFetchingNextPage) void list.fetchNextPage();
          }}
        />
      )}
    </div>
  );
}
