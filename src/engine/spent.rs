//! What is known here of tokens that were sent to a provider that takes each once, and that the database may not know:
//! a failover has lost the commit that said so, or the lease under which it was to be made.
//!
//! The intent was written before the call. But a standby that has not got it takes the token for unsent, and whoever
//! looks next would send it for the second time. As long as the process lives that sent it, it puts the fact there again,
//! well before other replicas go on with strict providers (see `ledger.rs`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use perene_policy::Connection;

use super::Engine;
use crate::store::{Commit, Committed, Guard, Lease, StoreError};

/// What was committed so long ago has reached every standby that may still take over: more than this is never lost, or it
/// is a backup that was restored.
const KEPT_FOR: SignedDuration = SignedDuration::from_mins(10);

#[derive(Default)]
pub(super) struct Spent(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Committed within the last minutes.
    recent: VecDeque<(Timestamp, Commit)>,
    /// Not in the database, as far as it is known.
    missing: Vec<Commit>,
}

impl Spent {
    /// This commit was made.
    pub(super) fn committed(&self, commit: Commit, now: Timestamp) {
        if is_spent(&commit) {
            let mut known = self.lock();
            while known.recent.front().is_some_and(|(at, _)| now.duration_since(*at) >= KEPT_FOR) {
                known.recent.pop_front();
            }
            known.recent.push_back((now, commit));
        }
    }

    /// This commit was not made: its lease was gone.
    pub(super) fn not_committed(&self, commit: Commit) {
        if is_spent(&commit) {
            self.lock().missing.push(commit);
        }
    }

    /// Another server has taken the database's place: whether it has got the latest commits is to be seen.
    pub(super) fn doubt(&self) {
        let mut known = self.lock();
        let recent: Vec<Commit> = known.recent.drain(..).map(|(_, commit)| commit).collect();
        known.missing.extend(recent);
    }

    fn take_missing(&self) -> Vec<Commit> {
        std::mem::take(&mut self.lock().missing)
    }

    fn still_missing(&self, commits: impl IntoIterator<Item = Commit>) {
        self.lock().missing.extend(commits);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it says that a token is spent, or may be.
fn is_spent(commit: &Commit) -> bool {
    let memory = commit.decision.memory.as_ref();
    memory.is_some_and(|memory| memory.refresh_token.is_some() && memory.state.may_be_spent())
}

impl Engine {
    /// Puts there again what the database does not know of tokens that were sent.
    ///
    /// # Errors
    /// When the store fails; what was not put there is put there next time.
    pub(super) async fn put_again_what_is_spent(&self) -> Result<(), StoreError> {
        let mut by_source: BTreeMap<usize, BTreeMap<String, Commit>> = BTreeMap::new();
        for commit in self.spent.take_missing() {
            by_source.entry(commit.source).or_default().insert(commit.connection.id.clone(), commit);
        }
        let mut result = Ok(());
        for (source, commits) in by_source {
            let left = match &result {
                Ok(()) => self.put_again(source, commits.clone()).await,
                Err(_) => Ok(commits.values().cloned().collect()),
            };
            match left {
                Ok(left) => self.spent.still_missing(left),
                Err(error) => {
                    self.spent.still_missing(commits.into_values());
                    result = Err(error);
                }
            }
        }
        result
    }

    /// Returns those at which somebody else is just now.
    async fn put_again(&self, source: usize, mut commits: BTreeMap<String, Commit>) -> Result<Vec<Commit>, StoreError> {
        let now = self.parts.clock.now();
        let fence = self.fence();
        let ids: Vec<String> = commits.keys().cloned().collect();
        let claimed = self.parts.store.claim(&self.named(source, &ids, fence, now)).await?.connections;
        let (mut again, mut leases) = (Vec::new(), Vec::new());
        for row in claimed {
            let Some(commit) = commits.remove(&row.id) else { continue };
            if is_forgotten(&commit, &row) {
                tracing::warn!(id = row.id, "the database has lost what became of a token: it is put there again");
                again.push(Commit { connection: row, guard: Guard::Lease(fence), ..commit });
            } else {
                leases.push(Lease { source, id: row.id, fence });
            }
        }
        self.parts.store.release(&leases).await?;
        let mut left = Vec::new();
        let committed = self.parts.store.commit(&again, now).await?;
        for (mut commit, committed) in again.into_iter().zip(committed) {
            match committed {
                // Another failover may lose it again.
                Committed::Done => self.spent.committed(commit, now),
                Committed::Superseded => {}
                Committed::Locked | Committed::GuardLost => left.push(commit),
                Committed::Refused(text) => {
                    tracing::error!(id = commit.connection.id, "what became of a token cannot be written: {text}");
                    commit.decision.write = None;
                    left.push(commit);
                }
            }
        }
        for (id, commit) in commits {
            let row = self.parts.store.find(source, &id).await?;
            if row.is_some_and(|row| is_forgotten(&commit, &row)) {
                left.push(commit);
            }
        }
        Ok(left)
    }
}

/// Whether the row holds the token, and nothing is remembered of what became of it.
fn is_forgotten(commit: &Commit, row: &Connection) -> bool {
    let is_same = row.token == commit.connection.token && row.refresh_token == commit.connection.refresh_token;
    is_same && !row.memory_of_this_refresh_token().is_some_and(|memory| memory.state.may_be_spent())
}
