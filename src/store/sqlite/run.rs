//! The runs on record.

use jiff::Timestamp;
use sqlx::Row;

use super::connect::Database;
use super::sql::{from_micros, micros};
use crate::store::StoreError;

pub(super) async fn begin(database: &Database, kind: &str, holder: &str, now: Timestamp) -> Result<i64, StoreError> {
    let failed = |error| database.failed(error);
    let mut transaction = database.write().await?;
    let begun = sqlx::query("INSERT INTO perene_run (kind, replica, started_at) VALUES (?, ?, ?)")
        .bind(kind)
        .bind(holder)
        .bind(micros(now))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(begun.last_insert_rowid())
}

pub(super) async fn finish(database: &Database, run: i64, report: &str, now: Timestamp) -> Result<(), StoreError> {
    let failed = |error| database.failed(error);
    let mut transaction = database.write().await?;
    sqlx::query("UPDATE perene_run SET finished_at = ?, report = ? WHERE seq = ?")
        .bind(micros(now))
        .bind(report)
        .bind(run)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

pub(super) async fn last(database: &Database) -> Result<Option<Timestamp>, StoreError> {
    let failed = |error| database.failed(error);
    let row = sqlx::query("SELECT max(started_at) FROM perene_run WHERE finished_at IS NOT NULL")
        .fetch_one(&mut *database.read().await?)
        .await
        .map_err(failed)?;
    let started_at: Option<i64> = row.try_get(0).map_err(failed)?;
    Ok(started_at.map(from_micros))
}
