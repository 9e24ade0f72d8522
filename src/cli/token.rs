//! `perene token ID`: prints a token that is good for a while.

use super::args::{Global, Token};
use super::exit::Exit;
use super::failure::Failure;
use super::{assemble, ids, load, out, signal};
use crate::engine::token::NoToken;

pub(super) async fn token(args: &Token, global: &Global) -> Result<Exit, Failure> {
    let config = load(global)?;
    let stop = signal::stop_on_signal()?;
    let clock = assemble::clock();
    let store = assemble::store(&config, &clock, false).await?;
    let engine = assemble::engine(&config, store, clock)?;
    engine.check().await?;
    let (source, id) = ids::find(engine.store().as_ref(), engine.sources(), &args.id).await?;
    assemble::journal(&config, &engine).await?;
    let handed = engine.token(source, &id, args.min_life, &stop).await;
    engine.store().close().await;
    let handed = handed.map_err(|error| match error {
        NoToken::Run(error) => error.into(),
        other => Failure::could_not_work(other.to_string()),
    })?;
    if handed.is_short {
        let left = handed.left.unwrap_or_default().as_secs();
        tracing::warn!("the token could not be refreshed: it is good for {left} s, less than was asked for");
    }
    out::say(handed.token.expose());
    Ok(Exit::Done)
}
