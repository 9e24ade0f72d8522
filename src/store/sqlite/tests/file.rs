//! The file itself.
