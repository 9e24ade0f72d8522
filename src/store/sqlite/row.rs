//! Reads a row of the app as a [`Connection`].

use perene_policy::connection::TOKEN_BYTES_MAX;
use perene_policy::{Connection, Memory, Secret};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::sql::{Mapped, from_millis, millis_of};

/// So many bytes of each end of a token that is too long are read.
const END_BYTES: usize = 64;

/// The columns of a connection, from the app's row `t` and the memory `c`, in the order in which
/// [`connection`] reads them.
pub(super) fn columns(mapped: &Mapped) -> String {
    let columns = &mapped.source.columns;
    let optional = |name: &Option<String>, expression: &dyn Fn(&str) -> String| match name {
        Some(name) => expression(&mapped.column(name)),
        None => "NULL".to_owned(),
    };
    format!(
        "CAST({} AS TEXT), {}, {}, coalesce(octet_length({}), 0), {}, {}, {}, {}, c.memory",
        mapped.column(&columns.id),
        optional(&columns.user_id, &|column| format!("CAST({column} AS TEXT)")),
        token_of(&mapped.token()),
        mapped.token(),
        optional(&columns.refresh_token, &|column| format!(
            "CASE WHEN octet_length({column}) BETWEEN 1 AND {TOKEN_BYTES_MAX} THEN CAST({column} AS BLOB) END"
        )),
        millis_of(&mapped.expires()),
        optional(&columns.token_refreshed_at, &|column| millis_of(column)),
        optional(&columns.refresh_attempts, &|column| format!("CAST({column} AS INTEGER)")),
    )
}

/// An expression for a token's bytes, NUL and all; of one that is too long, for its two ends.
pub(super) fn token_of(column: &str) -> String {
    format!(
        "CASE WHEN octet_length({column}) > {TOKEN_BYTES_MAX} THEN CAST(substr(CAST({column} AS BLOB), 1, {END_BYTES}) \
         || substr(CAST({column} AS BLOB), -{END_BYTES}) AS BLOB) ELSE CAST({column} AS BLOB) END"
    )
}

/// Reads the columns of [`columns`], which begin at `from`.
pub(super) fn connection(mapped: &Mapped, row: &SqliteRow, from: usize) -> Result<Connection, sqlx::Error> {
    let token = text_of(row.try_get(from + 2)?);
    let grant = mapped.grant(token.expose());
    let id: String = row.try_get(from)?;
    let memory = memory(&mapped.name, &id, row.try_get(from + 8)?);
    Ok(Connection {
        user_id: row.try_get(from + 1)?,
        token_bytes: usize::try_from(row.try_get::<i64, _>(from + 3)?).unwrap_or_default(),
        token,
        refresh_token: row.try_get::<Option<Vec<u8>>, _>(from + 4)?.map(|bytes| text_of(Some(bytes))),
        expires_at: row.try_get::<Option<i64>, _>(from + 5)?.map(from_millis),
        refreshed_at: row.try_get::<Option<i64>, _>(from + 6)?.map(from_millis),
        attempts: row.try_get::<Option<i64>, _>(from + 7)?.unwrap_or(0),
        grant,
        memory,
        id,
    })
}

/// Bytes as text. What is no UTF-8 can be no token either: it is marked, and is then compared in another way,
/// see [`is_compared_in_sql`].
pub(super) fn text_of(bytes: Option<Vec<u8>>) -> Secret {
    let bytes = bytes.unwrap_or_default();
    Secret::new(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Whether a token was read as it stands in the row, so that the statement itself can compare.
pub(super) fn is_compared_in_sql(connection: &Connection) -> bool {
    connection.token_bytes == connection.token.expose().len()
        && !connection.token.expose().contains(char::REPLACEMENT_CHARACTER)
}

/// What is remembered, from its JSON. A memory that cannot be read stops nothing.
pub(super) fn memory(table: &str, id: &str, json: Option<String>) -> Option<Memory> {
    let json = json?;
    serde_json::from_str(&json)
        .inspect_err(|error| tracing::warn!(table, id, %error, "what is remembered of a connection cannot be read"))
        .ok()
}
