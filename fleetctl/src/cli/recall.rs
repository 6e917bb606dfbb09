//! Going back, and stopping everything.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use sealift_protocol::api::RollbackTarget;
use sealift_protocol::id::{DeviceId, ModelName, RolloutId, UnixMillis, Version};

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// A model, or a rollout whose devices go back; may be left out where the devices run one model.
    #[arg(value_name = "ROLLOUT|MODEL", value_parser = rollback_of)]
    pub(crate) of: Option<RollbackOf>,
    /// `previous`, or a version.
    #[arg(long, default_value = "previous", value_parser = rollback_target)]
    pub(crate) to: RollbackTarget,
    /// What each device itself ran then: `2026-07-01T03:00:00Z`, or `2h ago`.
    #[arg(long, conflicts_with = "to", value_parser = moment)]
    pub(crate) to_time: Option<UnixMillis>,
    /// Only devices that match this filter.
    #[arg(short = 'l', long = "filter", visible_alias = "where", default_value = "")]
    pub(crate) filter: String,
    /// Only this device; may be given several times.
    #[arg(long)]
    pub(crate) device: Vec<DeviceId>,
    /// Why; kept in the audit log.
    #[arg(long)]
    pub(crate) reason: String,
    /// Only say what would happen.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Wait until the devices' own reports prove it.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds to wait at most.
    #[arg(long, default_value_t = 600)]
    pub(crate) timeout_s: u64,
}

impl Rollback {
    /// Of a rollout that is given up: all its devices, to the version before.
    pub(crate) const fn of_rollout(
        rollout: RolloutId,
        reason: String,
        (dry_run, yes): (bool, bool),
    ) -> Self {
        Self {
            of: Some(RollbackOf::Rollout(rollout)),
            to: RollbackTarget::Previous,
            to_time: None,
            filter: String::new(),
            device: Vec::new(),
            reason,
            dry_run,
            yes,
            wait: false,
            timeout_s: 0,
        }
    }
}

/// What goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RollbackOf {
    Model(ModelName),
    Rollout(RolloutId),
}

fn rollback_of(text: &str) -> Result<RollbackOf, String> {
    if let Ok(rollout) = RolloutId::parse(text) {
        return Ok(RollbackOf::Rollout(rollout));
    }
    let model = ModelName::parse(text).map_err(|error| error.to_string())?;
    Ok(RollbackOf::Model(model))
}

/// A time as people say it.
pub(crate) fn moment(text: &str) -> Result<UnixMillis, String> {
    let now = Timestamp::now();
    let rule = || format!("`{text}` is neither a time such as 2026-07-01T03:00:00Z nor `2h ago`");
    let at = match text.strip_suffix(" ago") {
        Some(span) => {
            let span = span.trim();
            let number = span.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
            let seconds = match span.strip_prefix(number) {
                Some("s") => 1,
                Some("m" | "min") => 60,
                Some("h") => 3_600,
                Some("d") => 86_400,
                _ => return Err(rule()), // no unit that people use here
            };
            let count: i64 = number.trim().parse().map_err(|_| rule())?;
            let ago = count.checked_mul(seconds).filter(|ago| *ago >= 0).ok_or_else(rule)?;
            now.checked_sub(SignedDuration::from_secs(ago)).map_err(|_| rule())?
        }
        None => text.parse().map_err(|_| rule())?,
    };
    if at > now {
        Err(format!("`{text}` is in the future"))
    } else {
        Ok(UnixMillis(at.as_millisecond()))
    }
}

fn rollback_target(text: &str) -> Result<RollbackTarget, String> {
    if text == "previous" {
        return Ok(RollbackTarget::Previous);
    }
    let version = Version::parse(text).map_err(|error| error.to_string())?;
    Ok(RollbackTarget::Version(version))
}

#[derive(Debug, Args)]
pub(crate) struct Halt {
    /// All rollouts: new ones wait as well, going back does not.
    #[arg(long, requires = "reason")]
    pub(crate) all: bool,
    /// Why; kept in the audit log, and shown on every page.
    #[arg(long, requires = "all")]
    pub(crate) reason: Option<String>,
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Wait until all devices that are connected confirm it.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds to wait at most.
    #[arg(long, default_value_t = 60)]
    pub(crate) timeout_s: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// Why; kept in the audit log.
    #[arg(long, default_value = "")]
    pub(crate) reason: String,
    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Wait until all devices that are connected confirm it.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds to wait at most.
    #[arg(long, default_value_t = 60)]
    pub(crate) timeout_s: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_people_say_it() {
        let now = Timestamp::now().as_millisecond();
        let ago = |text: &str| now - moment(text).unwrap().0;
        assert!((7_200_000 - 5_000..=7_200_000).contains(&ago("2h ago")));
        assert!((86_400_000 - 5_000..=86_400_000).contains(&ago("1d ago")));
        assert_eq!(moment("2020-01-01T00:00:00Z"), Ok(UnixMillis(1_577_836_800_000)));
        assert_eq!(moment("2020-01-01T09:00:00+09:00"), Ok(UnixMillis(1_577_836_800_000)));
        for text in
            ["", "yesterday", "2h", "-2h ago", "h ago", "2 fortnights ago", "9999-01-01T00:00:00Z"]
        {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rollout_and_a_model_are_told_apart() {
        assert!(matches!(rollback_of("r-12"), Ok(RollbackOf::Rollout(RolloutId(12)))));
        assert!(matches!(rollback_of("vision/digits"), Ok(RollbackOf::Model(_))));
        assert!(rollback_of("digits").is_err());
    }
}
