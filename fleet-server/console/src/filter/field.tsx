// The field for filters: suggests terms, waits for a pause in typing, counts what matches, shows what is wrong.

import { useQuery } from "@tanstack/react-query";
import { type KeyboardEvent, useEffect, useId, useRef, useState } from "react";
import { ApiError } from "../api/client";
import { deviceCountQuery } from "../api/queries";
import { useLocale } from "../i18n/language";
import { Icon } from "../ui/icon";
import { useKnown } from "./known";
import { type Suggestion, suggest } from "./suggest";

interface FilterFieldProps {
  label: string;
  hint?: string;
  filter: string;
  onFilter: (filter: string) => void;
}

/** A pause this long ends a word. */
const TYPING_PAUSE_MS = 250;

export function FilterField({ label, hint, filter, onFilter }: FilterFieldProps) {
  const { say } = useLocale();
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  const [text, setText] = useTypedText(filter, onFilter);
  const { options, active, setActive, show, hide } = useSuggestions(input);
  const count = useQuery({ ...deviceCountQuery(filter), retry: false, placeholderData: (before) => before });
  const problem = count.error instanceof ApiError ? count.error : undefined;

  const take = (option: Suggestion) => {
    setText(option.filter);
    requestAnimationFrame(() => {
      input.current?.setSelectionRange(option.caret, option.caret);
      show(option.filter, option.caret);
    });
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const last = options.length - 1;
    if (event.key === "Escape" && options.length > 0) {
      event.stopPropagation();
      hide();
    } else if (event.key === "ArrowDown" && last >= 0) setActive(active < last ? active + 1 : 0);
    else if (event.key === "ArrowUp" && last >= 0) setActive(active > 0 ? active - 1 : last);
    else if (event.key === "Enter" && options[active]) take(options[active]);
    else if (event.key === "Enter") {
      onFilter(text);
      hide();
    } else return;
    event.preventDefault();
  };

  return (
    <div className="field filter-field">
      <label htmlFor={id}>{label}</label>
      <div className="filter-input">
        <Icon name="search" size={14} />
        <input
          id={id}
          ref={input}
          role="combobox"
          aria-expanded={options.length > 0}
          aria-controls={`${id}-list`}
          aria-autocomplete="list"
          aria-activedescendant={options[active] ? `${id}-${active}` : undefined}
          aria-invalid={problem !== undefined}
          aria-describedby={`${id}-said`}
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
          placeholder={say("filter.placeholder")}
          value={text}
          onChange={(event) => {
            setText(event.target.value);
            show(event.target.value, event.target.selectionStart ?? event.target.value.length);
          }}
          onFocus={(event) => show(event.target.value, event.target.selectionStart ?? 0)}
          onBlur={hide}
          onKeyDown={onKeyDown}
        />
        {text !== "" && (
          <button type="button" className="icon-button" aria-label={say("filter.clear")} onClick={() => setText("")}>
            <Icon name="close" size={12} />
          </button>
        )}
        <ul id={`${id}-list`} role="listbox" aria-label={say("filter.suggestions")} className="suggestions" hidden={options.length === 0}>
          {options.map((option, index) => (
            <li
              key={option.term}
              id={`${id}-${index}`}
              role="option"
              aria-selected={index === active}
              onPointerDown={(event) => {
                event.preventDefault();
                take(option);
              }}
            >
              {option.term}
            </li>
          ))}
        </ul>
      </div>
      <p id={`${id}-said`} className={problem ? "said said-bad" : "said muted"} aria-live="polite">
        {problem ? problem.message : count.data === undefined ? "" : say("filter.matches", { count: count.data })}
        {!problem && hint && <span> · {hint}</span>}
      </p>
    </div>
  );
}

/** What is typed, handed on after a pause; what is set from outside replaces it. */
function useTypedText(filter: string, onFilter: (filter: string) => void) {
  const [text, setText] = useState(filter);
  const handedOn = useRef(filter);
  const handOn = useRef(onFilter);
  useEffect(() => {
    handOn.current = onFilter;
  });
  useEffect(() => {
    if (filter === handedOn.current) return;
    handedOn.current = filter;
    setText(filter);
  }, [filter]);
  useEffect(() => {
    const wait = setTimeout(() => {
      if (text === handedOn.current) return;
      handedOn.current = text;
      handOn.current(text);
    }, TYPING_PAUSE_MS);
    return () => clearTimeout(wait);
  }, [text]);
  return [text, setText] as const;
}

function useSuggestions(input: React.RefObject<HTMLInputElement | null>) {
  const known = useKnown();
  const [options, setOptions] = useState<Suggestion[]>([]);
  const [active, setActive] = useState(-1);
  const show = (filter: string, caret: number) => {
    if (document.activeElement !== input.current) return;
    setOptions(suggest(filter, caret, known));
    setActive(-1);
  };
  const hide = () => setOptions([]);
  return { options, active, setActive, show, hide };
}
