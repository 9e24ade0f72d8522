//! `perene refresh`: one run now.

use std::time::Duration;

use super::args::{Format, Global, Refresh};
use super::exit::Exit;
use super::failure::Failure;
use super::progress::Progress;
use super::{assemble, ids, load, out, signal, table};
use crate::engine::{Engine, Report, RunKind, RunRequest, Stop};

/// How long messages may take to leave after the run; those that do not leave go with a later run.
const OUTBOX_TURN: Duration = Duration::from_secs(60);

pub(super) async fn refresh(args: &Refresh, global: &Global) -> Result<Exit, Failure> {
    let config = load(global)?;
    let stop = signal::stop_on_signal()?;
    let clock = assemble::clock();
    let store = assemble::store(&config, &clock, false).await?;
    let engine = assemble::engine(&config, store, clock)?;
    engine.check().await?;
    if !args.dry_run {
        assemble::journal(&config, &engine).await?;
    }
    let mut request = RunRequest { force: args.force, dry_run: args.dry_run, ..RunRequest::all(RunKind::ByHand) };
    for text in &args.ids {
        let found = ids::find(engine.store().as_ref(), engine.sources(), text).await?;
        if !request.ids.contains(&found) {
            request.ids.push(found);
        }
    }
    let report = run_with_progress(&engine, &request, &stop, args.report.format == Format::Text).await?;
    if !request.dry_run {
        // The run is done and on record: what cannot be sent now is sent by a later one.
        if let Err(error) = engine.send_outbox(OUTBOX_TURN, &stop).await {
            tracing::error!("messages wait for a later run: {error}");
        }
    }
    engine.store().close().await;
    match args.report.format {
        Format::Json => out::say(&report.to_json().to_string()),
        Format::Text => out::say(&table::of_run(&report)),
    }
    Ok(exit_of(&report))
}

/// Makes a run, with a progress bar on a terminal.
pub(super) async fn run_with_progress(
    engine: &Engine,
    request: &RunRequest,
    stop: &Stop,
    wants_bar: bool,
) -> Result<Report, Failure> {
    let progress = Progress::new(wants_bar && !request.dry_run);
    if progress.is_shown() {
        let rehearsal = RunRequest { dry_run: true, ..request.clone() };
        progress.begin(engine.run(&rehearsal, stop, &|_| {}).await?.due);
    }
    let show = |report: &Report| progress.show(report);
    let report = stop.bound(engine.clock(), engine.run(request, stop, &show)).await;
    progress.end();
    match report {
        Some(report) => Ok(report?),
        None => Err(Failure::could_not_work("interrupted, and what was in flight could not be finished in time")),
    }
}

pub(super) fn exit_of(report: &Report) -> Exit {
    if report.was_interrupted {
        Exit::CouldNotWork
    } else if report.has_trouble() {
        Exit::CompletedWithTrouble
    } else {
        Exit::Done
    }
}
