// The way back: what, where, what it would do, why, one button, and then proof.

import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { modelsQuery } from "../api/queries";
import type { RollbackResult } from "../api/types";
import { useLocale } from "../i18n/language";
import { DialogBox } from "../ui/modal";
import { Empty } from "../ui/basics";
import { Loaded } from "../ui/loaded";
import { RollbackForm } from "./form";
import { RollbackProgress } from "./progress";
import { type RollbackWish, wishRollback } from "./wish";

export function RollbackDialog({ wish }: { wish: RollbackWish }) {
  const { say } = useLocale();
  const models = useQuery(modelsQuery);
  const [started, setStarted] = useState<RollbackResult>();
  const close = () => wishRollback(undefined);
  return (
    <DialogBox title={say("rollback.title")} isDanger isWide onClose={close}>
      {started ? (
        <RollbackProgress started={started} onClose={close} />
      ) : (
        <Loaded query={models}>
          {({ items }) =>
            items.length === 0 ? (
              <div className="dialog-body"><Empty icon="models">{say("rollback.noModels")}</Empty></div>
            ) : (
              <RollbackForm models={items} wish={wish} onStarted={setStarted} onClose={close} />
            )
          }
        </Loaded>
      )}
    </DialogBox>
  );
}
