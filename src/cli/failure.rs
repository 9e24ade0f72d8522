//! Why a command ended without having done its work.

use super::exit::Exit;
use crate::config::ConfigError;
use crate::engine::RunError;
use crate::store::StoreError;

/// What is said, a line each, and how the process ends.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    lines: Vec<String>,
}

impl Failure {
    pub(super) fn could_not_work(line: impl Into<String>) -> Self {
        Self { exit: Exit::CouldNotWork, lines: vec![line.into()] }
    }

    pub(super) fn wrong_use(line: impl Into<String>) -> Self {
        Self { exit: Exit::WrongUse, lines: vec![line.into()] }
    }

    /// Says it on standard error, whatever the log level is.
    pub(super) fn tell(&self) {
        for line in &self.lines {
            // A character that commands a terminal may have come from a name in the database.
            let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            eprintln!("error: {line}");
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { exit: Exit::WrongUse, lines: error.lines().to_vec() }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = if error.is_wrong_use() { Exit::WrongUse } else { Exit::CouldNotWork };
        Self { exit, lines: vec![error.to_string()] }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::NotReady(lines) => Self { exit: Exit::CouldNotWork, lines },
            RunError::WrongUse(lines) => Self { exit: Exit::WrongUse, lines },
            RunError::Store(error) => error.into(),
        }
    }
}
