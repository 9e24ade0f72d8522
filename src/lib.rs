//! Perene keeps every Instagram connection of a SaaS alive.
//!
//! It reads the table in which an app already keeps its customers' tokens, refreshes each token before it
//! dies, and tells the customer in time when only the customer can help. What it decides stands in the
//! package `perene-policy`; this package is what touches the world: stores, providers, mail, the command line.

pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
mod failpoint;
pub mod journal;
pub mod notify;
pub mod provider;
pub mod simulate;
pub mod store;
pub mod telemetry;
