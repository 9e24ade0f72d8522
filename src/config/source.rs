//! A source: one mapped table, which columns hold what, and which provider speaks for it.

/// A table's name; `schema` and `name` are taken literally and quoted as identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// The schema, where one is named.
    pub schema: Option<String>,
    /// The table.
    pub name: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// One mapped table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The table that holds the connections.
    pub table: TableName,
    /// `meta`, or the name of a configured provider.
    pub provider: String,
    /// Which columns hold what.
    pub columns: Columns,
    /// The table of the users to whom connections belong.
    pub user: Option<UserTable>,
}

/// The columns of a connection's row; `None` where the table has no such column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The key.
    pub id: String,
    /// The user's key.
    pub user_id: Option<String>,
    /// The access token.
    pub access_token: String,
    /// The refresh token, for providers that give one.
    pub refresh_token: Option<String>,
    /// When the access token expires.
    pub token_expires_at: String,
    /// When it was last refreshed.
    pub token_refreshed_at: Option<String>,
    /// Failed runs in a row.
    pub refresh_attempts: Option<String>,
    /// What the last failure said.
    pub last_refresh_error: Option<String>,
}

/// The columns of a user's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserTable {
    /// The table that holds the users.
    pub table: TableName,
    /// The key.
    pub id: String,
    /// The address.
    pub email: String,
    /// The name by which mails greet.
    pub username: Option<String>,
    /// The banner flag.
    pub show_token_warning: Option<String>,
}

impl Default for Source {
    /// The mission's own tables: `instagram_connections` and `users`.
    fn default() -> Self {
        let name = |name: &str| name.to_owned();
        Self {
            table: TableName { schema: None, name: name("instagram_connections") },
            provider: name("meta"),
            columns: Columns {
                id: name("id"),
                user_id: Some(name("user_id")),
                access_token: name("access_token"),
                refresh_token: None,
                token_expires_at: name("token_expires_at"),
                token_refreshed_at: Some(name("token_refreshed_at")),
                refresh_attempts: Some(name("refresh_attempts")),
                last_refresh_error: Some(name("last_refresh_error")),
            },
            user: Some(UserTable {
                table: TableName { schema: None, name: name("users") },
                id: name("id"),
                email: name("email"),
                username: Some(name("username")),
                show_token_warning: Some(name("show_token_warning")),
            }),
        }
    }
}
