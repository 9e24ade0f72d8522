//! Years in seconds.

pub(crate) mod time;
