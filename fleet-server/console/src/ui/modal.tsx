// A dialog over the page. React Aria keeps the focus inside and gives it back.

import type { ReactNode } from "react";
import { Dialog, Heading, Modal, ModalOverlay } from "react-aria-components";
import { useLocale } from "../i18n/language";
import { Icon } from "./icon";

interface DialogBoxProps {
  title: string;
  isDanger?: boolean;
  isWide?: boolean;
  /** While something runs that a stray key must not hide. */
  isKept?: boolean;
  onClose: () => void;
  children: ReactNode;
}

export function DialogBox({ title, isDanger = false, isWide = false, isKept = false, onClose, children }: DialogBoxProps) {
  const { say } = useLocale();
  return (
    <ModalOverlay
      className="overlay"
      isOpen
      isDismissable={!isKept}
      onOpenChange={(isOpen) => {
        if (!isOpen) onClose();
      }}
    >
      <Modal className={`modal ${isWide ? "modal-wide" : ""} ${isDanger ? "modal-danger" : ""}`}>
        <Dialog className="dialog">
          <div className="dialog-head">
            <Heading slot="title">{title}</Heading>
            <button type="button" className="icon-button" aria-label={say("common.close")} onClick={onClose}>
              <Icon name="close" />
            </button>
          </div>
          {children}
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
