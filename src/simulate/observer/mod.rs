//! The observer: sees the database, the providers' logs and the inboxes, never the engine's mind, and says after every
//! step whether a promise was broken. What it calls a check has a name that says what broke.
//!
//! | file | looks at |
//! |---|---|
//! | `calls` | what is sent to providers, and what becomes of what they issue |
//! | `rows` | the app's rows and what is remembered of them |
//! | `notices` | outbox, inboxes, flags |
//! | `runs` | when runs are made, and whether they take all that is due |
//! | `dark` | who goes dark, whether it could have been helped, and whether the customer was told |
//! | `peace` | whether all is well again when the faults have ended |
//! | `good` | when nothing kept Perene from its work: the measure for all of these |

mod calls;
mod dark;
mod good;
mod notices;
mod peace;
mod rows;
mod runs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use perene_policy::{Grant, Memory};

use super::fleet::Fleet;
use super::truth;
use super::world::{Event, World};
use good::GoodLog;
use notices::Told;
pub(super) use peace::BOUND;
pub(super) use runs::TAKEN_UP_WITHIN;

/// When so many connections of one app fail alike, it is not the customers.
const STORM_MIN: usize = 20;

/// So many broken promises are told of; all are counted.
const TOLD_MAX: usize = 20;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The check's name.
    pub check: &'static str,
    /// When.
    pub at: Timestamp,
    /// The connection that it is about.
    pub connection: Option<usize>,
    /// What was seen.
    pub text: String,
}

/// What the observer has seen of one connection.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The app's row is there, with a token.
    pub(super) is_there: bool,
    /// The generation that the row holds; `None` where its token is none of the provider's.
    pub(super) generation: Option<usize>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) refreshed_at: Option<Timestamp>,
    pub(super) attempts: i64,
    /// Since when the row holds this generation with this date.
    pub(super) since: Option<Timestamp>,
    /// The app wrote the row last.
    pub(super) is_of_app: bool,
    pub(super) memory: Option<Memory>,
    pub(super) version_of_run: u64,
    /// The night of whose run the last failure was counted, where that is clear.
    pub(super) counted_for: Option<Timestamp>,
    /// Calls of the last day: when, and by which replica.
    pub(super) calls: VecDeque<(Timestamp, usize)>,
    pub(super) in_flight: Vec<usize>,
    pub(super) last_call_at: Option<Timestamp>,
    /// Answers with a token, within the last day.
    pub(super) issued: Vec<Timestamp>,
    /// Refusals since the last answer that was none.
    pub(super) refusals: VecDeque<Timestamp>,
    /// The first answer of no use since the last good one.
    pub(super) trouble_since: Option<Timestamp>,
    /// The provider asked to be left alone until then, and told so to this replica.
    pub(super) limited_until: Option<(Timestamp, usize)>,
    /// Sent to a strict provider, or about to be, and nothing has told what became of it: this generation.
    pub(super) in_doubt: Option<usize>,
    /// An intent was written, and no call has followed yet.
    pub(super) intended_at: Option<Timestamp>,
    /// When an intent was last written.
    pub(super) last_intent_at: Option<Timestamp>,
    /// The customer was warned of what is the matter now.
    pub(super) warned_at: Option<Timestamp>,
    /// It was warned of when a hold on its app had ended: while that lasts no customer is told anything.
    pub(super) was_held: bool,
    /// What the customer's inbox got since then.
    pub(super) mails: Vec<(String, Option<u8>)>,
    /// The customer had been told before it began: nobody is told so again.
    pub(super) is_told_already: bool,
    /// The row's date passed, and it was looked at.
    pub(super) is_dark: bool,
    pub(super) instants: Vec<Timestamp>,
}

/// What one day came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Day {
    /// Calls to providers.
    pub calls: u64,
    /// Connections that were given a later date.
    pub refreshed: u64,
    /// Runs that began.
    pub runs: u64,
    /// Mails that were delivered.
    pub mails: u64,
    /// Connections that went dark.
    pub dark: u64,
}

pub(super) struct Observer {
    pub(super) begun_at: Timestamp,
    /// Whose days are counted.
    zone: TimeZone,
    today: (Timestamp, Timestamp, usize),
    pub(super) seen: Vec<Seen>,
    pub(super) violations: Vec<Violation>,
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) goods: Vec<GoodLog>,
    /// When nothing kept Perene itself from its work.
    pub(super) system_good: GoodLog,
    pub(super) limited_until: Vec<Option<Timestamp>>,
    /// Generations that have come whole, and are not yet seen in the database: for which one each came, and when.
    pub(super) unsettled: BTreeMap<(usize, usize), (usize, Timestamp)>,
    pub(super) told: BTreeMap<String, Told>,
    /// Messages that a standby has not got: they may be on their way all the same.
    pub(super) recalled: BTreeSet<String>,
    pub(super) by_incident: BTreeMap<String, BTreeSet<(String, String)>>,
    pub(super) flagged: BTreeMap<String, BTreeSet<usize>>,
    pub(super) raised_by_app: BTreeSet<String>,
    pub(super) runs_begun: u64,
    pub(super) last_run_at: Option<Timestamp>,
    /// When a run last began, by the true time.
    pub(super) run_begun_at: Option<Timestamp>,
    /// When an answer, or that there is none, last came to a replica.
    pub(super) answered_at: Option<Timestamp>,
    /// When those of the last hours began.
    pub(super) runs_begun_at: Vec<Timestamp>,
    pub(super) last_offset: Option<i32>,
    /// When something happened that may make a message come twice: a process died, a statement was lost.
    pub(super) disturbed_at: Timestamp,
    /// From when on commits were lost with the server that a standby has replaced, by the database's time.
    pub(super) lost_since: Option<Timestamp>,
    /// When a standby took over that lacked the latest commits.
    pub(super) failed_over_at: Option<Timestamp>,
    pub(super) days: Vec<Day>,
    pub(super) minute: (i64, u64),
    pub(super) busiest: (i64, u64),
    pub(super) dark: u64,
    pub(super) dark_though_refreshable: u64,
    pub(super) dark_without_warning: u64,
    pub(super) mailed: Vec<(Timestamp, usize, String)>,
    /// Who went dark, and when.
    pub(super) went_dark: Vec<(Timestamp, usize)>,
    pub(super) looks: u64,
    /// Who fails while all of an app's connections do, and since when.
    pub(super) failed_in_storm: Vec<BTreeMap<usize, Timestamp>>,
    pub(super) storm_since: Vec<Option<Timestamp>>,
    pub(super) calls_in_storm: Vec<VecDeque<Timestamp>>,
    /// Whether the database says of an app that it is held, and when it last said so.
    pub(super) is_held: Vec<bool>,
    pub(super) held_at: Vec<Option<Timestamp>>,
}

impl Observer {
    pub(super) fn new(fleet: &Fleet, now: Timestamp) -> Self {
        Self {
            begun_at: now,
            zone: fleet.zone.clone(),
            today: (now, now, 0),
            seen: Vec::new(),
            violations: Vec::new(),
            counts: BTreeMap::new(),
            goods: (0..fleet.app_count).map(|_| GoodLog::new(now)).collect(),
            system_good: GoodLog::new(now),
            limited_until: vec![None; fleet.app_count],
            unsettled: BTreeMap::new(),
            told: BTreeMap::new(),
            recalled: BTreeSet::new(),
            by_incident: BTreeMap::new(),
            flagged: BTreeMap::new(),
            raised_by_app: BTreeSet::new(),
            runs_begun: 0,
            last_run_at: None,
            run_begun_at: None,
            answered_at: None,
            runs_begun_at: Vec::new(),
            last_offset: None,
            disturbed_at: now,
            lost_since: None,
            failed_over_at: None,
            days: Vec::new(),
            minute: (0, 0),
            busiest: (0, 0),
            dark: 0,
            dark_though_refreshable: 0,
            dark_without_warning: 0,
            mailed: Vec::new(),
            went_dark: Vec::new(),
            looks: 0,
            failed_in_storm: vec![BTreeMap::new(); fleet.app_count],
            storm_since: vec![None; fleet.app_count],
            calls_in_storm: vec![VecDeque::new(); fleet.app_count],
            is_held: vec![false; fleet.app_count],
            held_at: vec![None; fleet.app_count],
        }
    }

    /// The day of the calendar, where the runs are made: from when to when it lasts, and which one it is.
    fn date_of(&self, now: Timestamp) -> (Timestamp, Timestamp, usize) {
        let date = now.to_zoned(self.zone.clone()).date();
        let begins =
            |date: jiff::civil::Date| date.to_zoned(self.zone.clone()).map_or(now, |midnight| midnight.timestamp());
        let first = self.begun_at.to_zoned(self.zone.clone()).date();
        let number = first.until(date).map_or(0, |span| span.get_days());
        (begins(date), begins(date.saturating_add(jiff::Span::new().days(1))), usize::try_from(number).unwrap_or(0))
    }

    /// How often a promise was broken.
    pub(super) fn broken(&self) -> u64 {
        self.counts.values().sum()
    }

    pub(super) fn meet(&mut self) {
        self.seen.push(Seen::default());
    }

    pub(super) fn day(&mut self, now: Timestamp) -> &mut Day {
        if !(self.today.0..self.today.1).contains(&now) {
            self.today = self.date_of(now);
        }
        let number = self.today.2;
        if self.days.len() <= number {
            self.days.resize(number + 1, Day::default());
        }
        &mut self.days[number]
    }
}

impl World {
    /// A promise was broken.
    pub(super) fn broke(&mut self, check: &'static str, connection: Option<usize>, now: Timestamp, text: String) {
        *self.observer.counts.entry(check).or_default() += 1;
        self.trace.tell(now, connection, || format!("BROKEN {check}: {text}"));
        if self.observer.violations.len() < TOLD_MAX {
            self.observer.violations.push(Violation { check, at: now, connection, text });
        }
    }

    /// The app of a connection's provider.
    pub(super) fn app_of(&self, number: usize) -> usize {
        let account = &self.accounts[number];
        let apps = &self.fleet.sources[account.source].apps;
        apps.iter().find(|(grant, ..)| *grant == account.grant).map_or(0, |(_, _, app)| *app)
    }

    /// The app has written its row: what is there now is right.
    pub(super) fn saw_app_write(&mut self, number: usize, now: Timestamp) {
        self.look_at_row(number, now);
        let seen = &mut self.observer.seen[number];
        seen.is_of_app = true;
        seen.trouble_since = None;
        seen.warned_at = None;
        seen.mails.clear();
        seen.limited_until = None;
        self.observer.unsettled.retain(|(of, _), _| *of != number);
        self.agenda.deed(now);
    }

    /// Reads a row and what is remembered of it, and notes when it has to be looked at next.
    pub(super) fn look_at_row(&mut self, number: usize, now: Timestamp) {
        let (source, id) = (self.accounts[number].source, self.row_id(number));
        let (row, memory) = self.store.seen(source, &id);
        let user = row.as_ref().and_then(|row| row.user_id.clone()).or_else(|| self.users[number].clone());
        self.note_flag(number, user, memory.as_ref());
        let settings = self.fleet.settings;
        let seen = &mut self.observer.seen[number];
        let token = row.as_ref().and_then(|row| row.token.as_ref()).map(|token| token.expose().to_owned());
        let generation = token.as_deref().and_then(truth::read).filter(|(of, _)| *of == number).map(|(_, g)| g);
        let expires_at = row.as_ref().and_then(|row| row.expires_at);
        let is_there = token.is_some_and(|token| !token.is_empty());
        if (seen.is_there, seen.generation, seen.expires_at) != (is_there, generation, expires_at) {
            seen.since = Some(now);
            seen.is_dark = false;
            seen.is_of_app = false;
        }
        let is_new_date = seen.expires_at != expires_at;
        (seen.is_there, seen.generation, seen.expires_at) = (is_there, generation, expires_at);
        seen.attempts = row.as_ref().and_then(|row| row.attempts).unwrap_or(0);
        seen.refreshed_at = row.as_ref().and_then(|row| row.refreshed_at);
        seen.memory = memory;
        for at in std::mem::take(&mut seen.instants) {
            self.agenda.remove(at, number);
        }
        if let Some(memory) = &seen.memory {
            let days = |count: i64| SignedDuration::from_hours(24 * count);
            let ends = memory.expires_at.into_iter().chain(memory.data_access_ends_at);
            let steps = ends.flat_map(|end| [end - days(14), end - days(7), end - days(3)]);
            let warn = expires_at.map(|at| at - settings.warn_before);
            let young = memory.fresh_since.map(|since| since + days(1));
            // At the very instant less than so much is not left yet.
            let told = steps.chain(warn).chain(expires_at).map(|at| at + SignedDuration::from_secs(1));
            seen.instants = memory.next_try_at.into_iter().chain(young).chain(told).collect();
        }
        if let Some((refreshed_at, at)) = seen.refreshed_at.zip(expires_at)
            && self.accounts[number].grant == Grant::Oauth2
        {
            // Tokens that live for hours do not wait for the night.
            seen.instants.push(at - settings.for_life(at.duration_since(refreshed_at)).window);
        }
        seen.instants.retain(|at| *at > now);
        for at in &seen.instants {
            self.agenda.add(*at, number);
        }
        if is_new_date && let Some(at) = expires_at.filter(|at| *at > now && is_there) {
            self.at(at, Event::Expiry(number, at));
        }
    }
}
