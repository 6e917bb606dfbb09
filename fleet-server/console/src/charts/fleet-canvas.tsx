// Squares for devices on a canvas: colour and sign for the state. Drawn anew when the stream tells of a change.

import { useNavigate } from "@tanstack/react-router";
import { type MouseEvent, useEffect, useRef, useState } from "react";
import type { DeviceState, DeviceView } from "../api/types";
import { useLocale } from "../i18n/language";
import { liveDevices } from "../live/connection";
import { ANY_KEY } from "../live/overlay";
import { useTheme } from "../theme";

/** Most messages change no state, and nobody sees which half of a second one came in. */
const REDRAW_AFTER_MS = 500;
const CELL_PX = 14;
const GAP_PX = 3;
const PITCH_PX = CELL_PX + GAP_PX;

const fills: Record<DeviceState, string> = {
  online: "--cell-ok",
  unhealthy: "--cell-bad",
  offline: "--cell-idle",
  revoked: "--cell-warn",
};

export function FleetCanvas({ devices, readAt }: { devices: DeviceView[]; readAt: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const navigate = useNavigate();
  const { say } = useLocale();
  const theme = useTheme();
  const [columns, setColumns] = useState(0);
  const [hint, setHint] = useState("");
  const rows = columns > 0 ? Math.ceil(devices.length / columns) : 0;

  useEffect(() => {
    const element = canvas.current?.parentElement;
    if (!element) return;
    const watch = new ResizeObserver(() => setColumns(Math.max(1, Math.floor((element.clientWidth + GAP_PX) / PITCH_PX))));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);

  useEffect(() => {
    let drawn = "";
    let wait: ReturnType<typeof setTimeout> | undefined;
    const draw = () => {
      wait = undefined;
      const now = devices.map((device) => liveDevices.newest(device.id, device, readAt).state);
      const picture = now.join();
      if (!canvas.current || columns === 0 || picture === drawn) return;
      drawn = picture;
      drawCells(canvas.current, now, columns, rows);
    };
    draw();
    const end = liveDevices.subscribe(ANY_KEY, () => {
      wait ??= setTimeout(draw, REDRAW_AFTER_MS);
    });
    return () => {
      end();
      clearTimeout(wait);
    };
    // The theme changes the colours that are read from the style.
  }, [devices, readAt, columns, rows, theme]);

  const deviceAt = (event: MouseEvent) => {
    const column = Math.floor(event.nativeEvent.offsetX / PITCH_PX);
    return column < columns ? devices[Math.floor(event.nativeEvent.offsetY / PITCH_PX) * columns + column] : undefined;
  };
  return (
    <div className="fleet-canvas">
      <canvas
        ref={canvas}
        title={hint}
        onMouseMove={(event) => {
          const device = deviceAt(event);
          const state = device && liveDevices.newest(device.id, device, readAt).state;
          setHint(device && state ? `${device.id} · ${say(`device.state.${state}`)}` : "");
        }}
        onClick={(event) => {
          const device = deviceAt(event);
          if (device) void navigate({ to: "/devices/$device", params: { device: device.id } });
        }}
      />
    </div>
  );
}

function drawCells(canvas: HTMLCanvasElement, states: DeviceState[], columns: number, rows: number): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  const scale = window.devicePixelRatio;
  const [width, height] = [columns * PITCH_PX - GAP_PX, Math.max(1, rows * PITCH_PX - GAP_PX)];
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  context.scale(scale, scale);
  const style = getComputedStyle(canvas);
  for (const [index, state] of states.entries()) {
    const [x, y] = [(index % columns) * PITCH_PX, Math.floor(index / columns) * PITCH_PX];
    context.fillStyle = style.getPropertyValue(fills[state]);
    context.strokeStyle = style.getPropertyValue("--cell-sign");
    drawCell(context, state, x, y);
  }
}

/** Online is filled, unhealthy has a cross, offline is an outline, revoked has a stroke. */
function drawCell(context: CanvasRenderingContext2D, state: DeviceState, x: number, y: number): void {
  context.lineWidth = 2;
  context.beginPath();
  if (state === "offline") {
    context.strokeStyle = context.fillStyle;
    context.roundRect(x + 1, y + 1, CELL_PX - 2, CELL_PX - 2, 2);
    context.stroke();
    return;
  }
  context.roundRect(x, y, CELL_PX, CELL_PX, 3);
  context.fill();
  if (state === "online") return;
  context.beginPath();
  context.moveTo(x + 4, y + 4);
  context.lineTo(x + CELL_PX - 4, y + CELL_PX - 4);
  if (state === "unhealthy") {
    context.moveTo(x + CELL_PX - 4, y + 4);
    context.lineTo(x + 4, y + CELL_PX - 4);
  }
  context.stroke();
}
