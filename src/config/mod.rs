//! The configuration: file, variables, flags.

mod source;

pub use source::{Columns, Source, TableName, UserTable};
