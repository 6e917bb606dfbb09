//! What a rollout is made of, on the command line.

use std::path::PathBuf;

use clap::Args;
use sealift_protocol::api::Budget;
use sealift_protocol::directive::{MaintenanceWindow, Quiet};
use sealift_protocol::id::{ModelName, Version};

use super::{RolloutAction, model_version};

#[derive(Debug, Args)]
pub(crate) struct RolloutCreate {
    /// `team/name@version`; with `--file` it stands there.
    #[arg(value_parser = model_version, required_unless_present = "file")]
    pub(crate) version: Option<(ModelName, Version)>,
    /// Takes everything from a YAML or JSON file, as the console writes it; `-` for standard input.
    #[arg(
        short = 'f',
        long,
        conflicts_with_all = ["version", "filter", "waves", "max_bad_share", "max_error_share",
            "no_comparison", "min_devices", "start_in", "budget", "window", "tail", "probation_s",
            "watch_s", "lease_s", "latency_rise", "confidence_drop", "class_loss", "steady", "shadow",
            "agreement", "shadow_rows", "shadow_cpu", "shadow_quiet", "shadow_tolerance", "split",
            "max_disagreement"]
    )]
    pub(crate) file: Option<PathBuf>,
    /// Only devices that match this filter.
    #[arg(short = 'l', long, default_value = "")]
    pub(crate) filter: String,
    /// Steps as `count` or `percent%`, each with an optional soak and an optional filter of its own:
    /// `5:30s@site:lab,25%:5m,100%`.
    #[arg(long, default_value = "100%")]
    pub(crate) waves: String,
    /// Largest share of bad devices in a wave, 0 to 1.
    #[arg(long, default_value_t = 0.1)]
    pub(crate) max_bad_share: f64,
    /// Largest share of failing requests in a wave, 0 to 1; not looked at if not given.
    #[arg(long)]
    pub(crate) max_error_share: Option<f64>,
    /// Judge waves by their own limits alone, and not beside devices that were not told yet.
    #[arg(long)]
    pub(crate) no_comparison: bool,
    /// Devices that must be done before a wave is judged.
    #[arg(long)]
    pub(crate) min_devices: Option<u64>,
    /// Tell nobody before so long from now: `2h`, `30m`.
    #[arg(long, default_value = "0s")]
    pub(crate) start_in: String,
    /// At most so many devices with the same value of a label at work at a time: `site=1`, `site=10%`.
    #[arg(long, value_parser = budget)]
    pub(crate) budget: Option<Budget>,
    /// When devices may load the image, in their own local time: `22:00-06:00`, `sat,sun 00:00-24:00`.
    #[arg(long)]
    pub(crate) window: Option<MaintenanceWindow>,
    /// How long devices that were offline may catch up after the last wave: `48h`, `14d`; 7 days if not given.
    #[arg(long)]
    pub(crate) tail: Option<String>,
    /// Only write it down; `rollout start` begins with it.
    #[arg(long)]
    pub(crate) draft: bool,
    /// Seconds that each device serves the image before it keeps it.
    #[arg(long, default_value_t = 600)]
    pub(crate) probation_s: u32,
    /// Seconds after that during which it can still turn back.
    #[arg(long, default_value_t = 86_400)]
    pub(crate) watch_s: u32,
    /// Seconds within which the server must have heard of the trial, or the device turns back by itself; 0 for none.
    #[arg(long, default_value_t = 0)]
    pub(crate) lease_s: u32,
    #[command(flatten)]
    pub(crate) behaviour: BehaviourRules,
    #[command(flatten)]
    pub(crate) shadow: ShadowRules,
    /// Why; kept in the audit log.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
}

/// How far the new image may be from the one before, on the same device at the same hours; beyond, the device turns back by itself.
#[derive(Debug, Args)]
pub(crate) struct BehaviourRules {
    /// By how much longer the engine may take: `25%`.
    #[arg(long, value_parser = permille)]
    pub(crate) latency_rise: Option<u16>,
    /// By how many points of a hundred it may be less confident: `10%`.
    #[arg(long, value_parser = permille)]
    pub(crate) confidence_drop: Option<u16>,
    /// How much of its predictions a class may lose: `60%`.
    #[arg(long, value_parser = permille)]
    pub(crate) class_loss: Option<u16>,
    /// For how long it must be so: `30s`, `10m`; 5 minutes if not given.
    #[arg(long)]
    pub(crate) steady: Option<String>,
}

/// How the new image is tried beside the live one on each device, on the inputs of applications, before it is made live.
#[derive(Debug, Args)]
pub(crate) struct ShadowRules {
    /// For how long at most: `30m`, `1d`. Without it there is no shadow.
    #[arg(long)]
    pub(crate) shadow: Option<String>,
    /// On which share of rows both must say the same: `98%`. Without it they are compared for the whole time, and not judged.
    #[arg(long, value_parser = permille, requires = "shadow")]
    pub(crate) agreement: Option<u16>,
    /// Rows that must have been compared; 500 if not given.
    #[arg(long, requires = "shadow")]
    pub(crate) shadow_rows: Option<u32>,
    /// Share of one core that it may take: `20%`, which it is if not given.
    #[arg(long, value_parser = permille, requires = "shadow")]
    pub(crate) shadow_cpu: Option<u16>,
    /// What follows where fewer rows were seen by then: `pass`, which it is if not given, or `fail`.
    #[arg(long, value_parser = quiet, requires = "shadow")]
    pub(crate) shadow_quiet: Option<Quiet>,
    /// By which part numbers may differ where the model predicts no class: `1%`, which it is if not given.
    #[arg(long, value_parser = permille, requires = "shadow")]
    pub(crate) shadow_tolerance: Option<u16>,
    /// Share of the requests that the new image answers meanwhile instead of the live one: `10%`.
    #[arg(long, value_parser = permille, requires = "shadow")]
    pub(crate) split: Option<u16>,
    /// Halt when devices together disagree on more rows than this: `1%`; what `--agreement` leaves if not given.
    #[arg(long, value_parser = permille, requires = "shadow")]
    pub(crate) max_disagreement: Option<u16>,
}

fn quiet(text: &str) -> Result<Quiet, String> {
    match text {
        "pass" => Ok(Quiet::Pass),
        "fail" => Ok(Quiet::Fail),
        other => Err(format!("`{other}` is neither `pass` nor `fail`")),
    }
}

/// Reads `25%` and `2.5%`.
fn permille(text: &str) -> Result<u16, String> {
    let wrong = || format!("`{text}` is no share; write `25%`");
    let (whole, tenths) = text
        .strip_suffix('%')
        .map(|number| number.split_once('.').unwrap_or((number, "0")))
        .ok_or_else(wrong)?;
    let (whole, tenths): (u16, u16) =
        (whole.parse().map_err(|_| wrong())?, tenths.parse().map_err(|_| wrong())?);
    if tenths > 9 {
        return Err(wrong());
    }
    whole.checked_mul(10).and_then(|permille| permille.checked_add(tenths)).ok_or_else(wrong)
}

#[derive(Debug, Args)]
pub(crate) struct RolloutAbort {
    #[command(flatten)]
    pub(crate) action: RolloutAction,
    /// Take back what it brought, everywhere it did: as `fleetctl rollback ROLLOUT`; needs a reason.
    #[arg(long, requires = "reason")]
    pub(crate) revert: bool,
    /// Only say what going back would do.
    #[arg(long, requires = "revert")]
    pub(crate) dry_run: bool,
    /// Do not ask before going back.
    #[arg(short, long, requires = "revert")]
    pub(crate) yes: bool,
}

/// Reads `site=1` and `site=10%`.
fn budget(text: &str) -> Result<Budget, String> {
    let wrong = || format!("`{text}` is no budget; write `site=1` or `site=10%`");
    let (label, size) = text.split_once('=').ok_or_else(wrong)?;
    let (count, percent) = match size.strip_suffix('%') {
        Some(percent) => (None, Some(percent.parse().map_err(|_| wrong())?)),
        None => (Some(size.parse().map_err(|_| wrong())?), None),
    };
    Ok(Budget { label: label.to_owned(), count, percent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_with_at_most_one_digit_behind_its_point() {
        let read = ["25%", "2.5%", "0%", "150%"].map(|text| permille(text).unwrap());
        assert_eq!(read, [250, 25, 0, 1_500]);
        for text in ["25", "%", "-1%", "2.55%", "2.%", "9999%", "x%"] {
            assert!(permille(text).unwrap_err().contains(text));
        }
    }

    #[test]
    fn a_budget_is_a_count_or_a_share() {
        let of = |text: &str| budget(text).unwrap();
        assert_eq!((of("site=1").count, of("site=10%").percent), (Some(1), Some(10.0)));
        for text in ["site", "site=", "site=x", "site=%"] {
            assert!(budget(text).unwrap_err().contains(text));
        }
    }
}
