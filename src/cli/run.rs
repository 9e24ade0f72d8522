//! `perene run`: the service.

use std::sync::Arc;
use std::time::Duration;

use super::args::Global;
use super::exit::Exit;
use super::failure::Failure;
use super::{assemble, load, signal};
use crate::clock::Clock;
use crate::config::Config;
use crate::engine::Stop;
use crate::store::Store;

/// A database that starts together with the service is waited for. Not for long: who has mistyped its name must
/// be told by the exit code too.
const START_MAX: Duration = Duration::from_secs(15);

/// How often it is tried in that time.
const START_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(global: &Global) -> Result<Exit, Failure> {
    let config = load(global)?;
    let stop = signal::stop_on_signal()?;
    let clock = assemble::clock();
    let Some(store) = connect(&config, &clock, &stop).await? else { return Ok(Exit::Done) };
    let engine = assemble::engine(&config, store, clock)?;
    engine.check().await?;
    assemble::journal(&config, &engine).await?;
    tracing::info!(
        "serving {}: runs at `{}` in {}",
        config.database.url.describe(),
        config.schedule.cron,
        config.schedule.time_zone_name
    );
    if config.mail.is_none() {
        tracing::warn!("no `mail.smtp_url` is set: customers are warned by the flag alone");
    }
    let served = engine.serve(stop).await;
    engine.store().close().await;
    served?;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Opens the database; `None` if the stop was asked for before that was possible.
async fn connect(config: &Config, clock: &Arc<dyn Clock>, stop: &Stop) -> Result<Option<Arc<dyn Store>>, Failure> {
    let begun = clock.monotonic();
    let mut is_told = false;
    while !stop.is_set() {
        match assemble::store(config, clock, false).await {
            Ok(store) => return Ok(Some(store)),
            Err(error) if error.is_away() && clock.monotonic().saturating_sub(begun) < START_MAX => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!("waiting {} s for the database: {error}", START_MAX.as_secs());
                }
                clock.sleep(START_EVERY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}
