//! What the decoder does not say as an error: over some damaged pages it panics, and a program that aborts on a panic cannot say why later.

use std::cell::RefCell;
use std::panic;
use std::path::{Path, PathBuf};

thread_local! {
    /// The file that this thread reads.
    static READING: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// A file whose pages the decoder cannot make sense of.
#[derive(Debug, thiserror::Error)]
#[error("{} is damaged: a page of it is not what the file says", .0.display())]
pub struct Damaged(PathBuf);

impl Damaged {
    /// What to do about it.
    pub const HELP: &'static str =
        "write the file again, or copy it once more from where it came from";
}

/// Has the decoder's panics told by `tell`, which ends the program; panics of everything else stay what they are. To be called once.
pub fn on_damage(tell: fn(&Damaged) -> !) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |told| {
        // On a thread that is ending there is nothing to ask any more.
        match READING.try_with(|reading| reading.borrow().clone()) {
            Ok(Some(file)) => tell(&Damaged(file)),
            Ok(None) | Err(_) => before(told),
        }
    }));
}

/// Reads of a file: should the decoder panic meanwhile, it is over this one.
pub fn reading<T>(file: &Path, read: impl FnOnce() -> T) -> T {
    let before = READING.replace(Some(file.to_owned()));
    let done = read();
    READING.set(before);
    done
}
