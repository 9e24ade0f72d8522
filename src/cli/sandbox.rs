//! `perene sandbox`: the simulated Meta as a server.

use std::time::Duration;

use tokio::net::TcpListener;

use super::args::{Global, Sandbox};
use super::exit::Exit;
use super::failure::Failure;
use super::{assemble, log_without_configuration, out, signal};
use crate::config::Level;
use crate::provider::sandbox::{self, SandboxSettings, Shares};

pub(super) async fn sandbox(args: &Sandbox, global: &Global) -> Result<Exit, Failure> {
    log_without_configuration(global, Level::Info);
    let shares = match &args.shares {
        Some(text) => Shares::parse(text).map_err(|error| Failure::wrong_use(format!("`--shares`: {error}")))?,
        None => Shares::default(),
    };
    let latency =
        Duration::try_from(args.latency).map_err(|_| Failure::wrong_use("`--latency` must not be negative"))?;
    let mut stop = signal::stop_on_signal()?;
    let cannot = |error: std::io::Error| {
        Failure::could_not_work(format!("cannot listen on `{}`: {error}; `127.0.0.1:0` picks a free port", args.listen))
    };
    let listener = TcpListener::bind(args.listen).await.map_err(cannot)?;
    out::say(&format!("http://{}", listener.local_addr().map_err(cannot)?));
    let served =
        sandbox::Sandbox::new(SandboxSettings { seed: args.seed, latency, shares, ..SandboxSettings::default() });
    sandbox::serve(listener, served, assemble::clock(), async move { stop.wait().await }).await.map_err(cannot)?;
    Ok(Exit::Done)
}
