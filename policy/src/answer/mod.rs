//! Reads what a provider answered.
