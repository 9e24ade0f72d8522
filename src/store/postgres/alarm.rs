//! Alarms: what stands on a subject is set as a whole.

use perene_policy::app::Alarm;
use sqlx::Row;

use super::PostgresStore;
use super::connect::query;
use super::time::PgTime;
use super::trouble::Trouble;
use crate::store::StoredAlarm;

impl PostgresStore {
    pub(super) async fn set_alarms_once(&self, subject: &str, alarms: &[Alarm]) -> Result<Vec<Alarm>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let kinds: Vec<&str> = alarms.iter().map(|alarm| alarm.kind).collect();
        query("DELETE FROM perene.alarm WHERE subject = $1 AND NOT (kind = ANY ($2::text[]))")
            .bind(subject)
            .bind(&kinds)
            .execute(&mut *transaction)
            .await?;
        let mut raised = Vec::new();
        for alarm in alarms {
            // One of two replicas makes the row, and only that one tells of it. An alarm that stands keeps
            // the time at which it was raised.
            let made = query(
                "INSERT INTO perene.alarm (subject, kind, since, text) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (subject, kind) DO NOTHING",
            )
            .bind(subject)
            .bind(alarm.kind)
            .bind(PgTime::from(alarm.since))
            .bind(&alarm.text)
            .execute(&mut *transaction)
            .await?;
            if made.rows_affected() == 1 {
                raised.push(alarm.clone());
                continue;
            }
            query("UPDATE perene.alarm SET text = $3 WHERE subject = $1 AND kind = $2 AND text <> $3")
                .bind(subject)
                .bind(alarm.kind)
                .bind(&alarm.text)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(raised)
    }

    pub(super) async fn alarms_once(&self) -> Result<Vec<StoredAlarm>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let rows = query("SELECT subject, kind, since, text FROM perene.alarm ORDER BY since, subject, kind")
            .fetch_all(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let alarms = rows.iter().map(|row| {
            Ok(StoredAlarm {
                subject: row.try_get(0)?,
                kind: row.try_get(1)?,
                since: row.try_get::<PgTime, _>(2)?.timestamp(),
                text: row.try_get(3)?,
            })
        });
        Ok(alarms.collect::<Result<_, sqlx::Error>>()?)
    }
}
