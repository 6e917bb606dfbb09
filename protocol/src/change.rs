//! Whether a stream of figures has changed, told while it comes: in bounded memory, without looking at it twice.
//!
//! [`Adwin`] keeps a window as long as the stream is steady and says between which means the change is; [`PageHinkley`] takes a few
//! numbers and tells a slow slide. Neither knows what it looks at, nor the time.

mod adwin;
mod page_hinkley;

pub use adwin::{Adwin, Shift};
pub use page_hinkley::{PageHinkley, Slide};
