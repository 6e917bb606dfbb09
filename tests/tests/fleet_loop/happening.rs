//! What happens, to whom and when.

use std::collections::BTreeSet;

use sealift_agent::twin::Work;
use sealift_protocol::api::Action;
use sealift_protocol::digest::Digest;
use sealift_protocol::directive::Trial;
use sealift_protocol::id::{Generation, UnixMillis};
use sealift_protocol::report::Report;

/// What happens at a moment.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    Turn,
    ServerDown,
    ServerUp,
    Operator(Deed),
    /// To a device, unless it was started anew meanwhile.
    Device(usize, Boot, Incident),
    /// A report reaches the server; an acknowledgement goes back.
    Report(usize, u64, Box<Report>),
    Connected(usize, u64),
    Will(usize, u64),
    Poll(usize, Generation),
}

/// Which start of a device.
pub(super) type Boot = u64;

#[derive(Debug, Clone)]
pub(super) enum Incident {
    Trouble,
    LinkUp,
    PowerOn,
    Tick,
    Poll,
    Resend,
    Acknowledged(u64),
    Directive(Vec<u8>),
    Done(Box<Work>),
    Serve(Digest),
    Crash,
    Released,
    /// It follows trust metadata with this deny list.
    Denied(BTreeSet<Digest>),
    /// A signed list of halted rollouts.
    Halts(Vec<u8>),
}

/// What people do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    Order(u8),
    /// With a window, or a lease, or both.
    OrderOn(u8, Trial),
    RollBack {
        bad: u8,
        to: u8,
    },
    Act(Action),
    /// Everything is stopped, and goes on.
    HaltAll,
    ResumeAll,
    /// Put on the deny list.
    RevokeImage(u8),
    RevokeDevice(usize),
    /// A copy of the server is made; it takes the server's place; it is brought ahead of the devices.
    BackUp,
    Restore,
    Recover,
}

/// An event, ordered by time; of the same moment, by when it was thought of.
pub(super) struct Next {
    pub(super) at: UnixMillis,
    pub(super) number: u64,
    pub(super) happening: Happening,
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Next {}
impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
