// What a tensor of a sample shows: numbers, or a picture.

import type { TensorView } from "../../api/types";

/** Numbers that a table shows; more tell nobody anything. */
const NUMBERS_MAX = 256;
/** A side shorter than this is a row of numbers rather than a picture. */
const SIDE_MIN = 8;

export interface Picture {
  width: number;
  height: number;
  /** Four bytes a pixel, as a canvas takes them. */
  pixels: Uint8ClampedArray<ArrayBuffer>;
}

export function bytesOf({ base64 }: TensorView): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** The elements as numbers; none for texts and bytes. */
export function numbersOf(tensor: TensorView): number[] | undefined {
  const { buffer } = bytesOf(tensor);
  const view = new DataView(buffer);
  const read = (size: number, at: (place: number) => number) =>
    Array.from({ length: Math.floor(buffer.byteLength / size) }, (_, place) => at(place * size));
  switch (tensor.datatype) {
    case "FP32": return read(4, (place) => view.getFloat32(place, true));
    case "FP64": return read(8, (place) => view.getFloat64(place, true));
    case "UINT8": case "BOOL": return read(1, (place) => view.getUint8(place));
    case "INT8": return read(1, (place) => view.getInt8(place));
    case "UINT16": return read(2, (place) => view.getUint16(place, true));
    case "INT16": return read(2, (place) => view.getInt16(place, true));
    case "UINT32": return read(4, (place) => view.getUint32(place, true));
    case "INT32": return read(4, (place) => view.getInt32(place, true));
    case "INT64": return read(8, (place) => Number(view.getBigInt64(place, true)));
    case "UINT64": return read(8, (place) => Number(view.getBigUint64(place, true)));
    default: return undefined;
  }
}

/** The first numbers, shortened for people. */
export function shownNumbers(tensor: TensorView): { shown: string[]; left: number } | undefined {
  const numbers = numbersOf(tensor);
  if (!numbers) return undefined;
  const shown = numbers.slice(0, NUMBERS_MAX).map((number) => String(Number(number.toPrecision(4))));
  return { shown, left: numbers.length - shown.length };
}

/** A file of an image among the bytes, behind its length. */
export function imageFileOf(tensor: TensorView): Blob | undefined {
  if (tensor.datatype !== "BYTES") return undefined;
  const file = bytesOf(tensor).slice(4);
  const begins = (...bytes: number[]) => bytes.every((byte, place) => file[place] === byte);
  if (begins(0x89, 0x50, 0x4e, 0x47)) return new Blob([file], { type: "image/png" });
  return begins(0xff, 0xd8) ? new Blob([file], { type: "image/jpeg" }) : undefined;
}

/** A picture out of an array of pixels: its channels first or last, grey or in colours, stretched from its darkest to its brightest. */
export function pictureOf(tensor: TensorView): Picture | undefined {
  const sides = tensor.shape.filter((side, place) => !(place === 0 && side === 1));
  const layout = layoutOf(sides);
  const numbers = layout && numbersOf(tensor);
  if (!layout || numbers?.length !== layout.width * layout.height * layout.channels) return undefined;
  const { width, height, channels, isChannelsFirst } = layout;
  const finite = numbers.filter(Number.isFinite);
  const low = finite.reduce((least, number) => Math.min(least, number), Number.POSITIVE_INFINITY);
  const high = finite.reduce((most, number) => Math.max(most, number), Number.NEGATIVE_INFINITY);
  const shade = (number: number) => (high > low ? ((number - low) / (high - low)) * 255 : 0);
  const pixels = new Uint8ClampedArray(width * height * 4);
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    for (let colour = 0; colour < 3; colour += 1) {
      const channel = channels === 1 ? 0 : colour;
      const place = isChannelsFirst ? channel * width * height + pixel : pixel * channels + channel;
      pixels[pixel * 4 + colour] = shade(numbers[place] ?? 0);
    }
    pixels[pixel * 4 + 3] = 255;
  }
  return { width, height, pixels };
}

function layoutOf(sides: number[]) {
  const isSide = (side: number | undefined): side is number => side !== undefined && side >= SIDE_MIN;
  const isChannels = (side: number | undefined) => side === 1 || side === 3;
  const [first, second, third] = sides;
  if (sides.length === 2 && isSide(first) && isSide(second)) return { height: first, width: second, channels: 1, isChannelsFirst: true };
  if (sides.length !== 3 || first === undefined || third === undefined || !isSide(second)) return undefined;
  if (isChannels(first) && isSide(third)) return { channels: first, height: second, width: third, isChannelsFirst: true };
  if (isChannels(third) && isSide(first)) return { channels: third, height: first, width: second, isChannelsFirst: false };
  return undefined;
}
