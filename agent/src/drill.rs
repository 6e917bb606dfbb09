//! What a test may do to a whole agent: end it at a point, as a power loss would, have it hang there, and set its clock. Points are each effect and each
//! write that must last.
//!
//! Compiled with debug assertions only, as the programs of tests are. A release has none of this: there [`pass`] is an empty function,
//! [`wall`] is the system's clock, and no variable is read.

#[cfg(debug_assertions)]
pub(crate) use armed::pass;
#[cfg(debug_assertions)]
pub use armed::wall;
#[cfg(test)]
pub(crate) use armed::watch;

/// The agent is at a point at which a test may end it.
#[cfg(not(debug_assertions))]
pub(crate) const fn pass(_point: &str) {}

/// What tells the agent the time of day.
#[cfg(not(debug_assertions))]
pub fn wall() -> crate::clock::Wall {
    crate::clock::system_time
}

#[cfg(debug_assertions)]
mod armed {
    use std::fs::OpenOptions;
    use std::io::{self, Write as _};
    use std::path::{Path, PathBuf};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use sealift_protocol::id::UnixMillis;

    use crate::clock::{Wall, system_time};

    /// The point that is not survived.
    static LAST: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("SEALIFT_DRILL_LAST").ok()?.parse().ok());

    /// The effect at which the supervisor's loop stops for ever, and the process lives on. Other points may be passed by other threads.
    static HANG: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("SEALIFT_DRILL_HANG").ok()?.parse().ok());

    /// Where a line is written for each point that was passed.
    static POINTS: LazyLock<Option<PathBuf>> = LazyLock::new(|| variable("SEALIFT_DRILL_POINTS"));

    /// A file with the milliseconds by which the wall clock is ahead; it is looked at each time.
    static CLOCK: LazyLock<Option<PathBuf>> = LazyLock::new(|| variable("SEALIFT_DRILL_CLOCK"));

    /// Points that were passed since the process began, and effects among them.
    static PASSED: AtomicU64 = AtomicU64::new(0);
    static EFFECTS: AtomicU64 = AtomicU64::new(0);

    fn variable(name: &str) -> Option<PathBuf> {
        std::env::var_os(name).map(PathBuf::from)
    }

    pub(crate) fn pass(point: &'static str) {
        let passed = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(path) = &*POINTS {
            // Whoever counts the lines sees that one is missing.
            let _ = note(path, point);
        }
        if *LAST == Some(passed) {
            tracing::error!(point, passed, "ended by a test");
            std::process::abort();
        }
        let effects = EFFECTS.fetch_add(u64::from(point == "effect"), Ordering::SeqCst) + 1;
        while point == "effect" && *HANG == Some(effects) {
            std::thread::park();
        }
        #[cfg(test)]
        WATCH.with_borrow_mut(|watch| {
            if let Some(watch) = watch {
                watch(point);
            }
        });
    }

    fn note(path: &Path, point: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(format!("{point}\n").as_bytes())
    }

    /// What tells the agent the time of day: the system's clock, or one that a test has set.
    pub fn wall() -> Wall {
        if CLOCK.is_some() { set_by_test } else { system_time }
    }

    fn set_by_test() -> UnixMillis {
        let text = CLOCK.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        let ahead_ms = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        system_time().plus(ahead_ms)
    }

    #[cfg(test)]
    type Watch = Box<dyn FnMut(&'static str)>;

    #[cfg(test)]
    thread_local! {
        static WATCH: std::cell::RefCell<Option<Watch>> = const { std::cell::RefCell::new(None) };
    }

    /// Has `watch` look at each point that this thread passes from now on.
    #[cfg(test)]
    pub(crate) fn watch(watch: impl FnMut(&'static str) + 'static) {
        WATCH.set(Some(Box::new(watch)));
    }
}
