// Measured accuracy: a point with its interval for each day and version, and the same in a table.

import { useQuery } from "@tanstack/react-query";
import { reviewAccuracyQuery } from "../../api/queries";
import type { AccuracyView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { Empty, Panel, TableScroll } from "../../ui/basics";
import { Loaded } from "../../ui/loaded";

const HEIGHT = 160;
const STEP = 36;
const MARGIN = 34;

export function Accuracy({ model }: { model: string }) {
  const { say } = useLocale();
  const report = useQuery(reviewAccuracyQuery(model));
  return (
    <Panel title={say("review.accuracy", { model })}>
      <Loaded query={report}>
        {({ items, method, left_out }) =>
          items.length === 0 ? (
            <Empty icon="info">{say("review.noAccuracy")}</Empty>
          ) : (
            <>
              <Plot items={items} />
              <Table items={items} />
              <p className="muted small">{say("review.method", { method, count: left_out })}</p>
            </>
          )
        }
      </Loaded>
    </Panel>
  );
}

const nameOf = ({ group }: AccuracyView) => [group.value, group.version].filter(Boolean).join(" · ");

/** Drawn from 0 to 1, so that a small difference looks small. The table says the same to whoever does not see it. */
function Plot({ items }: { items: AccuracyView[] }) {
  const { share } = useLocale();
  const y = (value: number) => 8 + (1 - value) * (HEIGHT - 24);
  const width = MARGIN + items.length * STEP + 8;
  return (
    <div className="review-plot" aria-hidden="true">
      <svg width={width} height={HEIGHT} viewBox={`0 0 ${width} ${HEIGHT}`}>
        {[0, 0.5, 1].map((value) => (
          <g key={value}>
            <line className="review-grid" x1={MARGIN} x2={width} y1={y(value)} y2={y(value)} />
            <text className="review-tick" x={MARGIN - 4} y={y(value) + 4} textAnchor="end">{share(value)}</text>
          </g>
        ))}
        {items.map((item, place) => {
          const x = MARGIN + STEP * (place + 0.5);
          return (
            <g key={nameOf(item)} className="review-point">
              <line x1={x} x2={x} y1={y(item.low)} y2={y(item.high)} />
              <line x1={x - 5} x2={x + 5} y1={y(item.low)} y2={y(item.low)} />
              <line x1={x - 5} x2={x + 5} y1={y(item.high)} y2={y(item.high)} />
              <circle cx={x} cy={y(item.accuracy)} r={4} />
            </g>
          );
        })}
      </svg>
    </div>
  );
}

function Table({ items }: { items: AccuracyView[] }) {
  const { say, share, number } = useLocale();
  return (
    <TableScroll label={say("review.accuracyTable")}>
      <table className="table">
        <thead>
          <tr>
            <th scope="col">{say("review.of")}</th>
            <th scope="col">{say("review.share")}</th>
            <th scope="col">{say("review.interval")}</th>
            <th scope="col">{say("review.labels")}</th>
          </tr>
        </thead>
        <tbody>
          {items.map((item) => (
            <tr key={nameOf(item)}>
              <th scope="row">{nameOf(item)}</th>
              <td>{share(item.accuracy)}</td>
              <td>{share(item.low)} – {share(item.high)}</td>
              <td>{number(item.labels)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
