//! Who may do what: the one table. Decides from values; what is not in it is refused.
//!
//! ```text
//!                viewer auditor operator publisher approver security-admin  (admin: everything)
//! Read             x       x       x         x        x           x
//! Own              x       x       x         x        x           x         own session, own tokens
//! Audit                    x                                      x         whole fleet only
//! Operate                          x                                        roll out, roll back, label, acknowledge
//! Ask                              x                              x         test inference, diagnosis, log tail of a device
//! Halt                             x                              x         stop all rollouts, let them go on; whole fleet only
//! Enrol                            x                              x         tokens with which devices enrol
//! Publish                                    x                              push images, signed metadata
//! Withdraw                                   x                    x         signed lists of what is revoked; step-up
//! Approve                                             x                     what somebody else asked for
//! Revoke                                                          x         devices; step-up
//! Access                                                          x         operators, tokens, sessions; whole fleet only
//! Review                           x                                        see and label what devices keep; whole fleet only
//! Tell                             x         x                              say what predictions should have been; whole fleet only
//! Configure                                                                 channels, rules of alerts, what devices keep; whole fleet only
//! ```
//!
//! Beside its role every operator has a scope: a filter of labels. What needs the whole fleet is refused to those who have one.

use sealift_protocol::api::Role;

/// Something that is permitted or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Permission {
    /// Come in: nobody is known yet.
    Open,
    /// One's own session and tokens.
    Own,
    /// Look at what is in scope.
    Read,
    /// Look at who did what.
    Audit,
    /// Roll out, roll back, label, acknowledge.
    Operate,
    /// Ask a device: a test inference, a diagnosis, the tail of its log.
    Ask,
    /// Stop all rollouts at once, and let them go on.
    Halt,
    /// Let devices in.
    Enrol,
    /// Push images and signed metadata.
    Publish,
    /// Hand in signed metadata that takes something back.
    Withdraw,
    /// Approve or reject what somebody else asked for.
    Approve,
    /// Put a device out for good.
    Revoke,
    /// Operators, their tokens and sessions.
    Access,
    /// See what devices keep of their predictions, with what went into the model, and label it.
    Review,
    /// Say what predictions should have been, by inference id: it shows nothing.
    Tell,
    /// Whom alerts are sent to, and what devices keep for people to look at.
    Configure,
}

use Permission as P;

/// Every route and what it takes. `HEAD` takes what `GET` takes.
pub(crate) const ROUTES: &[(&str, &str, Permission)] = &[
    ("POST", "/api/v1/session", P::Open),
    ("GET", "/api/v1/session/ways", P::Open),
    ("POST", "/api/v1/session/password", P::Open),
    ("GET", "/api/v1/session/oidc", P::Open),
    ("GET", "/api/v1/session/oidc/callback", P::Open),
    ("POST", "/api/v1/session/oidc/device", P::Open),
    ("POST", "/api/v1/session/oidc/device/poll", P::Open),
    ("GET", "/api/v1/session", P::Own),
    ("DELETE", "/api/v1/session", P::Own),
    ("POST", "/api/v1/session/step-up", P::Own),
    // One's own; those of others take `Access`, which the handler asks for.
    ("GET", "/api/v1/sessions", P::Own),
    ("DELETE", "/api/v1/sessions/{id}", P::Own),
    ("GET", "/api/v1/tokens", P::Own),
    ("POST", "/api/v1/tokens", P::Own),
    ("DELETE", "/api/v1/tokens/{id}", P::Own),
    ("GET", "/api/v1/operators", P::Access),
    ("POST", "/api/v1/operators", P::Access),
    ("PATCH", "/api/v1/operators/{name}", P::Access),
    ("GET", "/api/v1/status", P::Read),
    ("GET", "/api/v1/events", P::Read),
    ("GET", "/metrics", P::Read),
    ("GET", "/api/v1/prometheus/targets", P::Read),
    ("GET", "/api/v1/devices", P::Read),
    ("GET", "/api/v1/devices/{id}", P::Read),
    ("GET", "/api/v1/devices/{id}/timeline", P::Read),
    ("PATCH", "/api/v1/devices/{id}/labels", P::Operate),
    ("POST", "/api/v1/devices/{id}/revoke", P::Revoke),
    ("POST", "/api/v1/devices/{id}/forget", P::Revoke),
    ("POST", "/api/v1/devices/{id}/infer", P::Ask),
    ("POST", "/api/v1/devices/{id}/logs", P::Ask),
    ("POST", "/api/v1/devices/{id}/diagnose", P::Ask),
    ("GET", "/api/v1/devices/{id}/batches", P::Ask),
    ("POST", "/api/v1/devices/{id}/batches", P::Ask),
    ("DELETE", "/api/v1/devices/{id}/batches/{name}", P::Ask),
    ("GET", "/api/v1/devices/{id}/batches/{name}/result", P::Ask),
    ("DELETE", "/api/v1/devices/{id}/batches/{name}/result", P::Ask),
    ("GET", "/api/v1/devices/{id}/batches/{name}/file", P::Ask),
    ("GET", "/api/v1/batches", P::Ask),
    ("GET", "/api/v1/enrol-tokens", P::Read),
    ("POST", "/api/v1/enrol-tokens", P::Enrol),
    ("DELETE", "/api/v1/enrol-tokens/{id}", P::Enrol),
    ("GET", "/api/v1/enrol-claims", P::Read),
    ("POST", "/api/v1/enrol-claims", P::Enrol),
    ("DELETE", "/api/v1/enrol-claims/{id}", P::Enrol),
    ("GET", "/api/v1/enrol-requests", P::Read),
    ("POST", "/api/v1/enrol-requests/{id}/approve", P::Enrol),
    ("POST", "/api/v1/enrol-requests/{id}/deny", P::Enrol),
    ("GET", "/api/v1/enrol-serials", P::Read),
    ("POST", "/api/v1/enrol-serials", P::Enrol),
    ("GET", "/api/v1/models", P::Read),
    ("GET", "/api/v1/models/{team}/{name}", P::Read),
    ("GET", "/api/v1/models/{team}/{name}/versions/{version}", P::Read),
    ("GET", "/api/v1/models/{team}/{name}/versions/{version}/baseline", P::Read),
    ("POST", "/api/v1/models/{team}/{name}/versions/{version}/seen", P::Publish),
    ("GET", "/api/v1/rollouts", P::Read),
    ("POST", "/api/v1/rollouts", P::Operate),
    ("POST", "/api/v1/rollouts/plan", P::Operate),
    ("GET", "/api/v1/rollouts/{id}", P::Read),
    ("PUT", "/api/v1/rollouts/{id}", P::Operate),
    ("GET", "/api/v1/rollouts/{id}/why", P::Read),
    ("GET", "/api/v1/rollouts/{id}/forecast", P::Read),
    ("POST", "/api/v1/rollouts/{id}/approve", P::Approve),
    ("POST", "/api/v1/rollouts/{id}/reject", P::Approve),
    ("POST", "/api/v1/rollouts/{id}/cosign", P::Approve),
    ("POST", "/api/v1/rollouts/{id}/{action}", P::Operate),
    ("POST", "/api/v1/rollback", P::Operate),
    ("GET", "/api/v1/halt", P::Read),
    ("POST", "/api/v1/halt", P::Halt),
    ("DELETE", "/api/v1/halt", P::Halt),
    ("GET", "/api/v1/drift", P::Read),
    ("GET", "/api/v1/drift/devices", P::Read),
    ("GET", "/api/v1/drift/series", P::Read),
    ("GET", "/api/v1/drift/history", P::Read),
    ("GET", "/api/v1/drift/histogram", P::Read),
    ("GET", "/api/v1/alerts", P::Read),
    ("POST", "/api/v1/alerts/{id}/acknowledge", P::Operate),
    ("GET", "/api/v1/silences", P::Read),
    ("POST", "/api/v1/silences", P::Operate),
    ("DELETE", "/api/v1/silences/{id}", P::Operate),
    ("GET", "/api/v1/alert-kinds", P::Read),
    ("PUT", "/api/v1/alert-kinds/{kind}", P::Configure),
    ("GET", "/api/v1/alert-rules", P::Read),
    ("POST", "/api/v1/alert-rules", P::Configure),
    ("DELETE", "/api/v1/alert-rules/{name}", P::Configure),
    ("POST", "/api/v1/alert-rules/test", P::Operate),
    ("GET", "/api/v1/channels", P::Configure),
    ("POST", "/api/v1/channels", P::Configure),
    ("DELETE", "/api/v1/channels/{id}", P::Configure),
    ("POST", "/api/v1/channels/{id}/test", P::Configure),
    ("GET", "/api/v1/channels/{id}/deliveries", P::Configure),
    ("POST", "/api/v1/channels/{id}/deliveries/{number}/resend", P::Configure),
    ("GET", "/api/v1/review/policies", P::Read),
    ("PUT", "/api/v1/review/policies/{team}/{name}", P::Configure),
    ("DELETE", "/api/v1/review/policies/{team}/{name}", P::Configure),
    ("GET", "/api/v1/review/queue", P::Review),
    ("GET", "/api/v1/review/samples/{id}", P::Review),
    ("PUT", "/api/v1/review/samples/{id}/label", P::Review),
    ("DELETE", "/api/v1/review/samples/{id}/label", P::Review),
    ("GET", "/api/v1/review/export", P::Review),
    ("GET", "/api/v1/review/accuracy", P::Read),
    ("GET", "/api/v1/review/agreement", P::Read),
    ("POST", "/api/v1/review/retraining", P::Review),
    ("POST", "/api/v1/labels", P::Tell),
    ("GET", "/api/v1/audit", P::Audit),
    ("GET", "/api/v1/audit/checkpoint", P::Audit),
    ("GET", "/api/v1/audit/checkpoints", P::Audit),
    ("GET", "/api/v1/audit/key", P::Audit),
    ("GET", "/api/v1/audit/proof/consistency", P::Audit),
    ("GET", "/api/v1/audit/proof/inclusion", P::Audit),
    ("GET", "/api/v1/audit/rows", P::Audit),
    ("GET", "/api/v1/audit/verify", P::Audit),
    ("GET", "/api/v1/trust/revocations", P::Read),
    ("GET", "/api/v1/trust/roles", P::Read),
    // As for one role.
    ("PUT", "/api/v1/trust/changes", P::Withdraw),
    ("POST", "/api/v1/trust/keys/{role}", P::Configure),
    // Any role but `revocations` takes `Publish` as well, which the handler asks for.
    ("PUT", "/api/v1/trust/roles/{role}", P::Withdraw),
    ("GET", "/tuf/{*name}", P::Read),
    ("GET", "/v2", P::Read),
    ("GET", "/v2/", P::Read),
    ("GET", "/v2/{*path}", P::Read),
    ("POST", "/v2/{*path}", P::Publish),
    ("PUT", "/v2/{*path}", P::Publish),
    ("PATCH", "/v2/{*path}", P::Publish),
    ("DELETE", "/v2/{*path}", P::Publish),
];

/// What the table says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It takes this.
    Takes(Permission),
    /// The path has no such method.
    NoMethod,
    /// The path is not in the table.
    Unlisted,
}

/// Looks a request up by its method and the path of its route, such as `/api/v1/devices/{id}`.
pub(crate) fn look_up(method: &str, route: &str) -> Entry {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut of_path = ROUTES.iter().filter(|(_, path, _)| *path == route).peekable();
    if of_path.peek().is_none() {
        return Entry::Unlisted;
    }
    let found = of_path.find(|(listed, ..)| *listed == method);
    found.map_or(Entry::NoMethod, |&(.., permission)| Entry::Takes(permission))
}

impl Permission {
    /// The roles that have it; admin has every one.
    const fn roles(self) -> &'static [Role] {
        use Role as R;
        match self {
            P::Open | P::Own | P::Read => {
                &[R::Viewer, R::Auditor, R::Operator, R::Publisher, R::Approver, R::SecurityAdmin]
            }
            P::Audit => &[R::Auditor, R::SecurityAdmin],
            P::Operate | P::Review => &[R::Operator],
            P::Tell => &[R::Operator, R::Publisher],
            P::Ask | P::Halt | P::Enrol => &[R::Operator, R::SecurityAdmin],
            P::Publish => &[R::Publisher],
            P::Withdraw => &[R::Publisher, R::SecurityAdmin],
            P::Approve => &[R::Approver],
            P::Revoke | P::Access => &[R::SecurityAdmin],
            P::Configure => &[],
        }
    }

    /// Whether `role` has it.
    pub(crate) fn is_of(self, role: Role) -> bool {
        role == Role::Admin || self.roles().contains(&role)
    }

    /// Whether it is about more than devices: nobody with a scope has it.
    pub(crate) const fn takes_whole_fleet(self) -> bool {
        match self {
            P::Audit
            | P::Halt
            | P::Publish
            | P::Withdraw
            | P::Access
            | P::Review
            | P::Tell
            | P::Configure => true,
            P::Open
            | P::Own
            | P::Read
            | P::Operate
            | P::Ask
            | P::Enrol
            | P::Approve
            | P::Revoke => false,
        }
    }

    /// Whether a person must have shown within minutes that it is still them.
    pub(crate) const fn takes_step_up(self) -> bool {
        match self {
            P::Revoke => true,
            P::Open
            | P::Own
            | P::Read
            | P::Audit
            | P::Operate
            | P::Ask
            | P::Halt
            | P::Enrol
            | P::Publish
            | P::Withdraw
            | P::Approve
            | P::Access
            | P::Review
            | P::Tell
            | P::Configure => false,
        }
    }

    /// What whoever lacks it is told.
    pub(crate) const fn lacking(self) -> &'static str {
        match self {
            P::Open | P::Own | P::Read => "this needs a role",
            P::Audit => "this needs the role auditor, security-admin or admin",
            P::Operate | P::Review => "this needs the role operator or admin",
            P::Tell => "this needs the role operator, publisher or admin",
            P::Ask | P::Halt | P::Enrol => "this needs the role operator, security-admin or admin",
            P::Publish => "this needs the role publisher or admin",
            P::Withdraw => "this needs the role publisher, security-admin or admin",
            P::Approve => "this needs the role approver or admin",
            P::Revoke | P::Access => "this needs the role security-admin or admin",
            P::Configure => "this needs the role admin",
        }
    }
}

/// Whether `giver` may give `role`: only an admin makes admins.
pub(crate) fn may_give(giver: Role, role: Role) -> bool {
    giver == Role::Admin || (giver == Role::SecurityAdmin && role != Role::Admin)
}

/// Whether a token of `role` may be made by somebody of role `maker` for themselves: what they are, or less.
pub(crate) fn is_no_more_than(role: Role, maker: Role) -> bool {
    maker == Role::Admin || role == maker || role == Role::Viewer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_is_listed_twice() {
        for (index, (method, path, _)) in ROUTES.iter().enumerate() {
            let again = ROUTES.iter().skip(index + 1);
            let mut again = again.filter(|(other, at, _)| other == method && at == path);
            assert_eq!(again.next(), None, "{method} {path}");
        }
    }

    #[test]
    fn what_is_not_listed_is_not_permitted() {
        assert_eq!(look_up("GET", "/api/v1/nothing"), Entry::Unlisted);
        assert_eq!(look_up("TRACE", "/api/v1/devices"), Entry::NoMethod);
        assert_eq!(look_up("HEAD", "/api/v1/devices"), Entry::Takes(P::Read));
    }

    #[test]
    fn the_table_in_the_head_of_the_file_is_what_is_decided() {
        let head = include_str!("permission.rs");
        let columns = [
            Role::Viewer,
            Role::Auditor,
            Role::Operator,
            Role::Publisher,
            Role::Approver,
            Role::SecurityAdmin,
        ];
        let header = head.lines().find(|line| line.contains("viewer auditor")).unwrap();
        let names = ["viewer", "auditor", "operator", "publisher", "approver", "security-admin"];
        let starts = names.map(|name| header.find(name).unwrap());
        let mut rows = 0;
        for permission in [
            P::Read,
            P::Own,
            P::Audit,
            P::Operate,
            P::Ask,
            P::Halt,
            P::Enrol,
            P::Publish,
            P::Withdraw,
            P::Approve,
            P::Revoke,
            P::Access,
            P::Review,
            P::Tell,
            P::Configure,
        ] {
            let word = format!("//! {permission:?} ");
            let line = head.lines().find(|line| line.starts_with(&word)).unwrap();
            for ((role, start), name) in columns.into_iter().zip(starts).zip(names) {
                let cell = line.get(start..(start + name.len()).min(line.len())).unwrap_or("");
                assert_eq!(cell.trim() == "x", permission.is_of(role), "{permission:?} {role:?}");
            }
            assert!(permission.is_of(Role::Admin));
            rows += 1;
        }
        assert_eq!(rows, 15);
    }

    #[test]
    fn nobody_gives_more_than_they_have() {
        assert!(may_give(Role::Admin, Role::Admin) && may_give(Role::SecurityAdmin, Role::Auditor));
        assert!(
            !may_give(Role::SecurityAdmin, Role::Admin) && !may_give(Role::Operator, Role::Viewer)
        );
        assert!(is_no_more_than(Role::Viewer, Role::Operator));
        assert!(!is_no_more_than(Role::Publisher, Role::Operator));
    }
}
