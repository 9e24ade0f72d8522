//! `perene run`: the service.

use super::args::Global;
use super::exit::Exit;
use super::failure::Failure;
use super::{assemble, load, signal};

pub(super) async fn run(global: &Global) -> Result<Exit, Failure> {
    let config = load(global)?;
    let stop = signal::stop_on_signal()?;
    let clock = assemble::clock();
    let store = assemble::store(&config, &clock, false).await?;
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
