//! The app's rows as Perene reads them, and which of them are wanted.

use jiff::Timestamp;
use perene_policy::connection::TOKEN_BYTES_MAX;
use perene_policy::{Connection, Grant, Memory, Secret};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::shape::Shape;
use super::time::PgTime;
use crate::store::{Claim, Cursor, Which};

/// So many characters of each end stand for a token that is too long to be read.
const END_CHARS: usize = 64;

/// A token column as far as it is read: whole, or its two ends. Read and compared by the same expression.
pub(super) fn shown(column: &str) -> String {
    format!(
        "CASE WHEN octet_length(t.{column}::text) <= {TOKEN_BYTES_MAX} THEN t.{column}::text \
         ELSE left(t.{column}::text, {END_CHARS}) || right(t.{column}::text, {END_CHARS}) END"
    )
}

/// What [`connection`] reads: columns of the app's row (alias `t`) and of what is remembered (alias `c`).
pub(super) fn columns(shape: &Shape) -> String {
    let text = |column: &Option<String>| match column {
        Some(column) => format!("t.{column}::text"),
        None => "NULL::text".to_owned(),
    };
    [
        shape.id.text(),
        text(&shape.user_id),
        shown(&shape.token),
        format!("octet_length(t.{}::text)", shape.token),
        shape.refresh_token.as_deref().map_or_else(|| "NULL::text".to_owned(), shown),
        shape.expires.read(),
        shape.refreshed.as_ref().map_or_else(|| "NULL::timestamptz".to_owned(), super::shape::Moment::read),
        shape
            .attempts
            .as_ref()
            .map_or_else(|| "0::bigint".to_owned(), |count| format!("coalesce(t.{}, 0)::bigint", count.column)),
        "c.memory".to_owned(),
    ]
    .join(", ")
}

/// Reads a row of [`columns`].
pub(super) fn connection(row: &PgRow, shape: &Shape) -> Result<Connection, sqlx::Error> {
    let id = text(row, 0)?.unwrap_or_default();
    let token = text(row, 2)?.unwrap_or_default();
    let grant = if shape.is_meta { Grant::of_meta_token(&token) } else { Grant::Oauth2 };
    let token_bytes = row.try_get::<Option<i32>, _>(3)?.unwrap_or(0);
    Ok(Connection {
        user_id: text(row, 1)?,
        token: Secret::new(token),
        token_bytes: usize::try_from(token_bytes).unwrap_or(0),
        refresh_token: text(row, 4)?.map(Secret::new),
        expires_at: instant(row, 5)?,
        refreshed_at: instant(row, 6)?,
        attempts: row.try_get(7)?,
        grant,
        memory: row.try_get::<Option<String>, _>(8)?.and_then(|memory| read_memory(&memory, &shape.source, &id)),
        id,
    })
}

/// What is remembered; `None`, and a line in the log, if it cannot be read.
pub(super) fn read_memory(memory: &str, source: &str, id: &str) -> Option<Memory> {
    match serde_json::from_str(memory) {
        Ok(memory) => Some(memory),
        Err(error) => {
            tracing::warn!(
                source,
                id,
                "what is remembered of connection {id} cannot be read, and counts as nothing: {error}"
            );
            None
        }
    }
}

pub(super) fn instant(row: &PgRow, index: usize) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get::<Option<PgTime>, _>(index)?.map(PgTime::timestamp))
}

/// A text of the app's. A database without an encoding may hold bytes that are no text: one such row must
/// not stop a page, so they are read as replacement characters, which no provider takes for a token.
fn text(row: &PgRow, index: usize) -> Result<Option<String>, sqlx::Error> {
    let value = row.try_get_raw(index)?;
    if sqlx::ValueRef::is_null(&value) {
        return Ok(None);
    }
    let bytes = value.as_bytes().map_err(sqlx::Error::Decode)?;
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

/// The statement's parameters stand in fixed places: `$1` the source, `$2` now, `$3` the horizon, `$4` and
/// `$5` the cursor's expiry and key, `$6` the named keys.
pub(super) struct Wanted {
    /// `FROM …` with the aliases `t` and `c`.
    pub(super) from: String,
    /// Which rows, without the cursor.
    pub(super) condition: String,
    /// `ORDER BY …`
    pub(super) order: String,
    /// Which rows come after the cursor; empty without one.
    pub(super) after: String,
    /// `$3`
    pub(super) horizon: Timestamp,
    /// `$6`
    pub(super) named: Vec<String>,
}

impl Wanted {
    /// What `claim` asks of `shape`'s rows; `None` if no row can answer it.
    pub(super) fn of(claim: &Claim<'_>, shape: &Shape) -> Option<Self> {
        let grant = grants(claim.grants, shape)?;
        let id = format!("t.{}", shape.id.column);
        let expiry = format!("t.{}", shape.expires.column);
        let now = shape.expires.write("$2");
        let horizon = shape.expires.write("$3");
        let is_waiting_over = "(c.next_try_at IS NULL OR c.next_try_at <= $2::timestamptz)";
        // A whole number of seconds: nothing of the app's stands in the text.
        let since = match claim.overdue.as_secs() {
            0 => now.clone(),
            seconds => shape.expires.write(&format!("($2::timestamptz - interval '{seconds} seconds')")),
        };
        let is_ahead = format!("{expiry} > {since} AND {expiry} < {horizon}");
        let (which, span) = match claim.which {
            Which::Due { window } => (format!("{is_ahead} AND {is_waiting_over}"), Some(window)),
            Which::Undated => {
                (format!("{expiry} IS NULL AND c.state IS DISTINCT FROM 'never_expires' AND {is_waiting_over}"), None)
            }
            Which::Retry => {
                let is_alive = format!("({expiry} IS NULL OR {expiry} > {since})");
                (format!("c.next_try_at <= $2::timestamptz AND {is_alive}"), None)
            }
            Which::Live => (format!("({expiry} IS NULL OR {expiry} > {now})"), None),
            Which::Named { .. } => (format!("{id} = ANY ($6::text[]::{}[])", shape.id.cast_type()), None),
        };
        let is_by_key = matches!(claim.which, Which::Undated | Which::Named { .. });
        let named = match claim.which {
            Which::Named { ids } => ids.iter().filter_map(|id| shape.id.canonical(id)).collect(),
            _ => Vec::new(),
        };
        let key = shape.id.cast("$5::text");
        let after = match claim.after {
            None => String::new(),
            Some(_) if is_by_key => format!(" AND {id} > {key}"),
            Some(Cursor { expires_us: None, .. }) => format!(" AND {expiry} IS NULL AND {id} > {key}"),
            Some(_) => {
                let later = format!("({expiry}, {id}) > ({}, {key})", shape.expires.write("$4"));
                if matches!(claim.which, Which::Due { .. }) {
                    format!(" AND {later}")
                } else {
                    format!(" AND ({later} OR {expiry} IS NULL)")
                }
            }
        };
        // What is tried again is found by what is remembered, all else by the app's own index.
        let from = match claim.which {
            Which::Retry => format!(
                "FROM perene.connection c JOIN {} t ON t.{} = {}",
                shape.table,
                shape.id.column,
                shape.id.cast_stored("c.id")
            ),
            _ => format!(
                "FROM {} t LEFT JOIN perene.connection c ON c.source = $1 AND c.id = {}",
                shape.table,
                shape.id.text()
            ),
        };
        let source = if matches!(claim.which, Which::Retry) { "c.source = $1 AND " } else { "" };
        Some(Self {
            from,
            condition: format!("{source}{id} IS NOT NULL AND t.{}::text <> '' AND {which}{grant}", shape.token),
            order: if is_by_key { format!("ORDER BY {id}") } else { format!("ORDER BY {expiry}, {id}") },
            after,
            horizon: span.map_or(Timestamp::MAX, |span| claim.now.checked_add(span).unwrap_or(Timestamp::MAX)),
            named,
        })
    }
}

/// The condition on the token's beginning; `None` if no row can fulfil it.
fn grants(grants: &[Grant], shape: &Shape) -> Option<String> {
    if !shape.is_meta {
        return grants.contains(&Grant::Oauth2).then(String::new);
    }
    let beginning = format!("left(t.{}::text, 2)", shape.token);
    let mut wanted = Vec::new();
    for grant in grants {
        match grant {
            Grant::Instagram => wanted.push(format!("{beginning} = 'IG'")),
            Grant::Threads => wanted.push(format!("{beginning} = 'TH'")),
            Grant::Facebook => wanted.push(format!("{beginning} NOT IN ('IG', 'TH')")),
            Grant::Oauth2 => {}
        }
    }
    wanted.sort_unstable();
    wanted.dedup();
    match wanted.len() {
        0 => None,
        3 => Some(String::new()),
        _ => Some(format!(" AND ({})", wanted.join(" OR "))),
    }
}
