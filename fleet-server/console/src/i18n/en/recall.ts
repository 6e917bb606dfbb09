// Stopping everything, in English.

export const recall = {
  "halt.open": "Halt all rollouts",
  "halt.banner": "All rollouts are halted.",
  "halt.by": "by {by}",
  "halt.confirmed": "{confirmed} devices confirm it, {unconfirmed} not yet, {offline} offline",
  "halt.resume": "Resume…",
  "halt.reason": "Why",
  "halt.halt.title": "Halt all rollouts",
  "halt.halt.means":
    "No device begins or goes on with a new image until somebody resumes. What serves goes on serving. Rolling back stays possible.",
  "halt.halt.button": "Halt all rollouts",
  "halt.resume.title": "Let all rollouts go on",
  "halt.resume.means": "Every device goes on from where it was stopped; downloads keep what they have. Rollouts that were paused stay paused.",
  "halt.resume.button": "Resume",
  "halt.device": "Waits: all rollouts are halted. {reason}",
  "rollback.then": "What each device ran then",
  "rollback.thenHint": "at a time that you choose",
  "rollback.time": "Date and time",
  "rollback.devices": "Only these devices",
  "rollback.devicesHint": "ids with spaces between; empty for all of the above",
  "rollback.step": "{count} to version {version}",
  "rollback.penalised": "{count} failed that version before and are offered it again",
  "rollback.quarantinesHere": "Quarantines {versions} for these devices; others keep it",
  "rollback.untouched": "{count} {count:device stays|devices stay} as they are",
  "rollback.untouchedMore": "and {count} more",
  "rollback.missing.time": "Choose a date and a time.",
} as const;
