//! The command line: one file a command.

pub mod args;
pub mod exit;
