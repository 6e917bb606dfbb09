// What a model is asked and answers by the Open Inference Protocol v2: an example to begin with, and what people look at first in an answer.

import type { TensorSpec } from "../../api/types";

/** Elements of an example; somebody who wants more pastes it. */
const EXAMPLE_MAX = 10_000;
/** Classes that are shown of a row, the likeliest first. */
const CLASSES_MAX = 5;
/** Elements that are shown of a row. */
const ELEMENTS_MAX = 8;

export interface AnswerTensor {
  name: string;
  datatype: string;
  shape: number[];
  data?: unknown;
}

export interface Line {
  name: string;
  value: string;
}

/** A question of one row that keeps the contract; none where it would be too long, or the shape says too little. */
export function exampleOf(inputs: TensorSpec[]): string | undefined {
  const tensors = inputs.map(({ name, datatype, shape }) => {
    const lengths = shape.map((length) => (length < 0 ? 1 : length));
    const count = lengths.reduce((product, length) => product * length, 1);
    return { name, datatype, shape: lengths, count };
  });
  if (tensors.some(({ count }) => count > EXAMPLE_MAX)) return undefined;
  const filled = tensors.map(({ count, ...tensor }) => ({ ...tensor, data: new Array(count).fill(zeroOf(tensor.datatype)) }));
  return JSON.stringify({ inputs: filled });
}

function zeroOf(datatype: string): unknown {
  if (datatype === "BYTES") return "";
  return datatype === "BOOL" ? false : 0;
}

/** The question, if it is one object of JSON. */
export function parseQuestion(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The outputs of an answer; nothing where it is none. */
export function outputsOf(answer: unknown): AnswerTensor[] {
  if (typeof answer !== "object" || answer === null || !("outputs" in answer)) return [];
  return Array.isArray(answer.outputs) ? (answer.outputs as AnswerTensor[]) : [];
}

/** What people look at first in the first row of an output: the likeliest classes by their names, or its first elements. */
export function firstRow(tensor: AnswerTensor, spec: TensorSpec | undefined): Line[] {
  const elements = [tensor.data].flat(Number.POSITIVE_INFINITY);
  const columns = spec?.role === "class" || spec?.role === "value" ? 1 : (tensor.shape.at(-1) ?? 1);
  const row = elements.slice(0, Math.max(columns, 1));
  const label = (place: number) => spec?.labels?.[place] ?? String(place);
  if (spec?.role === "probabilities") {
    const ranked = row.map((share, place) => ({ name: label(place), share: Number(share) }));
    ranked.sort((left, right) => right.share - left.share);
    return ranked.slice(0, CLASSES_MAX).map(({ name, share }) => ({ name, value: share.toFixed(4) }));
  }
  if (spec?.role === "class") return row.map((place) => ({ name: String(place), value: label(Number(place)) }));
  const shown = row.slice(0, ELEMENTS_MAX).map((element) => JSON.stringify(element)).join(", ");
  return [{ name: `[${tensor.shape.join(", ")}]`, value: row.length > ELEMENTS_MAX ? `${shown}, …` : shown }];
}
