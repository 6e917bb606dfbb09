// What the console says, in English. Every other language has the same keys.

import { chrome } from "./en/chrome";
import { fleet } from "./en/fleet";
import { images } from "./en/images";
import { pictures } from "./en/pictures";
import { recall } from "./en/recall";
import { review } from "./en/review";
import { rollout } from "./en/rollout";

export const en = { ...chrome, ...fleet, ...images, ...pictures, ...recall, ...review, ...rollout } as const;

export type Key = keyof typeof en;

/** A catalogue; one in which a key is missing does not compile. */
export type Messages = Record<Key, string>;
