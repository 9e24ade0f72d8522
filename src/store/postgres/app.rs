//! What is known of the apps at the providers, shared by all replicas: the first to save wins.

use perene_policy::Fingerprint;
use perene_policy::app::App;
use sqlx::Row;

use super::PostgresStore;
use super::connect::query;
use super::trouble::Trouble;
use crate::store::StoreError;

impl PostgresStore {
    pub(super) async fn app_once(&self, name: &str) -> Result<Option<(i64, App)>, Trouble> {
        let mut transaction = self.connections.begin().await?;
        let found = query("SELECT version, state FROM perene.app WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let Some(found) = found else { return Ok(None) };
        let app = serde_json::from_str(found.try_get(1)?).unwrap_or_else(|error| {
            // An app of no credentials: whoever reads it starts afresh, and can save over it.
            tracing::warn!("what is known of app `{name}` cannot be read, and is forgotten: {error}");
            App::new(Fingerprint::from_stored(""))
        });
        Ok(Some((found.try_get(0)?, app)))
    }

    pub(super) async fn save_app_once(&self, name: &str, version: Option<i64>, app: &App) -> Result<bool, Trouble> {
        let state = serde_json::to_string(app).map_err(|error| StoreError::Refused {
            text: format!("what is known of app `{name}` cannot be written as JSON: {error}"),
            may_pass: false,
        })?;
        let mut transaction = self.connections.begin().await?;
        let done = match version {
            None => {
                query("INSERT INTO perene.app (name, version, state) VALUES ($1, 1, $2) ON CONFLICT (name) DO NOTHING")
                    .bind(name)
                    .bind(state)
                    .execute(&mut *transaction)
                    .await?
            }
            Some(version) => {
                query("UPDATE perene.app SET version = version + 1, state = $2 WHERE name = $1 AND version = $3")
                    .bind(name)
                    .bind(state)
                    .bind(version)
                    .execute(&mut *transaction)
                    .await?
            }
        };
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}
