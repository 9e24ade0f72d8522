//! The outbox: messages that wait for their channel, leased while one is being delivered.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::connect::query;
use super::time::PgTime;
use super::trouble::Trouble;
use crate::store::{Outgoing, Recipient, Settled};

impl PostgresStore {
    pub(super) async fn take_outbox_once(
        &self,
        limit: usize,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Outgoing>, Trouble> {
        let sources: Vec<String> = self.sources.iter().map(|source| source.table.to_string()).collect();
        let mut transaction = self.connections.begin().await?;
        let rows = query(
            "WITH due AS (
                 SELECT id FROM perene.outbox
                 WHERE done_at IS NULL AND next_at <= $1 AND (lease_until IS NULL OR lease_until <= $1)
                   AND source = ANY ($4::text[])
                 ORDER BY created_at, seq LIMIT $3 FOR UPDATE SKIP LOCKED
             ), taken AS (
                 UPDATE perene.outbox o SET lease_until = $2 FROM due WHERE o.id = due.id RETURNING o.*
             )
             SELECT id, incident_id, source, connection_id, user_id, channel, kind, payload, created_at, attempts
             FROM taken ORDER BY created_at, seq",
        )
        .bind(PgTime::from(now))
        .bind(PgTime::from(until))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(&sources)
        .fetch_all(&mut *transaction)
        .await?;
        let messages = rows.iter().map(|row| message(row, &sources)).collect::<Result<_, _>>()?;
        transaction.commit().await?;
        Ok(messages)
    }

    pub(super) async fn settle_outbox_once(&self, id: &str, settled: &Settled, now: Timestamp) -> Result<(), Trouble> {
        let (done_at, next_at, text) = match settled {
            Settled::Sent => (Some(now), None, None),
            Settled::Dropped(text) => (Some(now), None, Some(text)),
            Settled::Later(at, text) => (None, Some(*at), Some(text)),
        };
        let tries = i32::from(!matches!(settled, Settled::Dropped(_)));
        let mut transaction = self.connections.begin().await?;
        query(
            "UPDATE perene.outbox SET done_at = $2, next_at = coalesce($3, next_at), error = $4, lease_until = NULL,
                                      attempts = attempts + $5
             WHERE id = $1 AND done_at IS NULL",
        )
        .bind(id)
        .bind(done_at.map(PgTime::from))
        .bind(next_at.map(PgTime::from))
        .bind(text)
        .bind(tries)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    pub(super) async fn is_open_once(&self, incident_id: &str) -> Result<bool, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query("SELECT EXISTS (SELECT 1 FROM perene.connection WHERE incident_id = $1)")
            .bind(incident_id)
            .fetch_one(&mut *transaction)
            .await?;
        let is_open = row.try_get(0)?;
        transaction.commit().await?;
        Ok(is_open)
    }

    pub(super) async fn recipient_once(&self, source: usize, user_id: &str) -> Result<Option<Recipient>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let shape = self.shape(&mut transaction, source).await?;
        let found = shape.user.as_ref().and_then(|user| Some((user, user.id.canonical(user_id)?)));
        let Some((user, id)) = found else {
            transaction.commit().await?;
            return Ok(None);
        };
        let username = user.username.as_ref().map_or_else(|| "NULL::text".to_owned(), |name| format!("t.{name}::text"));
        let sql = format!(
            "SELECT t.{}::text, {username} FROM {} t WHERE t.{} = {} LIMIT 1",
            user.email,
            user.table,
            user.id.column,
            user.id.cast("$1::text")
        );
        let row = query(sql).bind(id).fetch_optional(&mut *transaction).await?;
        transaction.commit().await?;
        let recipient = row.map(|row| Ok(Recipient { email: row.try_get(0)?, username: row.try_get(1)? }));
        Ok(recipient.transpose().map_err(|error: sqlx::Error| error)?)
    }
}

fn message(row: &PgRow, sources: &[String]) -> Result<Outgoing, sqlx::Error> {
    let source: String = row.try_get(2)?;
    Ok(Outgoing {
        id: row.try_get(0)?,
        incident_id: row.try_get(1)?,
        source: sources.iter().position(|name| *name == source).unwrap_or(0),
        connection_id: row.try_get(3)?,
        user_id: row.try_get(4)?,
        channel: row.try_get(5)?,
        kind: row.try_get(6)?,
        payload: row.try_get(7)?,
        created_at: row.try_get::<PgTime, _>(8)?.timestamp(),
        attempts: u32::try_from(row.try_get::<i32, _>(9)?).unwrap_or(0),
    })
}
