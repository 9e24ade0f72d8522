//! Messages that wait for their delivery.

use jiff::Timestamp;
use sqlx::{Row, Sqlite, Transaction};

use super::connect::Database;
use super::sql::{Mapped, from_micros, micros};
use crate::store::{Outgoing, Settled, StoreError};

/// Puts a message into the outbox; the second one of the same name is dropped.
pub(super) async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    sources: &[Mapped],
    message: &Outgoing,
) -> Result<(), sqlx::Error> {
    let Some(mapped) = sources.get(message.source) else { return Ok(()) };
    sqlx::query(
        "INSERT INTO perene_outbox (id, incident_id, source, connection_id, user_id, channel, kind, payload,
             created_at, next_at, attempts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10) ON CONFLICT (id) DO NOTHING",
    )
    .bind(&message.id)
    .bind(&message.incident_id)
    .bind(&mapped.name)
    .bind(&message.connection_id)
    .bind(&message.user_id)
    .bind(&message.channel)
    .bind(&message.kind)
    .bind(&message.payload)
    .bind(micros(message.created_at))
    .bind(message.attempts)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// A message of a source that is no longer configured stays where it is.
pub(super) async fn take(
    database: &Database,
    sources: &[Mapped],
    limit: usize,
    now: Timestamp,
    until: Timestamp,
) -> Result<Vec<Outgoing>, StoreError> {
    let failed = |error| database.failed(error);
    let names: Vec<&str> = sources.iter().map(|mapped| mapped.name.as_str()).collect();
    let names = super::claim::json(&names);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // Mostly there is nothing to send, and to see that takes no lock.
    let waiting = sqlx::query(
        "SELECT 1 FROM perene_outbox WHERE done_at IS NULL AND next_at <= ?1
         AND (lease_until IS NULL OR lease_until <= ?1) LIMIT 1",
    )
    .bind(micros(now))
    .fetch_optional(&mut *database.read().await?)
    .await
    .map_err(failed)?;
    if waiting.is_none() {
        return Ok(Vec::new());
    }
    let mut transaction = database.write().await?;
    let rows = sqlx::query(
        "UPDATE perene_outbox SET lease_until = ?2 WHERE id IN (
             SELECT o.id FROM perene_outbox AS o JOIN json_each(?4) AS s ON s.value = o.source
             WHERE o.done_at IS NULL AND o.next_at <= ?1 AND (o.lease_until IS NULL OR o.lease_until <= ?1)
             ORDER BY o.created_at, o.id LIMIT ?3)
         RETURNING id, incident_id, source, connection_id, user_id, channel, kind, payload, created_at, attempts",
    )
    .bind(micros(now))
    .bind(micros(until))
    .bind(limit)
    .bind(names)
    .fetch_all(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    let read = |row: &sqlx::sqlite::SqliteRow| -> Result<Option<Outgoing>, sqlx::Error> {
        let name: String = row.try_get(2)?;
        let Some(source) = sources.iter().position(|mapped| mapped.name == name) else { return Ok(None) };
        Ok(Some(Outgoing {
            id: row.try_get(0)?,
            incident_id: row.try_get(1)?,
            source,
            connection_id: row.try_get(3)?,
            user_id: row.try_get(4)?,
            channel: row.try_get(5)?,
            kind: row.try_get(6)?,
            payload: row.try_get(7)?,
            created_at: from_micros(row.try_get(8)?),
            attempts: row.try_get(9)?,
        }))
    };
    let mut taken = Vec::with_capacity(rows.len());
    for row in &rows {
        taken.extend(read(row).map_err(failed)?);
    }
    taken.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    Ok(taken)
}

pub(super) async fn settle(database: &Database, id: &str, settled: &Settled, now: Timestamp) -> Result<(), StoreError> {
    let failed = |error| database.failed(error);
    let (done_at, next_at, text) = match settled {
        Settled::Sent => (Some(now), None, None),
        Settled::Dropped(text) => (Some(now), None, Some(text)),
        Settled::Later(at, text) => (None, Some(*at), Some(text)),
    };
    let mut transaction = database.write().await?;
    sqlx::query(
        "UPDATE perene_outbox SET lease_until = NULL, attempts = attempts + 1, error = ?, done_at = ?,
             next_at = coalesce(?, next_at)
         WHERE id = ? AND done_at IS NULL",
    )
    .bind(text)
    .bind(done_at.map(micros))
    .bind(next_at.map(micros))
    .bind(id)
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}
