//! What the routes share.

use alloc::sync::Arc;
use core::fmt;

use keytally::Timestamp;

use crate::list::List;

/// Where the API is.
pub const PREFIX: &str = "/keys/api/v1";

/// The API of a list.
#[derive(Clone)]
pub struct Api {
    pub(super) list: List,
    /// The URL of the service as people see it, without a slash at the end.
    pub(super) public_url: Arc<str>,
    /// Reads the clock.
    pub(super) clock: fn() -> Timestamp,
}

impl Api {
    /// Returns the API of a list. Links begin with `public_url`.
    pub fn new(list: List, public_url: &str, clock: fn() -> Timestamp) -> Self {
        Self { list, public_url: public_url.trim_end_matches('/').into(), clock }
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("list", &self.list).finish_non_exhaustive()
    }
}
