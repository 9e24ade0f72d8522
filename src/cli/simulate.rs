//! `perene simulate`: months in seconds, on invented connections or on the owner's own.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::args::{Format, Global, Simulate};
use super::exit::Exit;
use super::failure::Failure;
use super::written::Written;
use super::{log_without_configuration, out, rehearse, table};
use crate::config::Level;
use crate::simulate::{self, FAULTS, FaultList, Outcome, Request};

pub(super) async fn simulate(args: &Simulate, global: &Global) -> Result<Exit, Failure> {
    if args.faults.trim() == "help" {
        out::say(&list_of_faults());
        return Ok(Exit::Done);
    }
    let faults = FaultList::parse(&args.faults).map_err(|error| Failure::wrong_use(format!("`--faults`: {error}")))?;
    if let Some(late) = faults.beyond(args.days) {
        let text = format!("`--faults`: {late} begins when all is over: there are {} days, counted from 0", args.days);
        return Err(Failure::wrong_use(text));
    }
    if args.from_database {
        return rehearse::rehearse(args, global, &faults).await;
    }
    log_without_configuration(global, Level::Off);
    let request = Request {
        connections: usize::try_from(args.connections).unwrap_or(usize::MAX),
        days: args.days,
        seed: args.seed,
        faults,
        only: None,
        stop_at_first: false,
    };
    let mut written = Written::open(args.trace.as_deref(), args.calendar.as_deref())?;
    let bar = bar(args.days);
    let begun = super::assemble::clock();
    let outcome = simulate::simulate(&request, written.trace(), &mut |day| bar.set_position(u64::from(day)));
    bar.finish_and_clear();
    let seconds = begun.monotonic().as_secs_f64();
    let years = f64::from(args.days) / 365.0;
    eprintln!("simulated {years:.2} years of {} connections in {seconds:.1} s", args.connections);
    trace_is_whole(&outcome)?;
    written.calendar(|| simulate::calendar::draw(&outcome, &request.faults, &jiff::tz::TimeZone::UTC))?;
    let again = command(&request);
    out::say(&match args.report.format {
        Format::Json => json_of(&request, &outcome, &again).to_string(),
        Format::Text => text_of(&request, &outcome),
    });
    if outcome.is_well() {
        return Ok(Exit::Done);
    }
    if args.report.format == Format::Text {
        out::say(&format!("\nthe same again: {again}"));
        let hurt = outcome.violations.iter().find_map(|broken| Some((broken.connection?, broken.at)));
        if let Some((number, at)) = hurt {
            out::say(&format!("\nthe story of connection {number}, its end:"));
            for line in simulate::story(&request, number, at) {
                out::say(&format!("  {line}"));
            }
        }
    }
    Ok(Exit::CouldNotWork)
}

/// The command that takes the same course again.
fn command(request: &Request) -> String {
    format!(
        "perene simulate --connections {} --days {} --seed {} --faults {}",
        request.connections, request.days, request.seed, request.faults
    )
}

/// A trace that ends early must not be taken for the whole course.
pub(super) fn trace_is_whole(outcome: &Outcome) -> Result<(), Failure> {
    match &outcome.trace_error {
        Some(error) => Err(Failure::could_not_work(format!("the trace could not be written: {error}"))),
        None => Ok(()),
    }
}

/// A bar of days, on a terminal.
pub(super) fn bar(days: u32) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(u64::from(days)), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} day {pos} of {len}, {eta} to go")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar
}

fn list_of_faults() -> String {
    let mut list = table::plain();
    for fault in FAULTS {
        list.add_row([fault.name, fault.text]);
    }
    format!(
        "none, all, or a list of NAME[:DURATION][@dayN], such as `meta-outage:12h@day30,pause`:\n\n{}",
        list.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    )
}

fn text_of(request: &Request, outcome: &Outcome) -> String {
    let sum = |of: fn(&simulate::Day) -> u64| outcome.days.iter().map(of).sum::<u64>();
    let mut text = format!(
        "{} connections, {} days, seed {}, faults: {}\n\n",
        request.connections, request.days, request.seed, request.faults
    );
    for (name, value) in [
        ("runs", sum(|day| day.runs)),
        ("calls", sum(|day| day.calls)),
        ("refreshed", sum(|day| day.refreshed)),
        ("mails", sum(|day| day.mails)),
        ("dark", outcome.dark),
    ] {
        text.push_str(&format!("{name}: {value}\n"));
    }
    if let Some((at, calls)) = outcome.busiest {
        text.push_str(&format!("busiest minute: {} with {calls} calls\n", at.strftime("%Y-%m-%d %H:%M UTC")));
    }
    let struck: Vec<String> =
        outcome.faults.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    if !struck.is_empty() {
        text.push_str(&format!("\nfaults that struck ({} kinds): {}\n", struck.len(), struck.join(", ")));
    }
    let silent = request.faults.silent(outcome);
    if !silent.is_empty() {
        text.push_str(&format!("\nasked for, and met nothing to strike at: {}\n", silent.join(", ")));
    }
    text.push_str(&format!(
        "\ndark though refreshable: {}\ndark without warning: {}\n",
        outcome.dark_though_refreshable, outcome.dark_without_warning
    ));
    if outcome.is_well() {
        text.push_str("every promise held");
    } else {
        text.push_str("\nbroken promises:\n");
        for (check, count) in &outcome.broken {
            text.push_str(&format!("  {check}: {count}\n"));
        }
        text.push_str("\nthe first of them:\n");
        for broken in outcome.violations.iter().take(5) {
            let whom = broken.connection.map(|number| format!(", connection {number}")).unwrap_or_default();
            text.push_str(&format!("  {} {}{whom}: {}\n", broken.at, broken.check, broken.text));
        }
    }
    text.trim_end().to_owned()
}

fn json_of(request: &Request, outcome: &Outcome, again: &str) -> Value {
    let faults: serde_json::Map<String, Value> =
        outcome.faults.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
    let broken: Vec<Value> = outcome
        .violations
        .iter()
        .map(|broken| {
            json!({"check": broken.check, "at": broken.at.to_string(), "connection": broken.connection, "text": broken.text})
        })
        .collect();
    json!({
        "connections": request.connections,
        "days": request.days,
        "seed": request.seed,
        "well": outcome.is_well(),
        "dark": outcome.dark,
        "dark_though_refreshable": outcome.dark_though_refreshable,
        "dark_without_warning": outcome.dark_without_warning,
        "faults": faults,
        "broken": broken,
        "checks": outcome.broken,
        "by_day": outcome.days.iter().map(|day| json!({
            "calls": day.calls, "refreshed": day.refreshed, "runs": day.runs, "mails": day.mails, "dark": day.dark
        })).collect::<Vec<Value>>(),
        "again": again,
    })
}
