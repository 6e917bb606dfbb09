// A tensor of a sample as a picture where it is one, else as its numbers.

import { useEffect, useRef } from "react";
import type { TensorView } from "../../api/types";
import { useLocale } from "../../i18n/language";
import { TableScroll } from "../../ui/basics";
import { imageFileOf, pictureOf, shownNumbers } from "./tensor";

/** A picture is not shown wider than this. */
const WIDTH_MAX = 360;

export function ShownTensor({ tensor }: { tensor: TensorView }) {
  const { say } = useLocale();
  const file = imageFileOf(tensor);
  const picture = file ? undefined : pictureOf(tensor);
  return (
    <figure className="review-tensor">
      <figcaption className="muted small">
        {tensor.name} · {tensor.datatype} {tensor.shape.join(" × ")}
      </figcaption>
      {file || picture ? (
        <Canvas label={say("review.picture", { name: tensor.name })} draw={(canvas) => (file ? drawFile(canvas, file) : picture && drawPixels(canvas, picture))} />
      ) : (
        <Numbers tensor={tensor} />
      )}
    </figure>
  );
}

function Canvas({ label, draw }: { label: string; draw: (canvas: HTMLCanvasElement) => unknown }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (canvas.current) void draw(canvas.current);
  });
  return <canvas ref={canvas} className="review-picture" role="img" aria-label={label} />;
}

function drawPixels(canvas: HTMLCanvasElement, { width, height, pixels }: { width: number; height: number; pixels: Uint8ClampedArray<ArrayBuffer> }): void {
  canvas.width = width;
  canvas.height = height;
  canvas.style.width = `${Math.min(WIDTH_MAX, width * Math.max(1, Math.floor(WIDTH_MAX / width)))}px`;
  canvas.getContext("2d")?.putImageData(new ImageData(pixels, width, height), 0, 0);
}

/** Decoded from memory: the console's policy lets no page load an image from anywhere else than the server. */
async function drawFile(canvas: HTMLCanvasElement, file: Blob): Promise<void> {
  const image = await createImageBitmap(file).catch(() => undefined);
  if (!image) return;
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.style.width = `${Math.min(WIDTH_MAX, image.width)}px`;
  canvas.getContext("2d")?.drawImage(image, 0, 0);
}

function Numbers({ tensor }: { tensor: TensorView }) {
  const { say } = useLocale();
  const numbers = shownNumbers(tensor);
  if (!numbers) return <code className="review-bytes">{tensor.base64.slice(0, 200)}</code>;
  return (
    <TableScroll label={say("review.numbers", { name: tensor.name })}>
      <ol className="review-numbers">
        {numbers.shown.map((number, place) => <li key={place}>{number}</li>)}
        {numbers.left > 0 && <li className="muted">{say("review.left", { count: numbers.left })}</li>}
      </ol>
    </TableScroll>
  );
}
