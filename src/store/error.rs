//! What can go wrong with a store.

/// Why a store could not do what was asked. The texts are one line, name the culprit and the remedy, and
/// hold no secret: not the database URL's password, not a bound value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database cannot be reached, refuses us, or went away. May pass.
    #[error("{0}")]
    Unreachable(String),
    /// The database is there and does not let us in: a wrong password, no database of this name. Passes only
    /// when somebody mends it.
    #[error("{0}")]
    NotLetIn(String),
    /// A table, column or right is missing. Cured in the database.
    #[error("{0}")]
    Missing(String),
    /// The mapping cannot work: a column of an impossible type, a role that does not exist. Cured in the
    /// configuration.
    #[error("{0}")]
    Mapping(String),
    /// Perene's own tables were made by a newer Perene.
    #[error("{0}")]
    NewerSchema(String),
    /// The database refused a statement. May pass where it says so (a deadlock, a serialization failure).
    #[error("{text}")]
    Refused {
        /// What was refused, without values.
        text: String,
        /// Whether trying again can help.
        may_pass: bool,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody's help.
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::NotLetIn(_) | Self::Refused { may_pass: true, .. })
    }

    /// Whether the database is away, and may be back in a moment.
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// Whether the configuration, and not the database, must be changed.
    pub const fn is_wrong_use(&self) -> bool {
        matches!(self, Self::Mapping(_))
    }
}
