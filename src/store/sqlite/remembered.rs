//! What is remembered of connections, beside the app's rows.

use jiff::Timestamp;
use perene_policy::{Connection, Memory};
use sqlx::{Row, Sqlite, Transaction};

use super::connect::Database;
use super::row;
use super::shape::Shapes;
use super::sql::{Mapped, Statement, micros};
use crate::store::{Remembered, StoreError};

/// Makes `memory` be what is remembered. `before` is the version of what was.
pub(super) async fn keep(
    transaction: &mut Transaction<'_, Sqlite>,
    mapped: &Mapped,
    connection: &Connection,
    memory: Option<&Memory>,
    before: Option<i64>,
    version: i64,
) -> Result<(), sqlx::Error> {
    let Some(memory) = memory else {
        if before.is_some() {
            sqlx::query("DELETE FROM perene_connection WHERE source = ? AND id = ?")
                .bind(&mapped.name)
                .bind(&connection.id)
                .execute(&mut **transaction)
                .await?;
        }
        return Ok(());
    };
    let json = serde_json::to_string(memory).expect("a memory is always valid JSON");
    sqlx::query(
        "INSERT INTO perene_connection (source, id, version, generation, user_table, user_id, flagged, state,
             incident_id, expires_at, next_try_at, memory)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (source, id) DO UPDATE SET version = excluded.version, generation = excluded.generation,
             user_table = coalesce(excluded.user_table, user_table), user_id = coalesce(excluded.user_id, user_id),
             flagged = excluded.flagged, state = excluded.state, incident_id = excluded.incident_id,
             expires_at = excluded.expires_at, next_try_at = excluded.next_try_at, memory = excluded.memory",
    )
    .bind(&mapped.name)
    .bind(&connection.id)
    .bind(version)
    .bind(memory.generation.as_str())
    .bind(mapped.source.user.as_ref().map(|user| user.table.to_string()))
    .bind(&connection.user_id)
    .bind(memory.is_flagged())
    .bind(memory.state.name())
    .bind(memory.incident.as_ref().map(|incident| incident.id.as_str()))
    .bind(memory.expires_at.map(micros))
    .bind(memory.next_try_at.map(micros))
    .bind(json)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

pub(super) async fn remembered(
    database: &Database,
    sources: &[Mapped],
    after: Option<(usize, String)>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Remembered>, StoreError> {
    let failed = |error| database.failed(error);
    let mut reader = database.read().await?;
    let mut page: Vec<Remembered> = Vec::new();
    let first = after.as_ref().map_or(0, |(source, _)| *source);
    for (source, mapped) in sources.iter().enumerate().skip(first) {
        if page.len() >= limit {
            break;
        }
        let shapes = Shapes::of(&mut reader, mapped).await.map_err(failed)?;
        let mut statement = Statement::new(format!(
            "SELECT c.id, c.version, {key} IS NOT NULL, {columns} FROM perene_connection AS c
             LEFT JOIN {table} AS t ON {key} = c.id
             LEFT JOIN perene_lease AS l ON l.source = c.source AND l.id = c.id
             WHERE (l.until IS NULL OR l.until <= ",
            key = shapes.key,
            columns = row::columns(mapped),
            table = mapped.table,
        ));
        statement.push_bind(micros(now)).push(") AND c.source = ").push_bind(mapped.name.clone());
        if let Some((_, id)) = after.as_ref().filter(|_| source == first) {
            statement.push(" AND c.id > ").push_bind(id.clone());
        }
        statement.push(" ORDER BY c.id LIMIT ").push_bind(i64::try_from(limit - page.len()).unwrap_or(i64::MAX));
        for row in statement.build().fetch_all(&mut *reader).await.map_err(failed)? {
            let id: String = row.try_get(0).map_err(failed)?;
            let json: Option<String> = row.try_get(3 + 8).map_err(failed)?;
            let Some(memory) = row::memory(&mapped.name, &id, json) else { continue };
            let is_there: bool = row.try_get(2).map_err(failed)?;
            let connection = if is_there { Some(row::connection(mapped, &row, 3).map_err(failed)?) } else { None };
            let version = row.try_get(1).map_err(failed)?;
            page.push(Remembered { source, id, version, memory, row: connection });
        }
    }
    Ok(page)
}

pub(super) async fn is_open(database: &Database, incident_id: &str) -> Result<bool, StoreError> {
    let found = sqlx::query("SELECT 1 FROM perene_connection WHERE incident_id = ?")
        .bind(incident_id)
        .fetch_optional(&mut *database.read().await?)
        .await
        .map_err(|error| database.failed(error))?;
    Ok(found.is_some())
}
