//! Reads what is remembered, beside the rows as the app has them now.

use jiff::Timestamp;
use sqlx::Row;

use super::PostgresStore;
use super::connect::{Transaction, query};
use super::row;
use super::shape::Shape;
use super::time::PgTime;
use super::trouble::Trouble;
use crate::store::Remembered;

/// Behind the columns of [`row::columns`].
const KEY: usize = 9;

impl PostgresStore {
    pub(super) async fn remembered_once(
        &self,
        after: Option<&(usize, String)>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Vec<Remembered>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let first = after.map_or(0, |after| after.0);
        let mut page = Vec::new();
        for source in first..self.sources.len() {
            let shape = self.shape(&mut transaction, source).await?;
            let mut last = after.filter(|after| after.0 == source).map(|after| after.1.clone());
            // Memories that cannot be read are passed over; the page is filled up from behind them.
            while page.len() < limit {
                let wanted = limit - page.len();
                let rows = read(&mut transaction, &shape, last.as_deref(), wanted, now).await?;
                let Some(end) = rows.last() else { break };
                last = Some(end.try_get(KEY)?);
                let is_end = rows.len() < wanted;
                for found in &rows {
                    page.extend(remembered(found, source, &shape)?);
                }
                if is_end {
                    break;
                }
            }
        }
        transaction.commit().await?;
        Ok(page)
    }
}

async fn read(
    transaction: &mut Transaction,
    shape: &Shape,
    last: Option<&str>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<sqlx::postgres::PgRow>, Trouble> {
    let sql = format!(
        "SELECT {columns}, c.id, c.version FROM perene.connection c LEFT JOIN {table} t ON t.{id} = {key}
         WHERE c.source = $1{after} AND NOT EXISTS (
             SELECT 1 FROM perene.lease l WHERE l.source = c.source AND l.id = c.id AND l.until > $3)
         ORDER BY c.id LIMIT $4",
        columns = row::columns(shape),
        table = shape.table,
        id = shape.id.column,
        key = shape.id.cast_stored("c.id"),
        // An empty text is a key like any other, and comes first.
        after = if last.is_some() { " AND c.id > $2" } else { "" },
    );
    let rows = query(sql)
        .bind(&shape.source)
        .bind(last)
        .bind(PgTime::from(now))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut **transaction)
        .await?;
    Ok(rows)
}

fn remembered(found: &sqlx::postgres::PgRow, source: usize, shape: &Shape) -> Result<Option<Remembered>, Trouble> {
    let id: String = found.try_get(KEY)?;
    let Some(memory) = row::read_memory(found.try_get(8)?, &shape.source, &id) else { return Ok(None) };
    let is_there = found.try_get::<Option<&str>, _>(0)?.is_some();
    let row = is_there.then(|| row::connection(found, shape)).transpose()?;
    Ok(Some(Remembered { source, id, version: found.try_get(KEY + 1)?, memory, row }))
}
