//! The rehearsal: the owner's own dates, and what would become of them. Nothing of the owner's but dates, keys and kinds
//! enters the simulation; tokens are invented.

use std::io::Write;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use perene_policy::schedule::Schedule;
use perene_policy::{Class, Connection, Grant, Settings, State};

use super::chance::Chance;
use super::course::{Course, Plan};
use super::fleet::{self, Fleet, Linked};
use super::trace::Trace;
use super::truth::{Account, Generation, Standing};
use super::{FaultList, Outcome, outcome};
use crate::config::Source;
use crate::store::memory::UserRow;

/// How long Meta's tokens live, and others of which nothing else is known.
const LIFE: SignedDuration = SignedDuration::from_hours(60 * 24);

/// What a rehearsal is made of.
pub struct Rehearsal {
    /// The mapped tables: who renews their tokens, and how long those live where that is known.
    pub sources: Vec<(Source, Class, Option<SignedDuration>)>,
    /// What the operator has set.
    pub settings: Settings,
    /// When runs are made.
    pub schedule: Schedule,
    /// The zone of the schedule.
    pub zone: TimeZone,
    /// So many calls at a time.
    pub concurrency: usize,
    /// The connections as the database has them: source and row.
    pub connections: Vec<(usize, Connection)>,
    /// When it begins.
    pub begin: Timestamp,
}

/// How long the connections would live if nobody refreshed them any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endurance {
    /// Until the first token dies.
    pub first: Option<SignedDuration>,
    /// How many would be dark after so many days.
    pub dark_after_days: Vec<(u32, u64)>,
}

impl Rehearsal {
    /// How long an outage the connections would survive from now on. It begins within the hour: that it has passed is
    /// assumed, so that no figure is better than the truth.
    pub fn endurance(&self) -> Endurance {
        let begin = self.begin + SignedDuration::from_hours(1);
        let left = || self.connections.iter().filter_map(|(_, row)| Some(row.expires_at?.duration_since(begin)));
        let dark = |days: u32| {
            let span = SignedDuration::from_hours(24 * i64::from(days));
            (days, left().filter(|left| *left <= span).count() as u64)
        };
        Endurance {
            first: left().min().map(|first| first.max(SignedDuration::ZERO)),
            dark_after_days: [1, 3, 7, 14, 30].map(dark).to_vec(),
        }
    }

    /// Lives through so many days.
    pub fn carry_out(
        &self,
        days: u32,
        seed: u64,
        faults: &FaultList,
        trace: Option<Box<dyn Write + Send>>,
        progress: &mut dyn FnMut(u32),
    ) -> Outcome {
        let mut chance = Chance::new(seed).part(5);
        let (sources, app_count) = fleet::with_apps(self.sources.clone());
        let fleet = Fleet {
            sources,
            settings: self.settings,
            schedule: self.schedule.clone(),
            zone: self.zone.clone(),
            run_at: None,
            concurrency: self.concurrency,
            app_count,
        };
        let linked: Vec<Linked> = self
            .connections
            .iter()
            .enumerate()
            .map(|(n, (source, row))| self.link(n, *source, row, &mut chance))
            .collect();
        // Customers who have been told already are not told again.
        let told: Vec<bool> = self.connections.iter().map(|(_, row)| is_told(row)).collect();
        let plan = Plan {
            seed,
            days,
            begin: self.begin,
            faults,
            fleet: Arc::new(fleet),
            linked,
            trace: Trace::to(trace),
            customers_return: false,
        };
        let mut course = Course::new(plan);
        course.are_told_already(&told);
        course.run(progress, false);
        outcome(&course)
    }

    fn link(&self, number: usize, source: usize, row: &Connection, chance: &mut Chance) -> Linked {
        let (_, class, usual_life) = &self.sources[source];
        let told = row.refreshed_at.zip(row.expires_at).map(|(from, to)| to.duration_since(from));
        let life = if row.grant == Grant::Oauth2 {
            told.filter(SignedDuration::is_positive).or(*usual_life).unwrap_or(LIFE)
        } else {
            LIFE
        };
        let expires_at = row.expires_at.unwrap_or(self.begin + life / 2);
        let issued_at = row.refreshed_at.unwrap_or(expires_at - life).min(self.begin);
        let state = row.memory.as_ref().map(|memory| &memory.state);
        let standing = match state {
            Some(State::NeedsReconnect { .. }) => Standing::Refused,
            Some(State::NotExtended) => Standing::Stuck,
            _ => Standing::Well,
        };
        let account = Account {
            number,
            row: row.id.clone(),
            source,
            grant: row.grant,
            class: *class,
            standing,
            standing_since: issued_at,
            rotates: row.grant == Grant::Oauth2 && *class != Class::Extend || chance.permille(500),
            is_silent: false,
            has_data_access: false,
            login_at: issued_at,
            life,
            generations: vec![Generation::of_login(issued_at, expires_at)],
            breaks_until: None,
        };
        let user_id = row.user_id.clone().unwrap_or_default();
        let mut app_row = fleet::row(&account, &user_id, self.begin);
        app_row.expires_at = row.expires_at;
        app_row.refreshed_at = row.refreshed_at;
        app_row.attempts = Some(row.attempts);
        app_row.user_id.clone_from(&row.user_id);
        let user = row.user_id.as_ref().map(|id| UserRow {
            id: id.clone(),
            email: Some("somebody@example.com".to_owned()),
            ..UserRow::default()
        });
        Linked { account, row: app_row, user }
    }
}

fn is_told(row: &Connection) -> bool {
    let incident = row.memory.as_ref().and_then(|memory| memory.incident.as_ref());
    incident.is_some_and(|incident| incident.warned_at.is_some())
}
