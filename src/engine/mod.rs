//! The engine: acquires, steps, commits.
