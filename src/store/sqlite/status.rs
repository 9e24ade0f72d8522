//! How the connections stand, and single rows of the app.

use jiff::{SignedDuration, Timestamp};
use perene_policy::Connection;
use sqlx::{Row, SqliteConnection};

use super::connect::Database;
use super::row;
use super::shape::Shapes;
use super::sql::{Mapped, Statement, from_millis, millis_of, push_ranges, quoted, table};
use crate::store::{Recipient, Standing, StoreError, window_of};

/// How far ahead the soonest expiries are looked for: mostly the first step finds enough, by the index.
const STEPS: [SignedDuration; 3] =
    [SignedDuration::from_hours(24), SignedDuration::from_hours(7 * 24), SignedDuration::from_hours(60 * 24)];

pub(super) async fn standing(
    database: &Database,
    sources: &[Mapped],
    windows: &[SignedDuration],
    soonest: usize,
    now: Timestamp,
) -> Result<Standing, StoreError> {
    let failed = |error| database.failed(error);
    let mut reader = database.read().await?;
    let mut standing = Standing::default();
    for (source, mapped) in sources.iter().enumerate() {
        let mut statement = count_by_class(mapped, window_of(windows, source), now);
        for row in statement.build().fetch_all(&mut *reader).await.map_err(failed)? {
            let count = row.try_get::<i64, _>(1).map_err(failed)?.unsigned_abs();
            let sum = match row.try_get::<&str, _>(0).map_err(failed)? {
                "dark" => &mut standing.dark,
                "limited" => &mut standing.limited,
                "failing" => &mut standing.failing,
                "waiting" => &mut standing.waiting,
                "due" => &mut standing.due,
                _ => &mut standing.healthy,
            };
            *sum += count;
        }
        let next = next_to_expire(&mut reader, mapped, soonest, now).await.map_err(failed)?;
        standing.soonest.extend(next.into_iter().map(|(id, at)| (source, id, at)));
    }
    standing.soonest.sort_by_key(|(_, _, at)| *at);
    standing.soonest.truncate(soonest);
    Ok(standing)
}

/// Counts each row in the first class that fits. A date that cannot be read is a failure to be looked at.
fn count_by_class(mapped: &Mapped, window: SignedDuration, now: Timestamp) -> Statement {
    let now_us = now.as_microsecond();
    let now_ms = now_us.div_euclid(1000);
    let end = now.saturating_add(window).unwrap_or(now);
    let end_ms = -(-end.as_microsecond()).div_euclid(1000);
    let mut statement = Statement::new("SELECT CASE WHEN ms <= ");
    statement.push_bind(now_ms);
    statement.push(
        " OR state = 'needs_reconnect' THEN 'dark'
         WHEN state = 'waiting' AND memory ->> '$.state.outcome' = 'rate_limited' AND next_try_at > ",
    );
    statement.push_bind(now_us);
    statement.push(
        " THEN 'limited'
         WHEN (incident_id IS NOT NULL AND state <> 'not_extended') OR (ms IS NULL AND is_dated) THEN 'failing'
         WHEN state = 'not_extended' OR (state <> 'healthy' AND next_try_at > ",
    );
    statement.push_bind(now_us).push(") THEN 'waiting' WHEN ms < ").push_bind(end_ms);
    statement.push(" OR (NOT is_dated AND coalesce(state, '') <> 'never_expires') THEN 'due' ELSE 'healthy' END AS class, count(*)");
    statement.push(format!(
        " FROM (SELECT {} AS ms, {} IS NOT NULL AS is_dated, c.state, c.memory, c.next_try_at, c.incident_id
          FROM {} AS t LEFT JOIN perene_connection AS c ON c.source = ",
        millis_of(&mapped.expires()),
        mapped.expires(),
        mapped.table,
    ));
    statement.push_bind(mapped.name.clone());
    statement.push(format!(
        " AND c.id = CAST({} AS TEXT) WHERE octet_length({}) > 0 LIMIT -1 OFFSET 0) GROUP BY class",
        mapped.column(&mapped.source.columns.id),
        mapped.token()
    ));
    statement
}

async fn next_to_expire(
    reader: &mut SqliteConnection,
    mapped: &Mapped,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<(String, Timestamp)>, sqlx::Error> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let millis = millis_of(&mapped.expires());
    let mut found = Vec::new();
    let ends = STEPS.into_iter().map(|step| now.saturating_add(step).unwrap_or(Timestamp::MAX));
    for end in ends.chain([Timestamp::MAX]) {
        let id = mapped.column(&mapped.source.columns.id);
        let mut statement = Statement::new(format!("SELECT CAST({id} AS TEXT), {millis} FROM {} AS t", mapped.table));
        statement.push(format!(" WHERE octet_length({}) > 0 AND ", mapped.token()));
        push_ranges(&mut statement, &mapped.expires(), now, end);
        statement.push(format!(" AND {millis} > ")).push_bind(now.as_microsecond().div_euclid(1000));
        statement.push(format!(" AND {millis} <= ")).push_bind(end.as_microsecond().div_euclid(1000));
        statement.push(format!(" ORDER BY {millis}, {id} LIMIT ")).push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = statement.build().fetch_all(&mut *reader).await?;
        found = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, from_millis(row.try_get(1)?))))
            .collect::<Result<_, sqlx::Error>>()?;
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

pub(super) async fn find(database: &Database, mapped: &Mapped, id: &str) -> Result<Option<Connection>, StoreError> {
    let failed = |error| database.failed(error);
    let mut reader = database.read().await?;
    let shapes = Shapes::of(&mut reader, mapped).await.map_err(failed)?;
    let mut statement = Statement::new(format!("SELECT {} FROM {} AS t", row::columns(mapped), mapped.table));
    statement.push(" LEFT JOIN perene_connection AS c ON c.source = ").push_bind(mapped.name.clone());
    statement.push(format!(" AND c.id = CAST({} AS TEXT)", mapped.column(&mapped.source.columns.id)));
    statement.push(format!(" WHERE {} = ", shapes.key)).push_bind(id.to_owned());
    let row = statement.build().fetch_optional(&mut *reader).await.map_err(failed)?;
    row.map(|row| row::connection(mapped, &row, 0)).transpose().map_err(failed)
}

pub(super) async fn recipient(
    database: &Database,
    mapped: &Mapped,
    user_id: &str,
) -> Result<Option<Recipient>, StoreError> {
    let failed = |error| database.failed(error);
    let mut reader = database.read().await?;
    let shapes = Shapes::of(&mut reader, mapped).await.map_err(failed)?;
    let (Some(user), Some(key)) = (&mapped.source.user, &shapes.user_key) else { return Ok(None) };
    let text = |column: &str| format!("CAST(u.{} AS TEXT)", quoted(column));
    let mut statement = Statement::new(format!(
        "SELECT {}, {} FROM {} AS u WHERE {key} = ",
        text(&user.email),
        user.username.as_deref().map_or_else(|| "NULL".to_owned(), text),
        table(&user.table),
    ));
    statement.push_bind(user_id.to_owned());
    let row = statement.build().fetch_optional(&mut *reader).await.map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let read = || Ok(Recipient { email: row.try_get(0)?, username: row.try_get(1)? });
    read().map(Some).map_err(failed)
}
