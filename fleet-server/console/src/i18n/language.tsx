// The language of the page: which, and what it says.

import { createContext, type ReactNode, useContext, useEffect, useMemo, useState } from "react";
import { en, type Key, type Messages } from "./en";
import * as format from "./format";
import { interpolate, type Places, type Values } from "./interpolate";
import { ja } from "./ja";

export type { Language } from "./format";

const STORED_AS = "sealift.language";
const catalogues: Record<format.Language, Messages> = { en, ja };

type Arguments<K extends Key> = [Places<(typeof en)[K]>] extends [never]
  ? []
  : [values: Record<Places<(typeof en)[K]>, string | number>];

/** Says a message; the compiler asks for exactly the places of its English text. */
export type Say = <K extends Key>(key: K, ...values: Arguments<K>) => string;

export interface Locale {
  language: format.Language;
  setLanguage: (language: format.Language) => void;
  say: Say;
  number: (value: number) => string;
  share: (share: number) => string;
  bytes: (bytes: number) => string;
  duration: (seconds: number) => string;
  dateTime: (at: number) => string;
  age: (at: number, now: number) => string;
}

export function localeOf(language: format.Language, setLanguage: Locale["setLanguage"] = () => {}): Locale {
  const number = (value: number) => format.formatNumber(language, value);
  return {
    language,
    setLanguage,
    say: (key, ...values) => interpolate(catalogues[language][key], (values[0] ?? {}) as Values, number),
    number,
    share: (share) => format.formatShare(language, share),
    bytes: (bytes) => format.formatBytes(language, bytes),
    duration: (seconds) => format.formatDuration(language, seconds),
    dateTime: (at) => format.formatDateTime(language, at),
    age: (at, now) => format.formatAge(language, at, now),
  };
}

const LocaleContext = createContext<Locale>(localeOf("en"));

export const useLocale = () => useContext(LocaleContext);

export function LocaleProvider({ children }: { children: ReactNode }) {
  const [language, setLanguage] = useState<format.Language>(preferredLanguage);
  useEffect(() => {
    document.documentElement.lang = language;
    localStorage.setItem(STORED_AS, language);
  }, [language]);
  const locale = useMemo(() => localeOf(language, setLanguage), [language]);
  return <LocaleContext value={locale}>{children}</LocaleContext>;
}

function preferredLanguage(): format.Language {
  const wish = localStorage.getItem(STORED_AS) ?? navigator.language;
  return wish.startsWith("ja") ? "ja" : "en";
}
