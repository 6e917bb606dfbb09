// Line drawings on a 16 by 16 grid. They only repeat what a text beside them says.

const paths = {
  overview: "M2.5 2.5h4.5v4.5H2.5zM9 2.5h4.5v4.5H9zM2.5 9h4.5v4.5H2.5zM9 9h4.5v4.5H9z",
  devices: "M4.5 4.5h7v7h-7zM6.5 2v2.5M9.5 2v2.5M6.5 11.5V14M9.5 11.5V14M2 6.5h2.5M2 9.5h2.5M11.5 6.5H14M11.5 9.5H14",
  models: "M8 1.8 13.5 5v6L8 14.2 2.5 11V5zM2.7 5.1 8 8.2l5.3-3.1M8 8.2v5.8",
  rollouts: "M2 8h3M7 8h2.5M11.5 8H14M6 5.5v5M10.5 5.5v5",
  drift: "M1.8 11.5c2.2 0 2.7-7 4.7-7s2.5 7 4.5 7c1.4 0 2-1.7 3.2-1.7M1.8 13.8h12.4",
  alerts: "M8 2a4 4 0 0 0-4 4c0 4-1.5 5-1.5 5h11S12 10 12 6a4 4 0 0 0-4-4zM6.8 13.5a1.3 1.3 0 0 0 2.4 0",
  audit: "M3.5 2h9v12h-9zM6 5.5h4M6 8h4M6 10.5h2.5",
  settings: "M2 4.5h6M11.5 4.5H14M2 11.5h2.5M8 11.5h6M9.75 2.8a1.75 1.75 0 1 0 0 3.5 1.75 1.75 0 0 0 0-3.5zM6.25 9.8a1.75 1.75 0 1 0 0 3.5 1.75 1.75 0 0 0 0-3.5z",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.3 10.3l3.2 3.2",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6zM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M3.4 12.6l.9-.9M11.7 4.3l.9-.9",
  moon: "M13.5 9.5A5.8 5.8 0 0 1 6.5 2.5a5.8 5.8 0 1 0 7 7z",
  language: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM2 8h12M8 2c4 3.6 4 8.4 0 12M8 2c-4 3.6-4 8.4 0 12",
  back: "M6 3.5 2.5 7 6 10.5M2.5 7h7a4 4 0 0 1 0 8H7",
  check: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM5.3 8.2l1.9 1.9 3.5-4",
  warning: "M8 2.3 14.3 13H1.7zM8 6.3v3.2M8 11.3v.2",
  critical: "M5.4 1.8h5.2l3.6 3.6v5.2l-3.6 3.6H5.4l-3.6-3.6V5.4zM8 4.8v4M8 11v.2",
  info: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 7.3v3.5M8 5v.2",
  shield: "M8 1.8 13 3.6v4c0 3.2-2.1 5.4-5 6.6-2.9-1.2-5-3.4-5-6.6v-4zM8 5v3.5M8 10.7v.2",
  offline: "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11z",
  revoked: "M8 2.3a5.7 5.7 0 1 0 0 11.4A5.7 5.7 0 0 0 8 2.3zM4 4l8 8",
  running: "M8 2.5A5.5 5.5 0 1 0 13.5 8M8 5v3.2l2.2 1.3M11 2.5l2.5.3-.4 2.5",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  queued: "M3.5 8h.1M8 8h.1M12.5 8h.1",
  eye: "M1.5 8S4 3.8 8 3.8 14.5 8 14.5 8 12 12.2 8 12.2 1.5 8 1.5 8zM8 6.2a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6z",
  copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
  close: "M4 4l8 8M12 4l-8 8",
  plus: "M8 3v10M3 8h10",
  arrow: "M3 8h10M9.5 4.5 13 8l-3.5 3.5",
  quarantine: "M3 3h10v10H3zM3 3l10 10M13 3 3 13",
  signed: "M8 1.8l1.7 1.3 2.1-.2.6 2 1.7 1.2-.7 2 .7 2-1.7 1.2-.6 2-2.1-.2L8 14.4l-1.7-1.3-2.1.2-.6-2L1.9 10.1l.7-2-.7-2 1.7-1.2.6-2 2.1.2zM5.6 8.1l1.7 1.7 3-3.3",
} as const;

export type IconName = keyof typeof paths;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={paths[name]} />
    </svg>
  );
}
