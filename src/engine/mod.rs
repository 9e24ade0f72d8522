//! The engine: takes leases, asks the provider, lets the policy decide, commits.
//!
//! Nothing here decides: what an answer means and what follows from it stands in `perene-policy`. Nothing
//! here runs in the background by itself either: a [`Engine::run`] is one pass that ends, and
//! [`service`] is the loop around it.

mod apps;
mod call;
mod claim;
mod commit;
mod driver;
mod intent;
mod lapse;
mod ledger;
mod outage;
mod outbox;
mod page;
mod pass;
mod refusals;
mod replay;
pub mod report;
mod run;
pub mod service;
mod spent;
mod stop;
mod sweep;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod token;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use perene_policy::schedule::Schedule;
use perene_policy::{Class, Grant, Settings};
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::Source;
use crate::journal::Journal;
use crate::notify::Channel;
use crate::provider::Provider;
use crate::store::Store;

pub use report::Report;
pub use run::{RunError, RunKind, RunRequest};
pub use stop::{Stop, StopSource};

/// The parts that an engine is made of.
pub struct Parts {
    /// Where connections are.
    pub store: Arc<dyn Store>,
    /// Who renews tokens, by the name that sources use.
    pub providers: BTreeMap<String, Arc<dyn Provider>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The mapped tables, in the order of the configuration.
    pub sources: Vec<Source>,
    /// What decisions rest on.
    pub settings: Settings,
    /// When runs start.
    pub schedule: Schedule,
    /// So many calls at a time.
    pub concurrency: usize,
    /// Over which people are told, besides the flag.
    pub channels: Vec<Arc<dyn Channel>>,
    /// Where answers are kept until the database has confirmed them. Without one nothing is sent to providers that
    /// punish reuse.
    pub journal: Option<Arc<dyn Journal>>,
    /// Makes an id that nobody else has: of this process, of a claim.
    pub new_id: Arc<dyn Fn() -> Uuid + Send + Sync>,
}

/// The engine. One a process; [`Engine::run`] must not be called while another of its runs goes on.
pub struct Engine {
    parts: Parts,
    apps: apps::Apps,
    ledger: ledger::Ledger,
    /// What was not sent although its intent may stand in the database.
    unsent: Mutex<Vec<intent::Unsent>>,
    /// What the database may not know of tokens that are sent once.
    spent: spent::Spent,
    /// How far has been looked for tokens that end unheard of.
    lapses: lapse::Lapses,
    /// Tables that refuse what is written to them.
    refusals: refusals::Refusals,
    /// Whether an alarm about the journal may stand: one of a process that has died may.
    has_journal_alarm: AtomicBool,
    /// Who holds this process's leases.
    holder: String,
}

impl Engine {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let apps = apps::Apps::new(Arc::clone(&parts.store));
        let ledger = ledger::Ledger::default();
        if let Some(journal) = &parts.journal {
            ledger.open(Arc::clone(journal));
        }
        let holder = (parts.new_id)().simple().to_string();
        let has_journal_alarm = AtomicBool::new(true);
        let (refusals, lapses, spent) = Default::default();
        Self { parts, apps, ledger, unsent: Mutex::default(), spent, lapses, refusals, has_journal_alarm, holder }
    }

    /// From now on answers are kept in `journal`, which is known only when the database has been asked. Once an
    /// engine, before its first run.
    pub fn keep_answers_in(&self, journal: Arc<dyn Journal>) {
        self.ledger.open(journal);
    }

    /// Whether one of the providers punishes reuse: then there must be a journal.
    pub fn needs_journal(&self) -> bool {
        (0..self.parts.sources.len()).any(|source| self.provider(source).class() == Class::Strict)
    }

    /// The store on which it works.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.parts.store
    }

    /// What time it is.
    pub fn clock(&self) -> &dyn Clock {
        self.parts.clock.as_ref()
    }

    /// The mapped tables.
    pub fn sources(&self) -> &[Source] {
        &self.parts.sources
    }

    /// The name that leases of this process bear.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// The provider of a source. The configuration has been checked: there is one.
    fn provider(&self, source: usize) -> &Arc<dyn Provider> {
        let name = &self.parts.sources[source].provider;
        self.parts.providers.get(name).expect("a source's provider is configured")
    }

    /// What decisions about a source's connections rest on: see [`Settings::for_life`].
    pub fn settings(&self, source: usize) -> Settings {
        let provider = self.provider(source);
        let app = provider.app(Grant::Oauth2).filter(|_| self.grants(source).contains(&Grant::Oauth2));
        let told = app.and_then(|app| self.apps.life(&app.name));
        let life = told.or_else(|| provider.usual_life());
        life.map_or(self.parts.settings, |life| self.parts.settings.for_life(life))
    }

    /// How long before its expiry a token of this source is refreshed between runs; `None` where the daily run is
    /// enough. How long the tokens of a provider live is known only when it has issued one: so whatever would not
    /// live to see the next run is not left to it.
    fn window_between_runs(&self, source: usize) -> Option<SignedDuration> {
        const DAY: SignedDuration = SignedDuration::from_hours(24);
        self.grants(source).contains(&Grant::Oauth2).then(|| self.settings(source).window.min(DAY))
    }

    /// How long after its expiry a connection of this source is still sent.
    fn overdue(&self, source: usize) -> SignedDuration {
        if self.has_refresh_tokens(source) { perene_policy::due::OVERDUE } else { SignedDuration::ZERO }
    }

    fn has_refresh_tokens(&self, source: usize) -> bool {
        self.parts.sources[source].columns.refresh_token.is_some() && self.grants(source).contains(&Grant::Oauth2)
    }

    /// Whether an answer is worth keeping after the database has confirmed it: should the database forget it, it
    /// could not be had again.
    fn keeps_answers(&self, source: usize) -> bool {
        self.provider(source).class() != Class::Extend
    }

    /// The fence of one pass: every lease that it takes bears it.
    fn fence(&self) -> Uuid {
        (self.parts.new_id)()
    }

    /// The grants with which a source's tokens are renewed.
    fn grants(&self, source: usize) -> &'static [Grant] {
        if self.parts.sources[source].provider == "meta" { &Grant::META } else { &[Grant::Oauth2] }
    }
}
