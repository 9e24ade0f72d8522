//! Everything outside of Perene's processes: providers, database, inboxes, the app with its customers, and chance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use perene_policy::{Class, Grant, Secret};

use super::agenda::Agenda;
use super::chance::Chance;
use super::faults::Kind;
use super::fleet::{self, Fleet};
use super::observer::Observer;
use super::replica::Resting;
use super::reply::Asked;
use super::trace::Trace;
use super::truth::Account;
use super::weather::{Target, Weather};
use crate::journal::MemoryJournal;
use crate::store::memory::{MemoryStore, Snapshot};

/// One for all parts of a simulation. Locked for a moment at a time, never while anybody waits.
pub(super) type Shared = Arc<Mutex<World>>;

pub(super) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a process is when it is killed: it comes no further.
pub(super) async fn die() -> ! {
    std::future::pending().await
}

/// What the world knows of one replica.
#[derive(Debug, Default)]
pub(super) struct ReplicaState {
    pub(super) resting: Option<Resting>,
    /// When it last looked at all that is remembered.
    pub(super) swept_at: Option<Timestamp>,
    /// It dies in this step: where.
    pub(super) doomed: Option<&'static str>,
    pub(super) is_up: bool,
    /// When it went down, and when it stood still, so far.
    pub(super) downs: Vec<Timestamp>,
    pub(super) pauses: Vec<(Timestamp, Timestamp)>,
    /// Its calls that are under way.
    pub(super) calling: usize,
    pub(super) paused_until: Option<Timestamp>,
}

/// Something that happens at an instant.
pub(super) enum Event {
    /// A fault begins, and ends at that instant.
    Begin(Kind, Target, Timestamp),
    End(Kind, Target),
    /// A fault that has no duration.
    Strike(Kind),
    /// A replica is started.
    Start(usize),
    /// A replica is asked to stop, for good.
    Leave(usize),
    /// A paused replica goes on.
    Resume(usize),
    /// The standby takes over.
    TakeOver(Snapshot),
    /// A customer logs in anew.
    LogIn(usize),
    /// The app stores a connection again that it had deleted.
    Insert(usize),
    /// The observer looks at a connection whose date has come.
    Expiry(usize, Timestamp),
    /// The observer looks whether a run was made at its time, and everything due was sent.
    RunWasDue(Timestamp),
    /// The observer looks whether what had to be put off was taken up.
    TakenUp,
    /// All faults end.
    Peace,
    /// It is looked whether something has changed by the passing of time.
    Nothing,
}

pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) ids: Chance,
    pub(super) weather: Weather,
    pub(super) accounts: Vec<Account>,
    pub(super) by_row: BTreeMap<(usize, String), usize>,
    pub(super) users: Vec<Option<String>>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) replicas: Vec<ReplicaState>,
    pub(super) store: MemoryStore,
    /// The replicas' journals outlive their processes.
    pub(super) journals: Vec<MemoryJournal>,
    /// Connections whose rows the database refuses to write.
    pub(super) refused_rows: BTreeSet<usize>,
    pub(super) observer: Observer,
    pub(super) events: BTreeMap<(Timestamp, u64), Event>,
    last_event: u64,
    pub(super) agenda: Agenda,
    pub(super) trace: Trace,
    /// A standby is about to take over: what is written now will be lost, so the app's deeds wait.
    pub(super) is_failing_over: bool,
    /// A message could not be settled in this step.
    pub(super) is_disturbed: bool,
    /// By how much the database's clock is ahead of the providers'.
    pub(super) database_ahead: SignedDuration,
    /// What the provider did has ended with peace; customers still come back.
    pub(super) is_peace: bool,
    /// Only rehearses: customers do not come back by themselves.
    pub(super) customers_return: bool,
}

impl World {
    pub(super) fn new(seed: u64, fleet: Arc<Fleet>, store: MemoryStore, trace: Trace, now: Timestamp) -> Self {
        let chance = Chance::new(seed);
        let observer = Observer::new(&fleet, now);
        Self {
            ids: chance.part(1),
            chance: chance.part(2),
            weather: Weather::new(),
            accounts: Vec::new(),
            by_row: BTreeMap::new(),
            users: Vec::new(),
            fleet,
            replicas: Vec::new(),
            store,
            journals: Vec::new(),
            refused_rows: BTreeSet::new(),
            observer,
            events: BTreeMap::new(),
            last_event: 0,
            agenda: Agenda::new(now),
            trace,
            is_failing_over: false,
            is_disturbed: false,
            database_ahead: SignedDuration::ZERO,
            is_peace: false,
            customers_return: true,
        }
    }

    /// Takes up the connections as they are.
    pub(super) fn settle(&mut self, linked: Vec<fleet::Linked>, now: Timestamp) {
        for one in linked {
            let number = one.account.number;
            self.by_row.insert((one.account.source, one.row.id.clone()), number);
            self.users.push(one.row.user_id.clone());
            self.accounts.push(one.account);
            self.observer.meet();
            self.saw_app_write(number, now);
        }
    }

    pub(super) fn at(&mut self, at: Timestamp, event: Event) {
        self.last_event += 1;
        self.events.insert((at, self.last_event), event);
    }

    /// Whether a replica dies at this step.
    pub(super) fn dies_at(&mut self, replica: usize, kind: Kind, step: &'static str) -> bool {
        if !self.weather.hits(kind, replica) || self.replicas[replica].doomed.is_some() {
            return false;
        }
        if kind == Kind::KillAnywhere {
            if !self.chance.permille(4) {
                return false;
            }
        } else {
            // Once: it is killed at the next time that it comes to this step.
            self.weather.end(kind, Target::All);
        }
        self.weather.fire(kind);
        self.replicas[replica].doomed = Some(step);
        true
    }

    /// How long a request is on its way there and back, and whether reading the answer panics.
    pub(super) fn travel(&mut self, asked: &Asked) -> (Duration, Duration, bool) {
        let is_slow = self.weather.hits(Kind::SlowAnswers, asked.app) && self.chance.permille(200);
        let (there, back) = if is_slow {
            self.weather.fire(Kind::SlowAnswers);
            (self.chance.between(100, 14_000), self.chance.between(100, 14_000))
        } else {
            (self.chance.between(20, 120), self.chance.between(20, 200))
        };
        let panics = self.strikes_one(Kind::Panic, asked.replica, 50);
        (Duration::from_millis(there), Duration::from_millis(back), panics)
    }

    /// What the app and its customers do while a request is on its way.
    pub(super) fn meanwhile(&mut self, asked: &Asked, now: Timestamp) {
        if self.strikes_one(Kind::ReconnectInCall, 0, 30) {
            self.log_in(asked.account, now);
        } else if self.strikes_one(Kind::DeleteInCall, 0, 20) {
            self.delete(asked.account, now);
        }
    }

    /// A customer logs in: the app stores the new token.
    pub(super) fn log_in(&mut self, number: usize, now: Timestamp) {
        if self.is_failing_over {
            let later = now + SignedDuration::from_mins(1);
            return self.at(later, Event::LogIn(number));
        }
        let account = &mut self.accounts[number];
        let is_young = account.generations.last().is_some_and(|latest| {
            latest.is_of_login && now.duration_since(latest.issued_at) < SignedDuration::from_secs(60)
        });
        if is_young {
            return;
        }
        let latest = account.log_in(now);
        let generation = account.generations[latest].clone();
        let (source, id) = (account.source, self.row_id(number));
        let account = &self.accounts[number];
        let (token, refresh) = (account.token(latest), account.refresh_token(latest));
        let is_oauth2 = account.grant == Grant::Oauth2;
        let is_there = self.store.change_connection(source, &id, |row| {
            row.token = Some(Secret::new(token));
            row.refresh_token = refresh.map(Secret::new);
            row.expires_at = Some(generation.expires_at);
            if is_oauth2 {
                row.refreshed_at = Some(now);
            }
        });
        if is_there {
            self.trace.tell(now, Some(number), || "the customer has logged in anew".to_owned());
            self.saw_app_write(number, now);
        }
    }

    pub(super) fn delete(&mut self, number: usize, now: Timestamp) {
        if self.is_failing_over {
            return;
        }
        let (source, id) = (self.accounts[number].source, self.row_id(number));
        if self.store.delete_connection(source, &id) {
            self.trace.tell(now, Some(number), || "the app has deleted the row".to_owned());
            self.saw_app_write(number, now);
            let back = now + SignedDuration::from_hours(self.chance.between(24, 24 * 10) as i64);
            self.at(back, Event::Insert(number));
        }
    }

    /// The app stores a deleted connection anew: its customer has linked the account again.
    pub(super) fn insert(&mut self, number: usize, now: Timestamp) {
        if self.is_failing_over {
            return self.at(now + SignedDuration::from_mins(1), Event::Insert(number));
        }
        let account = &mut self.accounts[number];
        account.log_in(now);
        let user = self.users[number].clone().unwrap_or_default();
        let account = &self.accounts[number];
        let mut row = fleet::row(account, &user, now);
        row.id = self.row_id(number);
        self.store.insert_connection(account.source, row);
        self.trace.tell(now, Some(number), || "the app has stored the connection anew".to_owned());
        self.saw_app_write(number, now);
    }

    /// The app changes something of its row.
    pub(super) fn change(
        &mut self,
        number: usize,
        now: Timestamp,
        what: &str,
        change: impl FnOnce(&mut crate::store::memory::AppRow),
    ) {
        let (source, id) = (self.accounts[number].source, self.row_id(number));
        if !self.is_failing_over && self.store.change_connection(source, &id, change) {
            self.trace.tell(now, Some(number), || what.to_owned());
            self.saw_app_write(number, now);
        }
    }

    pub(super) fn row_id(&self, number: usize) -> String {
        self.accounts[number].id()
    }

    /// The customer has been asked to log in, and does so some time later; or never.
    pub(super) fn customer_hears(&mut self, number: usize, now: Timestamp) {
        if !self.customers_return || !self.chance.permille(750) {
            return;
        }
        let later = now + SignedDuration::from_mins(self.chance.between(60, 6 * 24 * 60) as i64);
        self.at(later, Event::LogIn(number));
    }

    /// Whether nobody could come between two steps of this replica: the others rest, and it waits for no answer.
    pub(super) fn is_alone(&self, replica: usize) -> bool {
        let rests = |other: &ReplicaState| {
            !other.is_up
                || other.paused_until.is_some()
                || other.resting.as_ref().is_some_and(|resting| !resting.is_over)
        };
        self.replicas[replica].calling == 0
            && self.replicas.iter().enumerate().all(|(number, other)| number == replica || rests(other))
    }

    /// Whether nothing keeps the app's connections from being refreshed: provider, database and a process are well.
    pub(super) fn is_good(&self, app: usize) -> bool {
        self.is_system_good() && !PROVIDER_KINDS.iter().any(|kind| self.weather.hits(*kind, app))
    }

    /// Whether Perene can work: a process serves, and reaches a database that takes writes.
    pub(super) fn is_system_good(&self) -> bool {
        let serves = self.replicas.iter().any(|replica| replica.is_up && replica.paused_until.is_none());
        serves && !self.is_failing_over && !SYSTEM_KINDS.iter().any(|kind| self.weather.is_on(*kind))
    }

    pub(super) fn is_strict(&self, number: usize) -> bool {
        self.accounts[number].class == Class::Strict
    }
}

const SYSTEM_KINDS: &[Kind] = &[
    Kind::DatabaseDown,
    Kind::DatabaseCut,
    Kind::StatementLost,
    Kind::AnswerOfCommitLost,
    Kind::ReadOnly,
    Kind::DatabaseSlow,
    Kind::Deadlock,
    Kind::Rights,
    Kind::ColumnMissing,
    Kind::KillAnywhere,
    Kind::JournalFull,
    Kind::HostOff,
    Kind::Panic,
];

const PROVIDER_KINDS: &[Kind] = &[
    Kind::Outage,
    Kind::TimeOuts,
    Kind::ConnectionRefused,
    Kind::ServerErrors,
    Kind::LostAnswers,
    Kind::SlowAnswers,
    Kind::Throttle,
    Kind::ThrottleDate,
    Kind::ThrottleAbsurd,
    Kind::ThrottleRow,
    Kind::NearLimit,
    Kind::Malformed,
    Kind::Html200,
    Kind::OddExpiry,
    Kind::NoToken,
    Kind::Redirect,
    Kind::HugeBody,
    Kind::UnknownError,
    Kind::EchoedToken,
    Kind::FalseRefusal,
    Kind::MassRefusal,
    Kind::WrongSecret,
    Kind::AppSuspended,
    Kind::Flapping,
];
