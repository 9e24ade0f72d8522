//! Years in seconds: the real engine, policy, leases, commits, retries and notices on a virtual clock, a store in memory
//! and scripted providers. Only sockets, disks and clocks are replaced.
//!
//! Everything follows from one seed: the same arguments give the same bytes of report and trace, on any machine. An
//! observer that sees only the database, the providers' logs and the inboxes checks the promises after every step.

mod agenda;
pub mod calendar;
mod chance;
mod course;
mod database;
mod faults;
mod fleet;
mod inbox;
mod observer;
mod provider;
mod rehearsal;
mod replica;
mod reply;
#[cfg(test)]
mod tests;
pub(crate) mod time;
mod trace;
mod truth;
mod weather;
mod world;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use perene_policy::schedule::Schedule;
use perene_policy::{Class, Settings};

use chance::Chance;
use course::{Course, Plan};
use faults::Kind;
pub use faults::{FAULTS, Fault, FaultList};
use fleet::Fleet;
pub use observer::{Day, Violation};
pub use rehearsal::{Endurance, Rehearsal};
use trace::Trace;

/// What is to be simulated.
#[derive(Debug, Clone)]
pub struct Request {
    /// So many connections.
    pub connections: usize,
    /// So many days.
    pub days: u32,
    /// From which all chance follows.
    pub seed: u64,
    /// What goes wrong.
    pub faults: FaultList,
    /// Only connections at providers of this class; `None`: of all.
    pub only: Option<Class>,
    /// The end is the first promise that is broken.
    pub stop_at_first: bool,
}

/// What a simulation came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Promises that were broken: the first of them.
    pub violations: Vec<Violation>,
    /// How often each check has failed.
    pub broken: BTreeMap<&'static str, u64>,
    /// Tokens that died while their provider would have refreshed them.
    pub dark_though_refreshable: u64,
    /// Customers whose token died before they were warned, though it could be foreseen.
    pub dark_without_warning: u64,
    /// All connections that went dark.
    pub dark: u64,
    /// How often each fault has struck.
    pub faults: Vec<(&'static str, u64)>,
    /// Day by day.
    pub days: Vec<Day>,
    /// The minute with the most calls, and how many.
    pub busiest: Option<(Timestamp, u64)>,
    /// Who was mailed, when, and of what.
    pub mailed: Vec<(Timestamp, usize, String)>,
    /// Who went dark, and when.
    pub went_dark: Vec<(Timestamp, usize)>,
    /// When it began.
    pub begun_at: Timestamp,
    /// The last lines about one connection, where that was asked for.
    pub story: Vec<String>,
    /// How often a replica has looked whether something is due.
    pub looks: u64,
    /// Why the trace could not be written to its end.
    pub trace_error: Option<String>,
}

impl Outcome {
    /// Whether every promise held.
    pub fn is_well(&self) -> bool {
        self.broken.is_empty()
    }
}

/// Simulates. `progress` is told each day that has passed.
pub fn simulate(request: &Request, trace: Option<Box<dyn Write + Send>>, progress: &mut dyn FnMut(u32)) -> Outcome {
    carry_out(request, Trace::to(trace), progress)
}

/// Simulates once more, and keeps the story of one connection up to an instant.
pub fn story(request: &Request, connection: usize, until: Timestamp) -> Vec<String> {
    carry_out(request, Trace::story_of(connection, until), &mut |_| {}).story
}

fn carry_out(request: &Request, trace: Trace, progress: &mut dyn FnMut(u32)) -> Outcome {
    let mut chance = Chance::new(request.seed).part(4);
    let (begin, fleet) = invent(request, &mut chance);
    let linked = fleet::invent(request.connections, request.only, &mut chance, begin);
    let mut course = Course::new(Plan {
        seed: request.seed,
        days: request.days,
        begin,
        faults: &request.faults,
        fleet: Arc::new(fleet),
        linked,
        trace,
        customers_return: true,
    });
    course.run(progress, request.stop_at_first);
    outcome(&course)
}

fn outcome(course: &Course) -> Outcome {
    let mut world = world::lock(&course.world);
    let world = &mut *world;
    let observer = &world.observer;
    let busiest = Timestamp::from_second(observer.busiest.0 * 60).ok().filter(|_| observer.busiest.1 > 0);
    Outcome {
        violations: observer.violations.clone(),
        broken: observer.counts.clone(),
        dark_though_refreshable: observer.dark_though_refreshable,
        dark_without_warning: observer.dark_without_warning,
        dark: observer.dark,
        faults: Kind::ALL.iter().map(|kind| (kind.fault().name, world.weather.fired(*kind))).collect(),
        days: observer.days.clone(),
        busiest: busiest.map(|at| (at, observer.busiest.1)),
        mailed: observer.mailed.clone(),
        went_dark: observer.went_dark.clone(),
        begun_at: observer.begun_at,
        story: world.trace.story(),
        looks: observer.looks,
        trace_error: world.trace.error.as_ref().map(ToString::to_string),
    }
}

/// When it begins, and for whom runs are made at which hour. The zone's rules are those that this binary brings, not
/// the machine's: they would not be the same elsewhere.
fn invent(request: &Request, chance: &mut Chance) -> (Timestamp, Fleet) {
    let wants = |kind: Kind| request.faults.wanted.iter().find(|wanted| wanted.kind == kind);
    let late = wants(Kind::Year2038).is_some_and(|wanted| wanted.is_named || chance.permille(300));
    let begin = if late { "2038-01-05T12:00:00Z" } else { "2026-11-23T12:00:00Z" };
    let begin: Timestamp = begin.parse().expect("a date");
    let (zone, run_at) = match wants(Kind::DaylightSaving) {
        Some(_) => {
            let zones = ["America/New_York", "Europe/Lisbon", "Australia/Lord_Howe", "America/Santiago"];
            (zones[chance.below(zones.len() as u64) as usize], (2, 30))
        }
        None => ("America/Sao_Paulo", (3, 0)),
    };
    let zone = TimeZoneDatabase::bundled().get(zone).unwrap_or(TimeZone::UTC);
    let cron = format!("{} {} * * *", run_at.1, run_at.0);
    let schedule = Schedule::parse(&cron, zone.clone(), begin).expect("a schedule");
    let (sources, app_count) = fleet::with_apps(fleet::sources());
    let fleet = Fleet {
        sources,
        settings: Settings::default(),
        schedule,
        zone,
        run_at: Some(run_at),
        concurrency: 64,
        app_count,
    };
    (begin, fleet)
}
