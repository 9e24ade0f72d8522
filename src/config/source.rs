//! `[[connections]]`: which tables hold tokens, and which column is which.

use std::fmt;

/// The name of the provider that reads the grant from the token's prefix.
pub const META: &str = "meta";

/// One mapped table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The table of connections. No two sources have the same.
    pub table: TableName,
    /// `meta`, or the name of a `[providers.NAME]` table.
    pub provider: String,
    /// Its columns.
    pub columns: Columns,
    /// The table of users. `None` (`user = ""`): nobody can be flagged or mailed.
    pub user: Option<UserTable>,
}

/// A table, by names that are quoted as identifiers and never empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema, where one was given.
    pub schema: Option<String>,
    /// The table.
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// The columns of a source. `None`: there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The primary key.
    pub id: String,
    /// The user's key. `None` only where there is no table of users.
    pub user_id: Option<String>,
    /// The access token.
    pub access_token: String,
    /// The refresh token. By default `None` for `meta`, `refresh_token` for others.
    pub refresh_token: Option<String>,
    /// When the access token dies.
    pub token_expires_at: String,
    /// When it was last refreshed.
    pub token_refreshed_at: Option<String>,
    /// How many runs have failed in a row.
    pub refresh_attempts: Option<String>,
    /// What the last failure was.
    pub last_refresh_error: Option<String>,
}

/// The table of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserTable {
    /// The table.
    pub table: TableName,
    /// Its primary key.
    pub id: String,
    /// The mail address.
    pub email: String,
    /// The name that letters greet.
    pub username: Option<String>,
    /// The flag behind the banner.
    pub show_token_warning: Option<String>,
}

impl Default for Source {
    fn default() -> Self {
        let own = |name: &str| Some(name.to_owned());
        Self {
            table: TableName { schema: None, name: "instagram_connections".to_owned() },
            provider: META.to_owned(),
            columns: Columns {
                id: "id".to_owned(),
                user_id: own("user_id"),
                access_token: "access_token".to_owned(),
                refresh_token: None,
                token_expires_at: "token_expires_at".to_owned(),
                token_refreshed_at: own("token_refreshed_at"),
                refresh_attempts: own("refresh_attempts"),
                last_refresh_error: own("last_refresh_error"),
            },
            user: Some(UserTable {
                table: TableName { schema: None, name: "users".to_owned() },
                id: "id".to_owned(),
                email: "email".to_owned(),
                username: own("username"),
                show_token_warning: own("show_token_warning"),
            }),
        }
    }
}
