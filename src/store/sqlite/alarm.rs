//! Alarms that stand.

use perene_policy::app::Alarm;
use sqlx::Row;

use super::connect::Database;
use super::sql::{from_micros, micros};
use crate::store::{StoreError, StoredAlarm};

pub(super) async fn set(database: &Database, subject: &str, alarms: &[Alarm]) -> Result<Vec<Alarm>, StoreError> {
    let failed = |error| database.failed(error);
    let mut transaction = database.write().await?;
    let stood: Vec<String> = sqlx::query("SELECT kind FROM perene_alarm WHERE subject = ?")
        .bind(subject)
        .fetch_all(&mut *transaction)
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect())
        .map_err(failed)?;
    sqlx::query("DELETE FROM perene_alarm WHERE subject = ?")
        .bind(subject)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    for alarm in alarms {
        sqlx::query(
            "INSERT INTO perene_alarm (subject, kind, since, text) VALUES (?, ?, ?, ?)
             ON CONFLICT (subject, kind) DO UPDATE SET since = excluded.since, text = excluded.text",
        )
        .bind(subject)
        .bind(alarm.kind)
        .bind(micros(alarm.since))
        .bind(&alarm.text)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    Ok(alarms.iter().filter(|alarm| !stood.iter().any(|kind| kind == alarm.kind)).cloned().collect())
}

pub(super) async fn all(database: &Database) -> Result<Vec<StoredAlarm>, StoreError> {
    let failed = |error| database.failed(error);
    let rows = sqlx::query("SELECT subject, kind, since, text FROM perene_alarm ORDER BY since, subject, kind")
        .fetch_all(&mut *database.read().await?)
        .await
        .map_err(failed)?;
    rows.iter()
        .map(|row| {
            Ok(StoredAlarm {
                subject: row.try_get(0)?,
                kind: row.try_get(1)?,
                since: from_micros(row.try_get(2)?),
                text: row.try_get(3)?,
            })
        })
        .collect::<Result<_, _>>()
        .map_err(failed)
}
