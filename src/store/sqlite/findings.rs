//! Looks for what a run needs, and changes nothing.

use sqlx::{Row, SqliteConnection};

use super::connect::Database;
use super::migrate::added_to;
use super::schema;
use super::shape::{Affinity, Column, Shape, has_index};
use super::sql::{Mapped, millis_of};
use crate::config::TableName;
use crate::store::{Finding, FindingKind, StoreError, mapped_twice};

/// The app's tables as they are declared.
pub(super) struct Look(Vec<(TableName, Option<Shape>)>);

impl Look {
    pub(super) async fn at(connection: &mut SqliteConnection, sources: &[Mapped]) -> Result<Self, sqlx::Error> {
        let mut look: Vec<(TableName, Option<Shape>)> = Vec::new();
        for mapped in sources {
            let user = mapped.source.user.as_ref().map(|user| &user.table);
            for name in [Some(&mapped.source.table), user].into_iter().flatten() {
                if !look.iter().any(|(seen, _)| seen == name) {
                    look.push((name.clone(), Shape::of(&mut *connection, name).await?));
                }
            }
        }
        Ok(Self(look))
    }

    /// Whether none of the tables is there.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, shape)| shape.is_none())
    }

    /// The tables that are there.
    pub(super) fn tables(&self) -> impl Iterator<Item = (&TableName, &Shape)> {
        self.0.iter().filter_map(|(name, shape)| Some((name, shape.as_ref()?)))
    }

    fn get(&self, name: &TableName) -> Option<&Shape> {
        self.tables().find(|(seen, _)| *seen == name).map(|(_, shape)| shape)
    }
}

pub(super) async fn findings(database: &Database, sources: &[Mapped]) -> Result<Vec<Finding>, StoreError> {
    let failed = |error| database.failed(error);
    let mut reader = database.read().await?;
    let look = Look::at(&mut reader, sources).await.map_err(failed)?;
    let mut findings = of_tables(database, sources, &look);
    // Names of tables differ by more than case, and `main` is the file itself.
    let plain = |name: &TableName| {
        let schema = name.schema.as_deref().unwrap_or("main");
        (schema.to_ascii_lowercase(), name.name.to_ascii_lowercase())
    };
    for (number, mapped) in sources.iter().enumerate() {
        let table = &mapped.source.table;
        if let Some(other) = sources[..number].iter().find(|other| plain(&other.source.table) == plain(table)) {
            findings.push(mapped_twice(&other.name, &mapped.name));
        }
    }
    for mapped in sources {
        let Some(shape) = look.get(&mapped.source.table) else { continue };
        let columns = &mapped.source.columns;
        let expires = &columns.token_expires_at;
        if shape.column(expires).is_none() || shape.is_view {
            continue;
        }
        if !has_index(&mut reader, &mapped.source.table, expires).await.map_err(failed)? {
            findings.push(Finding {
                kind: FindingKind::Advice,
                text: format!(
                    "table `{}` has no index on `{expires}`: what is due is found by reading it all; run `perene migrate`",
                    mapped.name
                ),
            });
        }
        if shape.column(&columns.id).is_some() {
            findings.extend(unreadable(&mut reader, mapped).await.map_err(failed)?);
        }
    }
    if !schema::missing(&mut reader, database).await?.is_empty() {
        findings.push(Finding {
            kind: FindingKind::Missing,
            text: format!("Perene's own tables are missing in `{}`: run `perene migrate`", database.name()),
        });
    }
    if !database.is_writable() {
        findings.push(Finding {
            kind: FindingKind::Rights,
            text: format!("`{}` cannot be written: check the rights on the file and its folder", database.name()),
        });
    }
    Ok(findings)
}

/// Rows that are never due because nobody can tell when: named by a few of their keys.
async fn unreadable(connection: &mut SqliteConnection, mapped: &Mapped) -> Result<Option<Finding>, sqlx::Error> {
    let columns = &mapped.source.columns;
    let sql = format!(
        "SELECT CAST({} AS TEXT) FROM {} AS t WHERE {} IS NOT NULL AND {} IS NULL LIMIT 4",
        mapped.column(&columns.id),
        mapped.table,
        mapped.expires(),
        millis_of(&mapped.expires()),
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(connection).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let ids: Vec<String> = rows
        .iter()
        .take(3)
        .map(|row| row.try_get(0).map(|id: String| format!("`{}`", id.escape_debug())))
        .collect::<Result<_, _>>()?;
    let others = if rows.len() > ids.len() { " and others" } else { "" };
    Ok(Some(Finding {
        kind: FindingKind::Advice,
        text: format!(
            "`{}` of connection {}{others} in `{}` is no date: write `YYYY-MM-DD HH:MM:SS` in UTC or unix seconds; until then it is never due",
            columns.token_expires_at,
            ids.join(", "),
            mapped.name,
        ),
    }))
}

/// What the declarations alone tell.
pub(super) fn of_tables(database: &Database, sources: &[Mapped], look: &Look) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for mapped in sources {
        for (name, needed) in needed(mapped) {
            match look.get(name) {
                None if look.is_empty() => findings.push(Finding {
                    kind: FindingKind::Missing,
                    text: format!("table `{name}` is missing in `{}`: run `perene migrate`", database.name()),
                }),
                None => findings.push(Finding {
                    kind: FindingKind::MissingTable,
                    text: format!("table `{name}` is missing in `{}`: check the mapping, or make it", database.name()),
                }),
                Some(shape) => findings.extend(of_table(name, shape, &needed, mapped)),
            }
        }
    }
    let mut seen: Vec<Finding> = Vec::new();
    for finding in findings {
        if !seen.contains(&finding) {
            seen.push(finding);
        }
    }
    seen
}

fn of_table(name: &TableName, shape: &Shape, needed: &[Needed<'_>], mapped: &Mapped) -> Vec<Finding> {
    if shape.is_view {
        let text = format!("`{name}` is a view, and a view tells nobody what was written: map the table behind it");
        return vec![Finding { kind: FindingKind::BadType, text }];
    }
    let added = added_to(mapped, name);
    let mut findings = Vec::new();
    for Needed { column, role } in needed {
        let Some(found) = shape.column(column) else {
            findings.push(if added.iter().any(|added| added.name == *column) {
                Finding {
                    kind: FindingKind::Missing,
                    text: format!("column `{column}` of table `{name}` is missing: run `perene migrate`"),
                }
            } else {
                Finding {
                    kind: FindingKind::MissingOwn,
                    text: format!("column `{column}` of table `{name}` is missing: check the mapping"),
                }
            });
            continue;
        };
        if let Some(reason) = unfit(found, *role, shape.is_strict) {
            let kind = if found.kind.is_empty() { String::new() } else { format!(" of type `{}`", found.kind) };
            findings.push(Finding {
                kind: FindingKind::BadType,
                text: format!("column `{column}`{kind} of table `{name}` {reason}: map another column"),
            });
        }
    }
    findings
}

/// What a column is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Key,
    UserKey,
    Token,
    Timestamp,
    Attempts,
    Error,
    Flag,
    Read,
}

struct Needed<'a> {
    column: &'a str,
    role: Role,
}

/// The tables of a source, and what is needed of each.
fn needed(mapped: &Mapped) -> Vec<(&TableName, Vec<Needed<'_>>)> {
    let columns = &mapped.source.columns;
    let mut connection = vec![
        Needed { column: &columns.id, role: Role::Key },
        Needed { column: &columns.access_token, role: Role::Token },
        Needed { column: &columns.token_expires_at, role: Role::Timestamp },
    ];
    let optional = [
        (&columns.user_id, Role::UserKey),
        (&columns.refresh_token, Role::Token),
        (&columns.token_refreshed_at, Role::Timestamp),
        (&columns.refresh_attempts, Role::Attempts),
        (&columns.last_refresh_error, Role::Error),
    ];
    connection
        .extend(optional.into_iter().filter_map(|(column, role)| Some(Needed { column: column.as_deref()?, role })));
    let mut tables = vec![(&mapped.source.table, connection)];
    if let Some(user) = &mapped.source.user {
        let mut users =
            vec![Needed { column: &user.id, role: Role::Key }, Needed { column: &user.email, role: Role::Read }];
        let optional = [(&user.username, Role::Read), (&user.show_token_warning, Role::Flag)];
        users.extend(
            optional.into_iter().filter_map(|(column, role)| Some(Needed { column: column.as_deref()?, role })),
        );
        tables.push((&user.table, users));
    }
    tables
}

/// Why a column cannot do what it is mapped to. SQLite stores anything anywhere outside STRICT tables, so
/// only what would change a value, or be refused, is unfit.
fn unfit(column: &Column, role: Role, is_strict: bool) -> Option<&'static str> {
    let affinity = column.affinity();
    let is_boolean = column.kind.contains("BOOL");
    let is_blob = affinity == Affinity::Blob && !column.kind.is_empty() && column.kind != "ANY";
    let is_number = matches!(affinity, Affinity::Integer | Affinity::Real);
    let is_written = !matches!(role, Role::Key | Role::UserKey | Role::Read);
    if is_written && column.is_generated {
        return Some("is generated and cannot be written");
    }
    match role {
        Role::Key | Role::UserKey if is_blob || is_boolean || affinity == Affinity::Real => {
            Some("cannot be a key: keys are whole numbers, texts or uuids as text")
        }
        Role::Token if is_boolean || is_number || (is_strict && is_blob) => Some("cannot hold a token"),
        Role::Timestamp if is_boolean || is_blob => Some("cannot hold a date"),
        Role::Attempts if is_boolean || is_blob || (is_strict && affinity == Affinity::Text) => {
            Some("cannot hold a number")
        }
        Role::Error if is_strict && (is_number || is_blob) => Some("cannot hold a text"),
        Role::Flag if is_strict && !is_number && column.kind != "ANY" => Some("cannot hold a flag"),
        _ => None,
    }
}
