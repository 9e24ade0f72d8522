//! Which database this is, and which server answers for it.

use sqlx::Row;

use super::PostgresStore;
use super::connect::query;
use super::time::PgTime;
use super::trouble::Trouble;
use crate::store::Incarnation;

impl PostgresStore {
    pub(super) async fn identity_once(&self) -> Result<String, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query("SELECT id::text FROM perene.identity").fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(row.try_get(0)?)
    }

    /// A server is named by its start, to the microsecond: a standby that takes over has its own. Its address would be
    /// another one for each way that leads to it, and the timeline is not known to every server that speaks this protocol.
    pub(super) async fn incarnation_once(&self) -> Result<Incarnation, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query(
            "SELECT me.name, s.name IS NULL, s.since
             FROM (SELECT extract(epoch FROM pg_postmaster_start_time())::text) AS me (name)
                  LEFT JOIN perene.server s ON s.name = me.name",
        )
        .fetch_one(&mut *transaction)
        .await?;
        let name: String = row.try_get(0)?;
        let mut since: Option<PgTime> = row.try_get(2)?;
        if row.try_get(1)? {
            // Of several who see it first, the first one's word counts.
            let row = query(
                "INSERT INTO perene.server AS s (name, since)
                 SELECT $1::text, clock_timestamp() WHERE EXISTS (SELECT 1 FROM perene.server)
                 UNION ALL SELECT $1::text, NULL WHERE NOT EXISTS (SELECT 1 FROM perene.server)
                 ON CONFLICT (name) DO UPDATE SET since = s.since RETURNING since",
            )
            .bind(&name)
            .fetch_one(&mut *transaction)
            .await?;
            since = row.try_get(0)?;
        }
        transaction.commit().await?;
        Ok(Incarnation { name, since: since.map(PgTime::timestamp) })
    }
}
