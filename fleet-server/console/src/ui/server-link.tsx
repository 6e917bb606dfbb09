// A link whose address comes from the server.

import { useRouter } from "@tanstack/react-router";
import type { MouseEvent, ReactNode } from "react";

export function ServerLink({ href, children }: { href: string; children: ReactNode }) {
  const router = useRouter();
  // Anything but a path of this console, such as `javascript:`, is shown as text.
  if (!href.startsWith("/") || href.startsWith("//")) return <span>{children}</span>;
  const follow = (event: MouseEvent) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    router.history.push(href);
  };
  return <a href={href} onClick={follow}>{children}</a>;
}
