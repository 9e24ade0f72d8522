//! The app's rows, and the app's side of the store: what the app does to its own tables at any time.

use jiff::Timestamp;
use perene_policy::Secret;

use super::MemoryStore;
use super::key::Key;

/// A row of the app's table of connections. Columns that a source does not map are there, unread.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppRow {
    /// The key.
    pub id: String,
    /// The user's key.
    pub user_id: Option<String>,
    /// The access token.
    pub token: Option<Secret>,
    /// The refresh token.
    pub refresh_token: Option<Secret>,
    /// When the token expires; kept to the microsecond.
    pub expires_at: Option<Timestamp>,
    /// When it was last refreshed; kept to the microsecond.
    pub refreshed_at: Option<Timestamp>,
    /// How many runs have failed in a row.
    pub attempts: Option<i64>,
    /// What the last failure was.
    pub error: Option<String>,
}

/// A row of the app's table of users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserRow {
    /// The key.
    pub id: String,
    /// The address.
    pub email: Option<String>,
    /// The name.
    pub username: Option<String>,
    /// The flag behind the banner.
    pub flag: bool,
}

impl AppRow {
    /// A row with a token, as the app inserts it after the customer's login.
    pub fn new(id: impl Into<String>, user_id: impl Into<String>, token: &str, expires_at: Option<Timestamp>) -> Self {
        Self {
            id: id.into(),
            user_id: Some(user_id.into()),
            token: Some(Secret::new(token)),
            expires_at,
            attempts: Some(0),
            ..Self::default()
        }
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.as_ref().is_some_and(|token| !token.expose().is_empty())
    }

    pub(super) fn cut_to_microseconds(mut self) -> Self {
        for at in [&mut self.expires_at, &mut self.refreshed_at] {
            *at = at.map(floor);
        }
        self
    }
}

/// An instant cut to the microsecond, as databases keep it.
pub(super) fn floor(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_nanosecond().div_euclid(1000).try_into().unwrap_or(i64::MAX)).unwrap_or(at)
}

impl MemoryStore {
    /// The app inserts a connection, or overwrites it.
    pub fn insert_connection(&self, source: usize, row: AppRow) {
        let mut state = self.lock();
        state.tables[self.mapped(source).table].insert(row);
    }

    /// The app writes a row of its own. Returns whether it is there.
    pub fn change_connection(&self, source: usize, id: &str, change: impl FnOnce(&mut AppRow)) -> bool {
        let mut state = self.lock();
        state.tables[self.mapped(source).table].change(&Key::of(id), change)
    }

    /// The customer has logged in anew: the app stores another token and its expiry, and nothing else.
    pub fn replace_token(&self, source: usize, id: &str, token: &str, expires_at: Option<Timestamp>) -> bool {
        self.change_connection(source, id, |row| {
            row.token = Some(Secret::new(token));
            row.expires_at = expires_at;
        })
    }

    /// The app deletes a connection. Returns whether it was there.
    pub fn delete_connection(&self, source: usize, id: &str) -> bool {
        let mut state = self.lock();
        state.tables[self.mapped(source).table].remove(&Key::of(id))
    }

    /// What the app sees of one of its connections.
    pub fn row(&self, source: usize, id: &str) -> Option<AppRow> {
        let state = self.lock();
        state.tables[self.mapped(source).table].row(&Key::of(id)).cloned()
    }

    /// The app inserts a user of this source, or overwrites it. Does nothing where the source has no users.
    pub fn insert_user(&self, source: usize, user: UserRow) {
        let Some(users) = self.mapped(source).users else { return };
        self.lock().users[users].rows.insert(user.id.clone(), user);
    }

    /// What the app sees of one of its users.
    pub fn user(&self, source: usize, id: &str) -> Option<UserRow> {
        let users = self.mapped(source).users?;
        self.lock().users[users].rows.get(id).cloned()
    }

    /// The app raises a user's flag for a reason of its own.
    pub fn raise_flag(&self, source: usize, user_id: &str) {
        let Some(users) = self.mapped(source).users else { return };
        if let Some(user) = self.lock().users[users].rows.get_mut(user_id) {
            user.flag = true;
        }
    }
}
