//! Which database this is, and which server answers for it.

use sqlx::Row;

use super::PostgresStore;
use super::connect::query;
use super::trouble::Trouble;

impl PostgresStore {
    pub(super) async fn identity_once(&self) -> Result<String, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query("SELECT id::text FROM perene.identity").fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(row.try_get(0)?)
    }

    /// The start of the server and its address: a standby that takes over has both of its own. The timeline would
    /// tell a promotion as well, but not every server that speaks this protocol has one.
    pub(super) async fn incarnation_once(&self) -> Result<String, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query(
            "SELECT concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), inet_server_addr(), inet_server_port())",
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(row.try_get(0)?)
    }
}
