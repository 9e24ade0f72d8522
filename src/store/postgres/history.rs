//! A connection's history.

use sqlx::Row;

use super::PostgresStore;
use super::connect::query;
use super::time::PgTime;
use super::trouble::Trouble;
use crate::store::HistoryLine;

impl PostgresStore {
    pub(super) async fn history_once(
        &self,
        source: usize,
        id: &str,
        limit: usize,
    ) -> Result<Vec<HistoryLine>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let shape = self.shape(&mut transaction, source).await?;
        let rows = query(
            "SELECT at, event, outcome, text FROM perene.history WHERE source = $1 AND id = $2 ORDER BY seq DESC LIMIT $3",
        )
        .bind(&shape.source)
        .bind(shape.id.canonical(id))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let lines = rows.iter().map(|row| {
            Ok(HistoryLine {
                at: row.try_get::<PgTime, _>(0)?.timestamp(),
                event: row.try_get(1)?,
                outcome: row.try_get(2)?,
                text: row.try_get(3)?,
            })
        });
        Ok(lines.collect::<Result<_, sqlx::Error>>()?)
    }
}
