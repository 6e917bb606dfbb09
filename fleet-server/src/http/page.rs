//! Lists come in pages, each naming where the next one starts.

use sealift_protocol::api::Page;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::limits::{PAGE_DEFAULT, PAGE_MAX};

/// `?limit=&cursor=`.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// Entries on the page; 100 if not given, at most 1,000.
    #[serde(default)]
    pub(crate) limit: Option<u32>,
    /// Where the page starts: `next_cursor` of the page before.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
}

impl PageQuery {
    /// How many entries are wanted.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX)
    }

    /// The cursor as a number; none where it is none, so that a page starts from the begin.
    pub(crate) fn number(&self) -> Option<u64> {
        self.cursor.as_deref().and_then(|cursor| cursor.parse().ok())
    }
}

/// A page; the next one starts after the last entry, if this one is full.
pub(crate) fn page<T>(
    items: Vec<T>,
    total: u64,
    limit: u32,
    cursor: impl Fn(&T) -> String,
) -> Page<T> {
    let is_full = u32::try_from(items.len()).is_ok_and(|length| length == limit);
    let next_cursor = items.last().filter(|_| is_full).map(cursor);
    Page { items, total, next_cursor }
}
