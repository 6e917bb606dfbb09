// A table of things, a row each, with what can be done to it at its end.

import type { UseQueryResult } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Empty, TableScroll } from "./basics";
import type { IconName } from "./icon";
import { Loaded } from "./loaded";

/** What stands above a column, and in it for each thing. */
export interface Column<T> {
  title: string;
  look?: "number" | "break";
  cell: (item: T) => ReactNode;
}

interface ListingProps<T> {
  label: string;
  items: T[];
  keyOf: (item: T) => string | number;
  /** The first one names the thing. */
  columns: [Column<T>, ...Column<T>[]];
  actions: (item: T) => ReactNode;
}

export function Listing<T>({ label, items, keyOf, columns, actions }: ListingProps<T>) {
  const [name, ...others] = columns;
  return (
    <TableScroll label={label}>
      <table className="table">
        <thead>
          <tr>
            {columns.map(({ title, look }) => (
              <th key={title} scope="col" className={look}>{title}</th>
            ))}
            <td />
          </tr>
        </thead>
        <tbody>
          {items.map((item) => (
            <tr key={keyOf(item)}>
              <th scope="row">{name.cell(item)}</th>
              {others.map(({ title, look, cell }) => (
                <td key={title} className={look}>{cell(item)}</td>
              ))}
              <td>{actions(item)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}

interface ItemsProps<T> {
  query: UseQueryResult<{ items: T[] }>;
  icon: IconName;
  /** What is said where there are none. */
  none: string;
  children: (items: T[]) => ReactNode;
}

/** The items that a query found, or a word where it found none. */
export function Items<T>({ query, icon, none, children }: ItemsProps<T>) {
  return <Loaded query={query}>{({ items }) => (items.length === 0 ? <Empty icon={icon}>{none}</Empty> : children(items))}</Loaded>;
}
