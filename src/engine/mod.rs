//! The engine: takes leases, asks the provider, lets the policy decide, commits.
//!
//! Nothing here decides: what an answer means and what follows from it stands in `perene-policy`. Nothing
//! here runs in the background by itself either: a [`Engine::run`] is one pass that ends, and
//! [`service`] is the loop around it.

mod apps;
mod driver;
mod outage;
mod outbox;
mod pass;
pub mod report;
mod run;
pub mod service;
mod stop;
mod sweep;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use perene_policy::schedule::Schedule;
use perene_policy::{Grant, Settings};
use uuid::Uuid;

use crate::clock::Clock;
use crate::config::Source;
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
}

/// The engine. One a process; [`Engine::run`] must not be called while another of its runs goes on.
pub struct Engine {
    parts: Parts,
    apps: apps::Apps,
    /// Who holds this process's leases.
    holder: String,
}

impl Engine {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let apps = apps::Apps::new(Arc::clone(&parts.store));
        Self { parts, apps, holder: Uuid::new_v4().simple().to_string() }
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

    /// The grants with which a source's tokens are renewed.
    fn grants(&self, source: usize) -> &'static [Grant] {
        if self.parts.sources[source].provider == "meta" { &Grant::META } else { &[Grant::Oauth2] }
    }
}
