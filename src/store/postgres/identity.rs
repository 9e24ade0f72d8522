//! Which database this is, and which server answers for it.

use std::sync::atomic::Ordering;

use sqlx::Row;

use super::PostgresStore;
use super::connect::query;
use super::time::PgTime;
use super::trouble::Trouble;
use crate::store::Incarnation;

/// The cluster and the timeline on which it writes. A standby writes on none.
const TIMELINE: &str = "CASE WHEN NOT pg_is_in_recovery() THEN concat_ws(' ', \
    (SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8)) END";

impl PostgresStore {
    pub(super) async fn identity_once(&self) -> Result<String, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query("SELECT id::text FROM perene.identity").fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(row.try_get(0)?)
    }

    /// A restart loses nothing that was confirmed, so what counts is the line of history: the cluster and its timeline,
    /// which every standby that takes over leaves for a new one. A server that speaks this protocol and has no timeline
    /// is known by its start alone. Its address would be another one for each way that leads to it.
    pub(super) async fn incarnation_once(&self) -> Result<Incarnation, Trouble> {
        let has_timeline = !self.is_without_timeline.load(Ordering::Relaxed);
        match self.meet_server(if has_timeline { TIMELINE } else { "NULL" }).await {
            Err(trouble) if has_timeline && trouble.is_about_the_server() => {
                let met = self.meet_server("NULL").await?;
                self.is_without_timeline.store(true, Ordering::Relaxed);
                Ok(met)
            }
            met => met,
        }
    }

    async fn meet_server(&self, timeline: &str) -> Result<Incarnation, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let row = query(format!(
            "WITH me (process, timeline) AS MATERIALIZED (
                 SELECT extract(epoch FROM pg_postmaster_start_time())::text, {timeline}
             )
             SELECT me.process, coalesce(me.timeline, me.process), s.name IS NULL, s.since
             FROM me LEFT JOIN perene.server s ON s.name = coalesce(me.timeline, me.process)"
        ))
        .fetch_one(&mut *transaction)
        .await?;
        let process = row.try_get(0)?;
        let mut since: Option<PgTime> = row.try_get(3)?;
        if row.try_get(2)? {
            // Of several who see it first, the first one's word counts.
            let row = query(
                "INSERT INTO perene.server AS s (name, since)
                 SELECT $1::text, clock_timestamp() WHERE EXISTS (SELECT 1 FROM perene.server)
                 UNION ALL SELECT $1::text, NULL WHERE NOT EXISTS (SELECT 1 FROM perene.server)
                 ON CONFLICT (name) DO UPDATE SET since = s.since RETURNING since",
            )
            .bind(row.try_get::<String, _>(1)?)
            .fetch_one(&mut *transaction)
            .await?;
            since = row.try_get(0)?;
        }
        transaction.commit().await?;
        Ok(Incarnation { process, since: since.map(PgTime::timestamp) })
    }
}
