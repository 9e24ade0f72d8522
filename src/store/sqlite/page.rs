//! Finds the next page of rows that fit, soonest expiry first, by index and without any lock.
//!
//! Dates may stand in several forms side by side, so the index alone does not tell their order: a stretch
//! of it is read and sorted. The stretch begins where the page before ended and is short at first; it grows
//! until it fills the page. So a page costs what is near it, and not all that is due.

use jiff::{SignedDuration, Timestamp};
use sqlx::{Row, SqliteConnection};

use super::claim::{push_conditions, push_from, push_grants};
use super::shape::Shapes;
use super::sql::{Mapped, Statement, from_micros, micros, millis_of, push_ranges};
use crate::store::{Claim, Which};

/// The stretches that are tried, one after the other; then all.
const STRETCHES: [SignedDuration; 4] = [
    SignedDuration::from_hours(6),
    SignedDuration::from_hours(24),
    SignedDuration::from_hours(4 * 24),
    SignedDuration::from_hours(30 * 24),
];

/// A row that may be taken up.
pub(super) struct Candidate {
    pub(super) id: String,
    pub(super) expires_ms: Option<i64>,
    pub(super) is_leased: bool,
}

/// Whether pages go by expiry, and not by key alone.
pub(super) fn is_by_expiry(claim: &Claim<'_>) -> bool {
    !matches!(claim.which, Which::Undated | Which::Named { .. })
}

/// A page of rows that fit, leased or not.
pub(super) async fn candidates(
    connection: &mut SqliteConnection,
    mapped: &Mapped,
    shapes: &Shapes,
    claim: &Claim<'_>,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let end = match claim.which {
        Which::Due { window } => claim.now.saturating_add(window).unwrap_or(claim.now),
        Which::Live => Timestamp::MAX,
        // By key, or led by the little that is remembered: nothing has to be sorted but the page.
        Which::Undated | Which::Retry | Which::Named { .. } => {
            return fetch(connection, plain(mapped, shapes, claim, claim.limit)).await;
        }
    };
    let mut page = Vec::new();
    if claim.after.is_none_or(|cursor| cursor.expires_us.is_some()) {
        let from =
            claim.after.and_then(|cursor| cursor.expires_us).map_or(claim.since(), from_micros).max(claim.since());
        let stretches = STRETCHES.into_iter().map(|stretch| from.saturating_add(stretch).unwrap_or(end));
        for stretch in stretches.filter(|stretch| *stretch < end).chain([end]) {
            page = fetch(connection, dated(mapped, shapes, claim, from, stretch)).await?;
            if page.len() >= claim.limit {
                break;
            }
        }
    }
    if matches!(claim.which, Which::Live) && page.len() < claim.limit {
        let rest = Claim { which: Which::Undated, ..*claim };
        page.extend(fetch(connection, undated_of_live(mapped, shapes, &rest, claim.limit - page.len())).await?);
    }
    Ok(page)
}

async fn fetch(connection: &mut SqliteConnection, mut statement: Statement) -> Result<Vec<Candidate>, sqlx::Error> {
    let rows = statement.build().fetch_all(connection).await?;
    rows.iter()
        .map(|row| Ok(Candidate { id: row.try_get(0)?, expires_ms: row.try_get(1)?, is_leased: row.try_get(2)? }))
        .collect()
}

/// The rows that expire from `from` on and before `end`.
pub(super) fn dated(mapped: &Mapped, shapes: &Shapes, claim: &Claim<'_>, from: Timestamp, end: Timestamp) -> Statement {
    let mut statement = Statement::new("SELECT CAST(t.key AS TEXT), t.ms, l.until IS NOT NULL AND l.until > ");
    statement.push_bind(micros(claim.now));
    statement.push(format!(
        " FROM (SELECT {} AS key, {} AS ms FROM {} AS t WHERE octet_length({}) > 0",
        shapes.key,
        millis_of(&mapped.expires()),
        mapped.table,
        mapped.token(),
    ));
    push_grants(&mut statement, mapped, claim.grants);
    statement.push(" AND ");
    push_ranges(&mut statement, &mapped.expires(), from, end);
    // The limit keeps this a query of its own, so that each date is reckoned once.
    statement.push(" LIMIT -1 OFFSET 0) AS t LEFT JOIN perene_connection AS c ON c.source = ");
    statement.push_bind(mapped.name.clone()).push(" AND c.id = CAST(t.key AS TEXT)");
    statement.push(" LEFT JOIN perene_lease AS l ON l.source = ").push_bind(mapped.name.clone());
    statement.push(" AND l.id = CAST(t.key AS TEXT) WHERE t.ms > ");
    statement.push_bind(claim.since().as_microsecond().div_euclid(1000));
    if end < Timestamp::MAX {
        statement.push(" AND t.ms < ").push_bind(-(-end.as_microsecond()).div_euclid(1000));
    }
    if matches!(claim.which, Which::Due { .. }) {
        statement.push(" AND (c.next_try_at IS NULL OR c.next_try_at <= ").push_bind(micros(claim.now)).push(")");
    }
    if let Some(cursor) = claim.after
        && let Some(expires_us) = cursor.expires_us
    {
        statement.push(" AND (t.ms, t.key) > (").push_bind(expires_us.div_euclid(1000));
        statement.push(", ").push_bind(cursor.id.clone()).push(")");
    }
    statement.push(" ORDER BY t.ms, t.key LIMIT ").push_bind(i64::try_from(claim.limit).unwrap_or(i64::MAX));
    statement
}

/// The rows without a date, whatever is remembered of them.
fn undated_of_live(mapped: &Mapped, shapes: &Shapes, claim: &Claim<'_>, limit: usize) -> Statement {
    let mut statement = select(mapped, claim);
    push_from(&mut statement, mapped, shapes, claim);
    statement.push(format!(" WHERE octet_length({}) > 0 AND {} IS NULL", mapped.token(), mapped.expires()));
    push_grants(&mut statement, mapped, claim.grants);
    if let Some(cursor) = claim.after.filter(|cursor| cursor.expires_us.is_none()) {
        statement.push(format!(" AND {} > ", shapes.key)).push_bind(cursor.id.clone());
    }
    push_end(&mut statement, mapped, shapes, claim, limit);
    statement
}

/// The rows that fit, in one go.
fn plain(mapped: &Mapped, shapes: &Shapes, claim: &Claim<'_>, limit: usize) -> Statement {
    let mut statement = select(mapped, claim);
    push_from(&mut statement, mapped, shapes, claim);
    push_conditions(&mut statement, mapped, shapes, claim);
    push_cursor(&mut statement, mapped, shapes, claim);
    push_end(&mut statement, mapped, shapes, claim, limit);
    statement
}

fn select(mapped: &Mapped, claim: &Claim<'_>) -> Statement {
    let mut statement = Statement::new(format!(
        "SELECT CAST({} AS TEXT), {}, l.until IS NOT NULL AND l.until > ",
        mapped.column(&mapped.source.columns.id),
        millis_of(&mapped.expires()),
    ));
    statement.push_bind(micros(claim.now));
    statement
}

fn push_end(statement: &mut Statement, mapped: &Mapped, shapes: &Shapes, claim: &Claim<'_>, limit: usize) {
    push_order(statement, mapped, shapes, claim);
    statement.push(" LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
}

pub(super) fn push_order(statement: &mut Statement, mapped: &Mapped, shapes: &Shapes, claim: &Claim<'_>) {
    if is_by_expiry(claim) {
        let millis = millis_of(&mapped.expires());
        statement.push(format!(" ORDER BY {millis} NULLS LAST, {}", shapes.key));
    } else {
        statement.push(format!(" ORDER BY {}", shapes.key));
    }
}

fn push_cursor(statement: &mut Statement, mapped: &Mapped, shapes: &Shapes, claim: &Claim<'_>) {
    let Some(cursor) = claim.after else { return };
    let (key, millis) = (&shapes.key, millis_of(&mapped.expires()));
    match cursor.expires_us.filter(|_| is_by_expiry(claim)) {
        Some(expires_us) => {
            let expires_ms = expires_us.div_euclid(1000);
            statement.push(format!(" AND ({} IS NULL OR {millis} > ", mapped.expires())).push_bind(expires_ms);
            statement.push(format!(" OR ({millis} = ")).push_bind(expires_ms);
            statement.push(format!(" AND {key} > ")).push_bind(cursor.id.clone()).push("))");
        }
        None => {
            if is_by_expiry(claim) {
                statement.push(format!(" AND {} IS NULL", mapped.expires()));
            }
            statement.push(format!(" AND {key} > ")).push_bind(cursor.id.clone());
        }
    }
}
