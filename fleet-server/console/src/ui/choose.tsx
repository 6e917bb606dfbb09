// Choosing one of several, on React Aria: with arrow keys, typed letters, and screen readers.

import type { ReactNode } from "react";
import {
  Button,
  Label,
  ListBox,
  ListBoxItem,
  Popover,
  Radio,
  RadioGroup,
  Select,
  SelectValue,
} from "react-aria-components";
import { Icon } from "./icon";

export interface Option {
  id: string;
  text: string;
  hint?: ReactNode;
}

interface ChooseProps {
  label: string;
  options: Option[];
  chosen: string;
  onChoose: (id: string) => void;
}

/** One line that opens a list: for many options. */
export function ChooseOne({ label, options, chosen, onChoose }: ChooseProps) {
  return (
    <Select
      className="field"
      value={chosen === "" ? null : chosen}
      onChange={(key) => {
        if (key !== null) onChoose(String(key));
      }}
    >
      <Label>{label}</Label>
      <Button className="select-button">
        <SelectValue className="select-value" />
        <Icon name="arrow" size={12} />
      </Button>
      <Popover className="popover">
        <ListBox className="list-box" items={options}>
          {(option) => (
            <ListBoxItem className="list-item" id={option.id} textValue={option.text}>
              <span>{option.text}</span>
              {option.hint && <span className="muted small">{option.hint}</span>}
            </ListBoxItem>
          )}
        </ListBox>
      </Popover>
    </Select>
  );
}

/** Every option in sight: for few, where each needs a word. */
export function ChooseInSight({ label, options, chosen, onChoose }: ChooseProps) {
  return (
    <RadioGroup className="field radio-group" value={chosen} onChange={onChoose}>
      <Label>{label}</Label>
      <div className="radios">
        {options.map((option) => (
          <Radio key={option.id} className="radio" value={option.id}>
            <span className="radio-dot" aria-hidden="true" />
            <span className="radio-text">
              <span>{option.text}</span>
              {option.hint && <span className="muted small">{option.hint}</span>}
            </span>
          </Radio>
        ))}
      </div>
    </RadioGroup>
  );
}
