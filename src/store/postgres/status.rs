//! How the connections stand: one look at each source.

use jiff::{SignedDuration, Timestamp};
use sqlx::Row;

use super::PostgresStore;
use super::connect::{Transaction, query};
use super::shape::Shape;
use super::time::PgTime;
use super::trouble::Trouble;
use crate::store::{Standing, window_of};

impl PostgresStore {
    pub(super) async fn standing_once(
        &self,
        windows: &[SignedDuration],
        soonest: usize,
        now: Timestamp,
    ) -> Result<Standing, Trouble> {
        let mut transaction = self.connections.begin().await?;
        transaction.run("SET LOCAL statement_timeout = '5min'").await?;
        let mut standing = Standing::default();
        for source in 0..self.sources.len() {
            let shape = self.shape(&mut transaction, source).await?;
            add_counts(&mut transaction, &shape, window_of(windows, source), now, &mut standing).await?;
            let ahead = next_to_expire(&mut transaction, &shape, soonest, now).await?;
            standing.soonest.extend(ahead.into_iter().map(|(id, at)| (source, id, at)));
        }
        transaction.commit().await?;
        standing.soonest.sort_by_key(|(source, _, at)| (*at, *source));
        standing.soonest.truncate(soonest);
        Ok(standing)
    }
}

async fn add_counts(
    transaction: &mut Transaction,
    shape: &Shape,
    window: SignedDuration,
    now: Timestamp,
    standing: &mut Standing,
) -> Result<(), Trouble> {
    let expiry = format!("t.{}", shape.expires.column);
    let now_there = shape.expires.write("$2");
    let sql = format!(
        "SELECT s.standing, count(*) FROM (
             SELECT CASE
                 WHEN {expiry} <= {now_there} OR c.state = 'needs_reconnect' THEN 'dark'
                 WHEN c.state = 'waiting' AND c.outcome = 'rate_limited' AND c.next_try_at > $2 THEN 'limited'
                 WHEN c.incident_id IS NOT NULL AND c.state <> 'not_extended' THEN 'failing'
                 WHEN (c.next_try_at > $2 AND c.state <> 'healthy') OR c.state = 'not_extended' THEN 'waiting'
                 WHEN {expiry} < {horizon} OR ({expiry} IS NULL AND c.state IS DISTINCT FROM 'never_expires') THEN 'due'
                 ELSE 'healthy' END AS standing
             FROM {table} t LEFT JOIN perene.connection c ON c.source = $1 AND c.id = {key}
             WHERE t.{token}::text <> ''
         ) s GROUP BY 1",
        horizon = shape.expires.write("$3"),
        table = shape.table,
        key = shape.id.text(),
        token = shape.token,
    );
    let rows = query(sql)
        .bind(&shape.source)
        .bind(PgTime::from(now))
        .bind(PgTime::from(now.checked_add(window).unwrap_or(Timestamp::MAX)))
        .fetch_all(&mut **transaction)
        .await?;
    for row in rows {
        let count = u64::try_from(row.try_get::<i64, _>(1)?).unwrap_or(0);
        match row.try_get::<&str, _>(0)? {
            "dark" => standing.dark += count,
            "limited" => standing.limited += count,
            "failing" => standing.failing += count,
            "waiting" => standing.waiting += count,
            "due" => standing.due += count,
            _ => standing.healthy += count,
        }
    }
    Ok(())
}

async fn next_to_expire(
    transaction: &mut Transaction,
    shape: &Shape,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<(String, Timestamp)>, Trouble> {
    let sql = format!(
        "SELECT {key}, {at} FROM {table} t
         WHERE t.{expiry} > {now} AND t.{expiry} < 'infinity' AND t.{token}::text <> ''
         ORDER BY t.{expiry}, t.{id} LIMIT $2",
        key = shape.id.text(),
        at = shape.expires.read(),
        table = shape.table,
        expiry = shape.expires.column,
        now = shape.expires.write("$1"),
        token = shape.token,
        id = shape.id.column,
    );
    let rows = query(sql)
        .bind(PgTime::from(now))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut **transaction)
        .await?;
    let ahead = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<PgTime, _>(1)?.timestamp())));
    Ok(ahead.collect::<Result<_, sqlx::Error>>()?)
}
