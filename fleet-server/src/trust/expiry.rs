//! What of the trust metadata needs a person: roles that have to be signed again, a director that nobody obeys; and what to run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealift_protocol::api::AttentionItem;
use sealift_protocol::id::UnixMillis;
use sealift_protocol::tuf::repository::{Lifetimes, Repository};
use sealift_protocol::tuf::{REVOCATIONS_ROLE, RUNTIME_ROLE};

use super::TrustError;
use super::images::{Delegated, PUBLISHER_PREFIX, delegated_names};

/// A role is near its expiry in the last sixth of its life: two months for the root, two weeks for a publisher.
const NEAR_SHARE: i64 = 6;
/// In the last days it is urgent: a ceremony takes two or three people and a stick.
const URGENT_MS: i64 = 3 * DAY_MS;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// A role whose holders are people, and when what they signed expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// Its name.
    pub(crate) role: String,
    /// When.
    pub(crate) at: UnixMillis,
    /// How many of its holders must sign.
    threshold: u32,
}

/// What was seen when the metadata were last looked at; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expiries(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    roles: Vec<Expiry>,
    is_undirected: bool,
}

impl Expiries {
    /// Every role, in the order of the metadata.
    pub(crate) fn all(&self) -> Vec<Expiry> {
        self.seen().roles.clone()
    }

    /// What needs a person now.
    pub(crate) fn attention(&self, now: UnixMillis) -> Vec<AttentionItem> {
        let seen = self.seen();
        let undirected = seen.is_undirected.then(undirected);
        let near = seen.roles.iter().filter_map(|expiry| expiry.attention(now));
        undirected.into_iter().chain(near).collect()
    }

    /// Notes whether devices obey the server's director.
    pub(super) fn note_director(&self, is_obeyed: bool) {
        self.seen().is_undirected = !is_obeyed;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Each part is replaced as a whole, so a panic elsewhere leaves it usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the metadata.
    pub(super) fn note(&self, repository: &Repository) -> Result<(), TrustError> {
        let roles = &repository.root().roles;
        let expiry = |role: &str, at, threshold| Expiry { role: role.to_owned(), at, threshold };
        let mut expiries = vec![
            expiry("root", repository.root().expires, roles.root.threshold.get()),
            expiry("targets", repository.targets().expires, roles.targets.threshold.get()),
        ];
        let delegations = repository.targets().delegations.as_ref();
        for name in delegated_names(repository) {
            if let Some(Delegated { targets, .. }) = Delegated::read(repository, &name)? {
                let role = delegations.and_then(|delegations| delegations.role(&name));
                let threshold = role.map_or(1, |role| role.keys.threshold.get());
                expiries.push(expiry(&name, targets.expires, threshold));
            }
        }
        self.seen().roles = expiries;
        Ok(())
    }
}

fn undirected() -> AttentionItem {
    AttentionItem {
        severity: "critical".to_owned(),
        title: "devices obey none of this server's director keys".to_owned(),
        detail: "run `fleetctl key rotate director --stage DIR`; 2 holders run `fleetctl trust sign \
                 DIR --key KEY.pem`; then `fleetctl trust submit DIR`. After a restore, put back the \
                 newest `keys` folder instead"
            .to_owned(),
        href: "/settings".to_owned(),
    }
}

impl Expiry {
    fn life_ms(&self) -> i64 {
        let lives = Lifetimes::ONLINE;
        match self.role.as_str() {
            "root" => lives.root_ms,
            "targets" => lives.targets_ms,
            REVOCATIONS_ROLE => lives.revocations_ms,
            RUNTIME_ROLE => lives.runtime_ms,
            _ => lives.publisher_ms, // all others are teams
        }
    }

    fn attention(&self, now: UnixMillis) -> Option<AttentionItem> {
        let left_ms = self.at.since(now);
        if left_ms > self.life_ms() / NEAR_SHARE {
            return None;
        }
        let severity = if left_ms <= URGENT_MS { "critical" } else { "warning" };
        let title = if left_ms > 0 {
            format!("signatures of {} expire in {} day(s)", self.role, left_ms / DAY_MS)
        } else {
            format!("signatures of {} have expired: devices take no change", self.role)
        };
        Some(AttentionItem {
            severity: severity.to_owned(),
            title,
            detail: self.what_to_do(),
            href: "/settings".to_owned(),
        })
    }

    /// The commands, for whoever reads it at night.
    fn what_to_do(&self) -> String {
        let role = self.role.strip_prefix(PUBLISHER_PREFIX);
        let role = role.map_or_else(|| self.role.clone(), |team| format!("publisher:{team}"));
        if self.threshold == 1 {
            return format!("its holder runs `fleetctl trust renew {role} --key KEY.pem`");
        }
        format!(
            "run `fleetctl trust renew {role} --stage DIR`; {} holders run `fleetctl trust sign DIR \
             --key KEY.pem`, one after the other; then `fleetctl trust submit DIR`",
            self.threshold
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(role: &str, threshold: u32) -> Expiry {
        Expiry { role: role.to_owned(), at: UnixMillis(1_000 * DAY_MS), threshold }
    }

    fn seen(expiry: &Expiry, days_left: i64) -> Option<(String, String)> {
        let item = expiry.attention(UnixMillis((1_000 - days_left) * DAY_MS))?;
        Some((item.severity, item.title))
    }

    #[test]
    fn a_role_is_a_finding_in_the_last_sixth_of_its_life_and_urgent_at_its_end() {
        let root = of("root", 2);
        assert_eq!(seen(&root, 61), None);
        let (severity, title) = seen(&root, 60).unwrap();
        assert_eq!((severity.as_str(), title.contains("60 day")), ("warning", true));
        assert_eq!(seen(&root, 3).unwrap().0, "critical");
        assert!(seen(&root, -1).unwrap().1.contains("have expired"));
        assert_eq!(seen(&of("publisher-vision", 1), 16), None);
        assert!(seen(&of("publisher-vision", 1), 15).is_some());
    }

    #[test]
    fn a_finding_says_what_to_run() {
        let publisher = of("publisher-vision", 1).attention(UnixMillis(999 * DAY_MS)).unwrap();
        assert!(publisher.detail.contains("fleetctl trust renew publisher:vision --key"));
        let root = of("root", 2).attention(UnixMillis(999 * DAY_MS)).unwrap();
        for command in ["renew root --stage", "2 holders", "trust sign", "trust submit"] {
            assert!(root.detail.contains(command), "{}", root.detail);
        }
    }
}
