//! The provider as a replica reaches it: a request takes its time, and the replica may die in every part of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use perene_policy::answer::{Answer, NoAnswer};
use perene_policy::{Class, Endpoint, Fingerprint, Grant, Secret};

use super::faults::Kind;
use super::fleet::FleetSource;
use super::reply::Asked;
use super::time::VirtualClock;
use super::truth::{self, SECRET_MARK};
use super::world::{Shared, die, lock};
use crate::clock::Clock;
use crate::provider::{AppIdentity, Provider};

/// What an HTTP client allows a provider for an answer.
const DEADLINE_MS: u64 = 30_000;

pub(super) struct Script {
    world: Shared,
    clock: VirtualClock,
    replica: usize,
    class: Class,
    /// The app of each grant, and its number.
    apps: Vec<(Grant, Arc<AppIdentity>, usize)>,
    life: Option<SignedDuration>,
}

impl Script {
    pub(super) fn new(world: Shared, clock: VirtualClock, replica: usize, source: &FleetSource) -> Self {
        let apps = source.apps.iter().map(|(grant, name, number)| (*grant, Arc::new(identity(name, *number)), *number));
        Self { world, clock, replica, class: source.class, apps: apps.collect(), life: source.usual_life }
    }

    fn app_number(&self, grant: Grant) -> usize {
        self.apps.iter().find(|(known, ..)| *known == grant).map_or(0, |(_, _, number)| *number)
    }

    async fn dies(&self, kind: Kind, step: &'static str) {
        let is_dead = lock(&self.world).dies_at(self.replica, kind, step);
        if is_dead {
            die().await;
        }
    }
}

fn identity(name: &str, number: usize) -> AppIdentity {
    let secret = format!("{SECRET_MARK}{number}");
    AppIdentity { name: name.to_owned(), credentials: Fingerprint::of(&secret), secrets: vec![Secret::new(secret)] }
}

#[async_trait]
impl Provider for Script {
    fn app(&self, grant: Grant) -> Option<Arc<AppIdentity>> {
        self.apps.iter().find(|(known, ..)| *known == grant).map(|(_, identity, _)| Arc::clone(identity))
    }

    fn class(&self) -> Class {
        self.class
    }

    fn usual_life(&self) -> Option<SignedDuration> {
        self.life
    }

    async fn call(&self, grant: Grant, endpoint: Endpoint, token: &Secret) -> Result<Answer, NoAnswer> {
        self.dies(Kind::KillBeforeCall, "before a call").await;
        let Some((account, generation)) = truth::read(token.expose()) else {
            lock(&self.world).sent_nonsense(self.replica, self.clock.now());
            let body = br#"{"error":{"message":"Invalid OAuth access token.","type":"OAuthException","code":190}}"#;
            return Ok(Answer { status: 400, headers: Vec::new(), body: body.to_vec(), truncated: false });
        };
        let (replica, app) = (self.replica, self.app_number(grant));
        let asked = Asked { replica, app, grant, endpoint, token: token.expose().to_owned(), account, generation };
        let (there, back, panics) = {
            let mut world = lock(&self.world);
            world.saw_sent(&asked, self.clock.now());
            world.travel(&asked)
        };
        self.clock.sleep(there).await;
        let reply = {
            let mut world = lock(&self.world);
            world.meanwhile(&asked, self.clock.now());
            let reply = world.reply(&asked, self.clock.now());
            world.saw_processed(&asked, &reply, self.clock.now());
            reply
        };
        self.dies(Kind::KillInCall, "in a call").await;
        let back = if reply.result.is_err() && reply.may_have_spent {
            Duration::from_millis(DEADLINE_MS).saturating_sub(there)
        } else {
            back
        };
        self.clock.sleep(back).await;
        self.dies(Kind::KillAfterAnswer, "with an answer").await;
        lock(&self.world).saw_answered(&asked, &reply, panics, self.clock.now());
        assert!(!panics, "an answer that nobody has thought of");
        reply.result
    }

    async fn probe_app(&self, grant: Grant) -> Option<Result<Answer, NoAnswer>> {
        if grant != Grant::Facebook {
            return None;
        }
        Some(Ok(lock(&self.world).reply_about_app(self.app_number(grant))))
    }
}
