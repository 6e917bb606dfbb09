// Terms that are used again and again, to put in and take out with one press.

import { useLocale } from "../../i18n/language";
import { withoutTerm, withTerm } from "../../filter/suggest";

const terms = [
  ["state:unhealthy", "device.state.unhealthy"],
  ["state:offline", "device.state.offline"],
  ["seen:<5m", "devices.seenLately"],
  ["-sim:true", "devices.notSimulated"],
] as const;

export function QuickFilters({ filter, onFilter }: { filter: string; onFilter: (filter: string) => void }) {
  const { say } = useLocale();
  const present = filter.split(/\s+/);
  return (
    <div className="chips" role="group" aria-label={say("filter.quick")}>
      {terms.map(([term, key]) => {
        const isOn = present.includes(term);
        return (
          <button
            key={term}
            type="button"
            className="chip"
            aria-pressed={isOn}
            onClick={() => onFilter(isOn ? withoutTerm(filter, term) : withTerm(filter, term))}
          >
            {say(key)} <code>{term}</code>
          </button>
        );
      })}
    </div>
  );
}
