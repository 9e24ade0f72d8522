//! Moves and gives back leases.

use jiff::Timestamp;
use uuid::Uuid;

use super::connect::Database;
use super::sql::{Mapped, micros};
use crate::store::{Lease, StoreError};

pub(super) async fn extend(database: &Database, fence: Uuid, until: Timestamp) -> Result<u64, StoreError> {
    let failed = |error| database.failed(error);
    let mut transaction = database.write().await?;
    let extended = sqlx::query("UPDATE perene_lease SET until = ? WHERE fence = ?")
        .bind(micros(until))
        .bind(fence.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(extended.rows_affected())
}

pub(super) async fn release(database: &Database, sources: &[Mapped], leases: &[Lease]) -> Result<(), StoreError> {
    let given: Vec<(&str, &str, String)> = leases
        .iter()
        .filter_map(|lease| {
            Some((sources.get(lease.source)?.name.as_str(), lease.id.as_str(), lease.fence.to_string()))
        })
        .collect();
    if given.is_empty() {
        return Ok(());
    }
    let failed = |error| database.failed(error);
    let mut transaction = database.write().await?;
    sqlx::query(
        "DELETE FROM perene_lease WHERE (source, id, fence) IN
         (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))",
    )
    .bind(super::claim::json(&given))
    .execute(&mut *transaction)
    .await
    .map_err(failed)?;
    transaction.commit().await.map_err(failed)
}
