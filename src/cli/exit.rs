//! The exit codes: four, and each says who must act.

use std::process::ExitCode;

/// How the process ends. The numbers are part of the contract with scripts and schedulers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// 0: all was done. Nobody must act.
    Done = 0,
    /// 1: the work could not be done. The database, the network or the provider must be cured: it cannot be
    /// reached, a table or column is missing, or rights are.
    CouldNotWork = 1,
    /// 2: wrong use. The command line or the configuration must be changed; nothing was touched.
    WrongUse = 2,
    /// 3: a run was completed, but some connections failed, or a row was `misconfigured` or `rate_limited`.
    CompletedWithTrouble = 3,
}

impl Exit {
    /// The number that the shell sees, 0 to 3.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_contract() {
        let all = [Exit::Done, Exit::CouldNotWork, Exit::WrongUse, Exit::CompletedWithTrouble];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3]);
    }
}
