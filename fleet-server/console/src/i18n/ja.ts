// What the console says, in Japanese.

import type { Messages } from "./en";
import { chrome } from "./ja/chrome";
import { fleet } from "./ja/fleet";
import { images } from "./ja/images";
import { pictures } from "./ja/pictures";
import { recall } from "./ja/recall";
import { review } from "./ja/review";
import { rollout } from "./ja/rollout";

export const ja: Messages = { ...chrome, ...fleet, ...images, ...pictures, ...recall, ...review, ...rollout };
