//! Which rows are taken up: found by reading, then leased, then read once more.
//!
//! Finding may take long on a big table and is done without any lock. The write lock is taken only to put
//! down the leases and to read the leased rows again: what changed in between is let go.

use perene_policy::{Connection, Grant};
use sqlx::{Row, Sqlite, SqliteConnection, Transaction};

use super::connect::Database;
use super::page::{self, push_order};
use super::row;
use super::shape::Shapes;
use super::sql::{Mapped, Statement, micros, millis_of, push_ranges};
use crate::store::{Claim, Claimed, Cursor, StoreError, Which};

pub(super) async fn claim(database: &Database, mapped: &Mapped, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
    let mut reader = database.read().await?;
    let failed = |error| database.failed(error);
    let shapes = Shapes::of(&mut reader, mapped).await.map_err(failed)?;
    let candidates = page::candidates(&mut reader, mapped, &shapes, claim).await.map_err(failed)?;
    // Also because a database in memory has no second connection.
    drop(reader);

    let next = candidates
        .last()
        .filter(|_| candidates.len() == claim.limit)
        .map(|last| Cursor { expires_us: last.expires_ms.map(|at| at.saturating_mul(1000)), id: last.id.clone() });
    let found = candidates.len();
    let free: Vec<&str> = candidates.iter().filter(|row| !row.is_leased).map(|row| row.id.as_str()).collect();
    if free.is_empty() {
        return Ok(Claimed { connections: Vec::new(), elsewhere: found as u64, next });
    }

    let mut transaction = database.write().await?;
    let leased = lease(&mut transaction, mapped, claim, &free).await.map_err(failed)?;
    let connections = reread(&mut transaction, mapped, &shapes, claim, &leased).await.map_err(failed)?;
    if connections.len() < leased.len() {
        let taken: std::collections::HashSet<&str> =
            connections.iter().map(|connection| connection.id.as_str()).collect();
        let let_go: Vec<&String> = leased.iter().filter(|id| !taken.contains(id.as_str())).collect();
        sqlx::query("DELETE FROM perene_lease WHERE source = ? AND id IN (SELECT value FROM json_each(?))")
            .bind(&mapped.name)
            .bind(json(&let_go))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    let elsewhere = (found - leased.len()) as u64;
    Ok(Claimed { connections, elsewhere, next })
}

pub(super) async fn peek(
    database: &Database,
    mapped: &Mapped,
    claim: &Claim<'_>,
) -> Result<Vec<Connection>, StoreError> {
    let mut reader = database.read().await?;
    let failed = |error| database.failed(error);
    let shapes = Shapes::of(&mut reader, mapped).await.map_err(failed)?;
    let mut free: Vec<String> = Vec::new();
    let mut after = claim.after.cloned();
    // Rows that are leased make a page no shorter: whoever gets less than asked for takes it for the last.
    loop {
        let part = Claim { after: after.as_ref(), limit: claim.limit - free.len(), ..*claim };
        let candidates = page::candidates(&mut reader, mapped, &shapes, &part).await.map_err(failed)?;
        let is_last = candidates.len() < part.limit;
        let end = candidates.last().map(|last| (last.expires_ms, last.id.clone()));
        free.extend(candidates.into_iter().filter(|row| !row.is_leased).map(|row| row.id));
        after = end.map(|(ms, id)| Cursor { expires_us: ms.map(|at| at.saturating_mul(1000)), id });
        if is_last || free.len() >= claim.limit {
            break;
        }
    }
    reread(&mut reader, mapped, &shapes, claim, &free).await.map_err(failed)
}

pub(super) async fn count(database: &Database, mapped: &Mapped, claim: &Claim<'_>) -> Result<u64, StoreError> {
    let mut reader = database.read().await?;
    let failed = |error| database.failed(error);
    let shapes = Shapes::of(&mut reader, mapped).await.map_err(failed)?;
    let mut statement = Statement::new("SELECT count(*)");
    push_from(&mut statement, mapped, &shapes, claim);
    push_conditions(&mut statement, mapped, &shapes, claim);
    statement.push(" AND (l.until IS NULL OR l.until <= ").push_bind(micros(claim.now)).push(")");
    let row = statement.build().fetch_one(&mut *reader).await.map_err(failed)?;
    let count: i64 = row.try_get(0).map_err(failed)?;
    Ok(count.unsigned_abs())
}

/// Puts down the leases. Returns the keys that were free, or whose lease had lapsed.
async fn lease(
    transaction: &mut Transaction<'_, Sqlite>,
    mapped: &Mapped,
    claim: &Claim<'_>,
    ids: &[&str],
) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(
        "INSERT INTO perene_lease (source, id, holder, fence, until)
         SELECT ?1, value, ?2, ?3, ?4 FROM json_each(?5) WHERE true
         ON CONFLICT (source, id) DO UPDATE
         SET holder = excluded.holder, fence = excluded.fence, until = excluded.until
         WHERE perene_lease.until <= ?6
         RETURNING id",
    )
    .bind(&mapped.name)
    .bind(claim.holder)
    .bind(claim.fence.to_string())
    .bind(micros(claim.until))
    .bind(json(ids))
    .bind(micros(claim.now))
    .fetch_all(&mut **transaction)
    .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Reads these rows, if they still fit.
async fn reread(
    connection: &mut SqliteConnection,
    mapped: &Mapped,
    shapes: &Shapes,
    claim: &Claim<'_>,
    ids: &[impl serde::Serialize],
) -> Result<Vec<Connection>, sqlx::Error> {
    let mut statement = Statement::new(format!("SELECT {}", row::columns(mapped)));
    // The keys lead: without CROSS JOIN the planner may walk the app's whole table instead.
    statement.push(" FROM json_each(").push_bind(json(ids));
    statement.push(format!(") AS j CROSS JOIN {} AS t ON {} = j.value", mapped.table, shapes.key));
    push_memory(&mut statement, mapped);
    push_conditions(&mut statement, mapped, shapes, claim);
    push_order(&mut statement, mapped, shapes, claim);
    let rows = statement.build().fetch_all(connection).await?;
    rows.iter().map(|row| row::connection(mapped, row, 0)).collect()
}

pub(super) fn push_from(statement: &mut Statement, mapped: &Mapped, shapes: &Shapes, claim: &Claim<'_>) {
    if matches!(claim.which, Which::Retry) {
        // What is remembered is little: it leads.
        statement.push(format!(
            " FROM perene_connection AS c CROSS JOIN {} AS t ON {} = c.id AND c.source = ",
            mapped.table, shapes.key
        ));
        statement.push_bind(mapped.name.clone());
    } else {
        statement.push(format!(" FROM {} AS t", mapped.table));
        push_memory(statement, mapped);
    }
    statement.push(" LEFT JOIN perene_lease AS l ON l.source = ").push_bind(mapped.name.clone());
    statement.push(format!(" AND l.id = CAST({} AS TEXT)", mapped.column(&mapped.source.columns.id)));
}

pub(super) fn push_memory(statement: &mut Statement, mapped: &Mapped) {
    statement.push(" LEFT JOIN perene_connection AS c ON c.source = ").push_bind(mapped.name.clone());
    statement.push(format!(" AND c.id = CAST({} AS TEXT)", mapped.column(&mapped.source.columns.id)));
}

/// What a row must be to fit. See [`Which`].
pub(super) fn push_conditions(statement: &mut Statement, mapped: &Mapped, shapes: &Shapes, claim: &Claim<'_>) {
    let (expires, millis) = (mapped.expires(), millis_of(&mapped.expires()));
    let now = claim.now;
    // Rows have whole milliseconds: after `now` is after its last whole one, before an end before its next.
    let now_ms = now.as_microsecond().div_euclid(1000);
    let since_ms = claim.since().as_microsecond().div_euclid(1000);
    let end_ms = |end: jiff::Timestamp| -(-end.as_microsecond()).div_euclid(1000);
    statement.push(format!(" WHERE octet_length({}) > 0", mapped.token()));
    push_grants(statement, mapped, claim.grants);
    match claim.which {
        Which::Due { window } => {
            let end = now.saturating_add(window).unwrap_or(now);
            let since = claim.since();
            let from =
                claim.after.and_then(|cursor| cursor.expires_us).map_or(since, super::sql::from_micros).max(since);
            statement.push(" AND ");
            push_ranges(statement, &expires, from, end);
            statement.push(format!(" AND {millis} > ")).push_bind(since_ms);
            statement.push(format!(" AND {millis} < ")).push_bind(end_ms(end));
            statement.push(" AND (c.next_try_at IS NULL OR c.next_try_at <= ").push_bind(micros(now)).push(")");
        }
        Which::Undated => {
            statement.push(format!(" AND {expires} IS NULL AND coalesce(c.state, '') <> 'never_expires'"));
            statement.push(" AND (c.next_try_at IS NULL OR c.next_try_at <= ").push_bind(micros(now)).push(")");
        }
        Which::Retry => {
            statement.push(" AND c.next_try_at <= ").push_bind(micros(now));
            statement.push(format!(" AND ({expires} IS NULL OR {millis} > ")).push_bind(since_ms).push(")");
        }
        Which::Live => {
            statement.push(format!(" AND ({expires} IS NULL OR {millis} > ")).push_bind(now_ms).push(")");
        }
        Which::Named { ids } => {
            statement.push(format!(" AND {} IN (SELECT value FROM json_each(", shapes.key));
            statement.push_bind(json(ids)).push("))");
        }
    }
}

pub(super) fn push_grants(statement: &mut Statement, mapped: &Mapped, grants: &[Grant]) {
    if !mapped.is_meta() {
        statement.push(if grants.contains(&Grant::Oauth2) { "" } else { " AND false" });
        return;
    }
    let beginning = format!("substr(CAST({} AS TEXT), 1, 2)", mapped.token());
    let mut terms = Vec::new();
    for grant in Grant::META.iter().filter(|grant| grants.contains(grant)) {
        terms.push(match grant {
            Grant::Instagram => format!("{beginning} = 'IG'"),
            Grant::Threads => format!("{beginning} = 'TH'"),
            Grant::Facebook | Grant::Oauth2 => format!("{beginning} NOT IN ('IG', 'TH')"),
        });
    }
    match terms.len() {
        0 => statement.push(" AND false"),
        3 => statement,
        _ => statement.push(format!(" AND ({})", terms.join(" OR "))),
    };
}

/// A list of texts as JSON.
pub(super) fn json(texts: &[impl serde::Serialize]) -> String {
    serde_json::to_string(texts).expect("texts are always valid JSON")
}
