//! The outbox: messages that wait for their channel, leased while one is being delivered.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::Mapped;
use super::observe::Settlement;
use crate::store::{Outgoing, Settled};

#[derive(Debug, Clone, Default)]
pub(super) struct Outbox {
    messages: BTreeMap<String, Waiting>,
    /// What is not settled, oldest first: by creation, number and id.
    open: BTreeSet<(Timestamp, u64, String)>,
    /// What is settled, by its time.
    done: BTreeSet<(Timestamp, String)>,
}

#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) message: Outgoing,
    table: usize,
    number: u64,
    pub(super) next_at: Timestamp,
    pub(super) lease_until: Option<Timestamp>,
    pub(super) error: Option<String>,
    pub(super) settlement: Option<Settlement>,
}

impl Outbox {
    pub(super) fn messages(&self) -> impl Iterator<Item = &Waiting> {
        let mut all: Vec<&Waiting> = self.messages.values().collect();
        all.sort_by_key(|waiting| waiting.number);
        all.into_iter()
    }

    pub(super) fn message(&self, id: &str) -> Option<&Waiting> {
        self.messages.get(id)
    }

    /// Puts a message in; one that is there already is left as it is.
    pub(super) fn put(&mut self, table: usize, number: u64, message: &Outgoing) {
        if self.messages.contains_key(&message.id) {
            return;
        }
        self.open.insert((message.created_at, number, message.id.clone()));
        let waiting = Waiting {
            message: Outgoing { attempts: 0, ..message.clone() },
            table,
            number,
            next_at: message.created_at,
            lease_until: None,
            error: None,
            settlement: None,
        };
        self.messages.insert(message.id.clone(), waiting);
    }

    pub(super) fn take(&mut self, sources: &[Mapped], limit: usize, now: Timestamp, until: Timestamp) -> Vec<Outgoing> {
        let mut taken = Vec::new();
        for (.., id) in &self.open {
            if taken.len() >= limit {
                break;
            }
            let Some(waiting) = self.messages.get_mut(id) else { continue };
            let Some(source) = sources.iter().position(|mapped| mapped.table == waiting.table) else { continue };
            if waiting.next_at <= now && waiting.lease_until.is_none_or(|until| until <= now) {
                waiting.lease_until = Some(until);
                taken.push(Outgoing { source, ..waiting.message.clone() });
            }
        }
        taken
    }

    /// What is done stays done.
    pub(super) fn settle(&mut self, id: &str, settled: &Settled, now: Timestamp) {
        let Some(waiting) = self.messages.get_mut(id).filter(|waiting| waiting.settlement.is_none()) else { return };
        waiting.lease_until = None;
        let settlement = match settled {
            Settled::Sent => Settlement::Sent(now),
            Settled::Dropped(why) => Settlement::Dropped(now, why.clone()),
            Settled::Later(at, why) => {
                waiting.message.attempts += 1;
                waiting.next_at = *at;
                waiting.error = Some(why.clone());
                return;
            }
        };
        if matches!(settlement, Settlement::Sent(_)) {
            waiting.message.attempts += 1;
        }
        waiting.settlement = Some(settlement);
        self.open.remove(&(waiting.message.created_at, waiting.number, id.to_owned()));
        self.done.insert((now, id.to_owned()));
    }

    pub(super) fn forget_before(&mut self, before: Timestamp) {
        let kept = self.done.split_off(&(before, String::new()));
        for (_, id) in std::mem::replace(&mut self.done, kept) {
            self.messages.remove(&id);
        }
    }
}
