//! The record of runs, and what is forgotten in time.

use jiff::Timestamp;
use sqlx::Row;

use super::PostgresStore;
use super::connect::query;
use super::time::PgTime;
use super::trouble::Trouble;

/// So many rows are forgotten at once: a short transaction each.
const FORGOTTEN_AT_ONCE: i64 = 10_000;

impl PostgresStore {
    pub(super) async fn now_once(&self) -> Result<Timestamp, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query("SELECT clock_timestamp()").fetch_one(&mut *transaction).await?;
        let now: PgTime = row.try_get(0)?;
        transaction.commit().await?;
        Ok(now.timestamp())
    }

    pub(super) async fn begin_run_once(&self, kind: &str, holder: &str, now: Timestamp) -> Result<i64, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query("INSERT INTO perene.run (kind, replica, started_at) VALUES ($1, $2, $3) RETURNING seq")
            .bind(kind)
            .bind(holder)
            .bind(PgTime::from(now))
            .fetch_one(&mut *transaction)
            .await?;
        let run = row.try_get(0)?;
        transaction.commit().await?;
        Ok(run)
    }

    pub(super) async fn finish_run_once(&self, run: i64, report: &str, now: Timestamp) -> Result<(), Trouble> {
        let mut transaction = self.connections.begin().await?;
        query("UPDATE perene.run SET finished_at = $2, report = $3 WHERE seq = $1")
            .bind(run)
            .bind(PgTime::from(now))
            .bind(report)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    pub(super) async fn last_run_once(&self) -> Result<Option<Timestamp>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query("SELECT max(started_at) FROM perene.run WHERE finished_at IS NOT NULL")
            .fetch_one(&mut *transaction)
            .await?;
        let last: Option<PgTime> = row.try_get(0)?;
        transaction.commit().await?;
        Ok(last.map(PgTime::timestamp))
    }

    pub(super) async fn in_charge_since_once(&self, source: usize, now: Timestamp) -> Result<Timestamp, Trouble> {
        let name = self.source(source)?.table.to_string();
        let mut transaction = self.connections.begin().await?;
        let row = query("SELECT since FROM perene.source WHERE name = $1")
            .bind(&name)
            .fetch_optional(&mut *transaction)
            .await?;
        let row = match row {
            Some(row) => row,
            None => {
                query(
                    "INSERT INTO perene.source AS s (name, since) VALUES ($1, $2)
                     ON CONFLICT (name) DO UPDATE SET since = s.since RETURNING since",
                )
                .bind(&name)
                .bind(PgTime::from(now))
                .fetch_one(&mut *transaction)
                .await?
            }
        };
        let since: PgTime = row.try_get(0)?;
        transaction.commit().await?;
        Ok(since.timestamp())
    }

    pub(super) async fn forget_once(&self, before: Timestamp) -> Result<(), Trouble> {
        for sql in [
            "DELETE FROM perene.history WHERE ctid = ANY (ARRAY (SELECT ctid FROM perene.history WHERE at < $1 LIMIT $2))",
            "DELETE FROM perene.outbox WHERE id IN (SELECT id FROM perene.outbox WHERE done_at < $1 LIMIT $2)",
            "DELETE FROM perene.run WHERE seq IN (SELECT seq FROM perene.run WHERE finished_at < $1 LIMIT $2)",
        ] {
            loop {
                let mut transaction = self.connections.begin().await?;
                let done =
                    query(sql).bind(PgTime::from(before)).bind(FORGOTTEN_AT_ONCE).execute(&mut *transaction).await?;
                transaction.commit().await?;
                if done.rows_affected() == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}
