//! The configuration: file, variables, flags.
