//! The columns that a source maps: what each is for, and which types serve.

use super::shape::Table;
use super::sql::Kind;
use crate::config::Source;
use crate::store::{Finding, FindingKind};

/// What a column is needed for, and so which types serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Key,
    Text,
    Instant,
    Count,
    Flag,
}

impl Need {
    fn accepts(self, kind: &Kind) -> bool {
        match self {
            Self::Key => matches!(kind, Kind::Int(_) | Kind::Uuid | Kind::Text),
            Self::Text => *kind == Kind::Text,
            Self::Instant => matches!(kind, Kind::Instant | Kind::LocalTime),
            Self::Count => matches!(kind, Kind::Int(_)),
            Self::Flag => *kind == Kind::Bool,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Key => "`integer`, `bigint`, `uuid`, `text` or `varchar`",
            Self::Text => "`text` or `varchar`",
            Self::Instant => "`timestamptz` or `timestamp`",
            Self::Count => "`integer`",
            Self::Flag => "`boolean`",
        }
    }
}

/// One mapped column, and what `migrate` would make it if it is missing.
#[derive(Debug, Clone)]
pub(super) struct Mapped<'a> {
    pub(super) name: &'a str,
    pub(super) need: Need,
    /// The type with which `migrate` adds it; `None` for what is the app's own.
    pub(super) added_as: Option<&'static str>,
    /// Whether Perene writes it.
    pub(super) is_written: bool,
}

const fn mapped<'a>(name: &'a str, need: Need, added_as: Option<&'static str>, is_written: bool) -> Mapped<'a> {
    Mapped { name, need, added_as, is_written }
}

/// The columns of the connections' table that a source maps.
pub(super) fn connection_columns(source: &Source) -> Vec<Mapped<'_>> {
    let columns = &source.columns;
    let optional = [
        columns.user_id.as_deref().map(|name| mapped(name, Need::Key, None, false)),
        columns.refresh_token.as_deref().map(|name| mapped(name, Need::Text, None, true)),
        columns.token_refreshed_at.as_deref().map(|name| mapped(name, Need::Instant, Some("timestamptz"), true)),
        columns.refresh_attempts.as_deref().map(|name| mapped(name, Need::Count, Some("integer DEFAULT 0"), true)),
        columns.last_refresh_error.as_deref().map(|name| mapped(name, Need::Text, Some("text"), true)),
    ];
    let mut all = vec![
        mapped(&columns.id, Need::Key, None, false),
        mapped(&columns.access_token, Need::Text, None, true),
        mapped(&columns.token_expires_at, Need::Instant, Some("timestamptz"), true),
    ];
    all.extend(optional.into_iter().flatten());
    all
}

/// The columns of the users' table that a source maps.
pub(super) fn user_columns(source: &Source) -> Vec<Mapped<'_>> {
    let Some(user) = &source.user else { return Vec::new() };
    let mut all = vec![mapped(&user.id, Need::Key, None, false), mapped(&user.email, Need::Text, None, false)];
    all.extend(user.username.as_deref().map(|name| mapped(name, Need::Text, None, false)));
    all.extend(
        user.show_token_warning.as_deref().map(|name| mapped(name, Need::Flag, Some("boolean DEFAULT false"), true)),
    );
    all
}

/// What is wrong with one mapped column of `table`.
pub(super) fn column_finding(table: &Table, column: &Mapped<'_>) -> Option<Finding> {
    let (name, of) = (column.name, &table.written);
    let (kind, text) = match (table.columns.get(name), column.added_as) {
        (Some(found), _) if column.need.accepts(&found.kind) => return None,
        (Some(found), _) => (
            FindingKind::BadType,
            format!(
                "column `{name}` of table `{of}` is of type `{}`, and must be {}",
                found.type_name,
                column.need.words()
            ),
        ),
        (None, Some(added_as)) if matches!(table.kind.as_str(), "r" | "p" | "f") => (
            FindingKind::Missing,
            format!("column `{name}` ({added_as}) of table `{of}` is missing: run `perene migrate`"),
        ),
        (None, Some(added_as)) => (
            FindingKind::MissingOwn,
            format!("column `{name}` ({added_as}) of `{of}` is missing, and `{of}` is a view: add it there yourself"),
        ),
        (None, None) => (
            FindingKind::MissingOwn,
            format!(
                "column `{name}` of table `{of}` is missing: it is the app's own; correct its name under `columns` or `user`"
            ),
        ),
    };
    Some(Finding { kind, text })
}
