//! A plan in words: what was lost, what is done about it, and what people have to do.

use std::fmt::Write as _;

use super::{Ahead, Choice, Jump, Plan};

/// Devices that are named one by one.
const NAMED_MAX: usize = 20;

impl Plan {
    /// For people.
    pub(crate) fn in_words(&self) -> String {
        let mut text = String::new();
        let mut line = |words: &str| {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{words}");
        };
        line(&format!(
            "{} of {} devices are ahead of the database",
            self.ahead.len(),
            self.devices
        ));
        for ahead in self.ahead.iter().take(NAMED_MAX) {
            line(&format!("  {}", device(ahead)));
        }
        if self.ahead.len() > NAMED_MAX {
            line(&format!("  and {} more", self.ahead.len() - NAMED_MAX));
        }
        for device in self.implausible.iter().take(NAMED_MAX) {
            line(&format!("  {device} says what nobody can have followed: it is left alone"));
        }
        line(&jump("generations", self.generation));
        line(&jump("timestamp", self.timestamp));
        line(&jump("snapshot", self.snapshot));
        line(&jump("rollouts", self.rollout));
        if self.halts.seen > self.halts.here {
            line(
                "halts        devices obey a list that was lost; what is halted here is signed anew",
            );
        }
        if let Some(audit) = &self.audit {
            let (kept, here) = (audit.kept_rows, audit.rows);
            line(&match audit.lost_from_row {
                Some(row) => format!(
                    "audit log    rows {row} to {kept} are lost: a checkpoint that was kept covers them"
                ),
                None => format!("audit log    {here} rows, all that the kept checkpoint covers"),
            });
        }
        if self.applied {
            line("the server is ahead of its devices now");
        } else {
            line("nothing was changed; the same with `--apply` carries this out");
        }
        for step in self.to_do() {
            line(&format!("to do        {step}"));
        }
        text.trim_end().to_owned()
    }

    /// For the audit log.
    pub(super) fn in_a_line(&self) -> String {
        let what = match self.choice {
            Choice::Adopt => "adopted",
            Choice::Resend => "sent back",
        };
        let mut text = format!(
            "{} of {} devices {what}; generations above {}, timestamp above {}, snapshot above {}",
            self.ahead.len(),
            self.devices,
            self.generation.above,
            self.timestamp.above,
            self.snapshot.above
        );
        let cut = self.audit.as_ref().filter(|audit| audit.lost_from_row.is_some());
        if let Some(audit) = cut {
            let _ = write!(
                text,
                "; audit rows {} to {} are lost, their root {}",
                audit.rows + 1,
                audit.kept_rows,
                audit.kept_root
            );
        }
        text
    }

    /// What only people can do, in this order.
    pub(crate) fn to_do(&self) -> Vec<String> {
        let mut steps = Vec::new();
        if self.root.seen > self.root.here {
            steps.push(format!(
                "hand in the roots {} to {} again: `fleetctl trust submit DIR` of each ceremony since \
                 the backup",
                self.root.here + 1,
                self.root.seen
            ));
        }
        for lost in &self.lost_roles {
            steps.push(format!(
                "{}: devices have version {}, here is {}; `fleetctl trust hand-back` on a machine from \
                 which it was signed",
                lost.role, lost.seen, lost.here
            ));
        }
        for image in &self.missing_images {
            steps.push(format!("push {image} again, with `fleetctl model push`: devices run it"));
        }
        for rollout in &self.paused {
            steps.push(format!("`fleetctl rollout why {rollout}`, then resume or abort it"));
        }
        steps
    }
}

fn jump(what: &str, Jump { here, seen, above }: Jump) -> String {
    format!("{what:<12} {here} here, {seen} seen on devices; the next are above {above}")
}

fn device(Ahead { device, told, followed, desired, serving }: &Ahead) -> String {
    let desired: Vec<_> = desired.iter().map(|(model, at)| format!("{model}@{at}")).collect();
    let serving: Vec<_> =
        serving.iter().map(|(model, image)| format!("{model}@{}", image.version)).collect();
    let or_nothing = |list: Vec<String>| {
        if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
    };
    format!(
        "{device} has followed {followed}, was told {told}; runs {}, the database says {}",
        or_nothing(serving),
        or_nothing(desired)
    )
}
