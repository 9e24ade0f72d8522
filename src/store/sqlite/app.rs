//! What is known of apps at providers, saved by whoever is first.

use perene_policy::app::App;
use sqlx::Row;

use super::connect::Database;
use crate::store::StoreError;

pub(super) async fn app(database: &Database, name: &str) -> Result<Option<(i64, App)>, StoreError> {
    let failed = |error| database.failed(error);
    let row = sqlx::query("SELECT version, state FROM perene_app WHERE name = ?")
        .bind(name)
        .fetch_optional(&mut *database.read().await?)
        .await
        .map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let json: String = row.try_get(1).map_err(failed)?;
    let app = serde_json::from_str(&json).map_err(|error| StoreError::Refused {
        text: format!("what is known of app `{name}` cannot be read ({error}): delete its row in `perene_app`"),
        may_pass: false,
    })?;
    Ok(Some((row.try_get(0).map_err(failed)?, app)))
}

pub(super) async fn save(database: &Database, name: &str, version: Option<i64>, app: &App) -> Result<bool, StoreError> {
    let failed = |error| database.failed(error);
    let json = serde_json::to_string(app).expect("an app's state is always valid JSON");
    let mut transaction = database.write().await?;
    let query = match version {
        None => {
            sqlx::query("INSERT INTO perene_app (name, state, version) VALUES (?, ?, 1) ON CONFLICT (name) DO NOTHING")
                .bind(name)
                .bind(json)
        }
        Some(version) => {
            sqlx::query("UPDATE perene_app SET state = ?, version = version + 1 WHERE name = ? AND version = ?")
                .bind(json)
                .bind(name)
                .bind(version)
        }
    };
    let saved = query.execute(&mut *transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(saved.rows_affected() > 0)
}
