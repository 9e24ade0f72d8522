//! What is known here of tokens that were sent to a provider that takes each once, and that the database may not know:
//! a failover has lost the commit that said so, or the lease under which it was to be made.
//!
//! The intent was written before the call. But a standby that has not got it takes the token for unsent, and whoever
//! looks next would send it for the second time. As long as the process lives that sent it, it puts the fact there again,
//! well before other replicas go on with strict providers (see `ledger.rs`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use perene_policy::planted::{self, Bug};
use perene_policy::{Connection, TokenUse};

use super::Engine;
use crate::store::{Commit, Committed, Guard, Lease, StoreError};

/// What was committed so long ago has reached every standby that may still take over: more than this is never lost, or it
/// is a backup that was restored.
const KEPT_FOR: SignedDuration = SignedDuration::from_mins(10);

/// How often what is older is forgotten.
const TIDY_EVERY: SignedDuration = SignedDuration::from_mins(1);

#[derive(Default)]
pub(super) struct Spent(Mutex<Known>);

/// The latest fact about each connection, as long as it says that a token may be spent: a healthy one has none.
#[derive(Default)]
struct Known {
    facts: BTreeMap<Place, Fact>,
    tidied_at: Option<Timestamp>,
}

/// A source, and a row's key in it.
type Place = (usize, String);

struct Fact {
    commit: Commit,
    at: Timestamp,
    /// It is not in the database, as far as it is known.
    is_missing: bool,
}

impl Spent {
    /// This commit was made.
    pub(super) fn committed(&self, commit: Commit, now: Timestamp) {
        let mut known = self.lock();
        let is_answered = commit.decision.write.as_ref().is_some_and(|write| write.token.is_some());
        if is_answered {
            // What came of it is in the journal.
            known.facts.remove(&place(&commit));
        } else if use_of_token(&commit) != TokenUse::Unsent {
            known.facts.insert(place(&commit), Fact { commit, at: now, is_missing: false });
        }
        // Any other is of a row that was kept back: what the database has forgotten of it is as true as it was.
        if known.tidied_at.is_none_or(|at| now.duration_since(at) >= TIDY_EVERY) {
            known.tidied_at = Some(now);
            known.tidy(now);
        }
    }

    /// This commit was not made: its lease was gone.
    pub(super) fn not_committed(&self, commit: Commit, now: Timestamp) {
        if use_of_token(&commit) != TokenUse::Unsent {
            self.lock().facts.insert(place(&commit), Fact { commit, at: now, is_missing: true });
        }
    }

    /// Another server has taken the database's place: whether it has got the latest commits is to be seen.
    pub(super) fn doubt(&self, now: Timestamp) {
        let mut known = self.lock();
        known.tidy(now);
        known.facts.values_mut().for_each(|fact| fact.is_missing = true);
    }

    fn missing(&self) -> Vec<Commit> {
        self.lock().facts.values().filter(|fact| fact.is_missing).map(|fact| fact.commit.clone()).collect()
    }

    /// The database knows as much as this, or more. Another failover may lose it again.
    fn found(&self, commit: &Commit) {
        if let Some(fact) = self.lock().facts.get_mut(&place(commit)) {
            fact.is_missing &= fact.commit.decision != commit.decision;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn tidy(&mut self, now: Timestamp) {
        self.facts.retain(|_, fact| fact.is_missing || now.duration_since(fact.at) < KEPT_FOR);
    }
}

fn place(commit: &Commit) -> Place {
    (commit.source, commit.connection.id.clone())
}

/// What a commit says of the use of a refresh token that a provider takes once.
fn use_of_token(commit: &Commit) -> TokenUse {
    let memory = commit.decision.memory.as_ref().filter(|memory| memory.refresh_token.is_some());
    TokenUse::of(memory)
}

impl Engine {
    /// Puts there again what the database does not know of tokens that were sent.
    ///
    /// # Errors
    /// When the store fails; what was not put there is put there next time.
    pub(super) async fn put_again_what_is_spent(&self) -> Result<(), StoreError> {
        let mut by_source: BTreeMap<usize, BTreeMap<String, Commit>> = BTreeMap::new();
        for commit in self.spent.missing().into_iter().filter(|_| !planted::has(Bug::SpentNotPutAgain)) {
            by_source.entry(commit.source).or_default().insert(commit.connection.id.clone(), commit);
        }
        for (source, commits) in by_source {
            self.put_again(source, commits).await?;
        }
        Ok(())
    }

    /// Those at which somebody else is just now stay missing.
    async fn put_again(&self, source: usize, mut commits: BTreeMap<String, Commit>) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let fence = self.fence();
        let ids: Vec<String> = commits.keys().cloned().collect();
        let claimed = self.parts.store.claim(&self.named(source, &ids, fence, now)).await?.connections;
        let (mut again, mut leases) = (Vec::new(), Vec::new());
        for row in claimed {
            let Some(commit) = commits.remove(&row.id) else { continue };
            if is_forgotten(&commit, &row) {
                tracing::warn!(id = row.id, "the database has lost what became of a token: it is put there again");
                again.push((commit.clone(), said_of(row, commit, Guard::Lease(fence))));
            } else {
                self.spent.found(&commit);
                leases.push(Lease { source, id: row.id, fence });
            }
        }
        self.parts.store.release(&leases).await?;
        let (facts, mut again): (Vec<Commit>, Vec<Commit>) = again.into_iter().unzip();
        let committed = self.parts.store.commit(&again, now).await?;
        for ((fact, commit), committed) in facts.iter().zip(&mut again).zip(committed) {
            match committed {
                Committed::Done | Committed::Superseded => self.spent.found(fact),
                Committed::Locked | Committed::GuardLost => {}
                Committed::Refused(text) => {
                    tracing::error!(id = commit.connection.id, "what became of a token cannot be written: {text}");
                    // The row may be what refuses, or the user's.
                    if commit.decision.write.take().is_none() {
                        commit.decision.flag = None;
                    }
                    self.spent.not_committed(commit.clone(), now);
                }
            }
        }
        for (id, commit) in commits {
            let row = self.parts.store.find(source, &id).await?;
            if !row.is_some_and(|row| is_forgotten(&commit, &row)) {
                self.spent.found(&commit);
            }
        }
        Ok(())
    }
}

/// Whether the row holds the refresh token, beside whatever access token, and less is remembered of its use.
fn is_forgotten(commit: &Commit, row: &Connection) -> bool {
    let is_same = row.refresh_token == commit.connection.refresh_token;
    is_same && TokenUse::of(row.memory_of_this_refresh_token()) < use_of_token(commit)
}

/// What a commit says of a refresh token, said of the row as it is now. Where an incident has been opened meanwhile, its
/// customer hears of that one.
fn said_of(row: Connection, mut commit: Commit, guard: Guard) -> Commit {
    if let Some(memory) = &mut commit.decision.memory {
        memory.generation = row.generation();
        let incident = row.memory.as_ref().and_then(|memory| memory.incident.clone());
        if let Some(incident) = incident.filter(|incident| memory.incident.as_ref() != Some(incident)) {
            memory.incident = Some(incident);
            (commit.decision.warns, commit.decision.flag) = (false, None);
            commit.decision.notices.clear();
            commit.outbox.clear();
        }
    }
    Commit { connection: row, guard, ..commit }
}

#[cfg(test)]
mod tests {
    use perene_policy::{Class, Conclusion, Counting, Outcome, Secret, decide};

    use super::*;
    use crate::engine::testing::World;
    use crate::store::Store;

    /// What is decided about a row of which nothing is remembered.
    fn decided(world: &World, conclusion: Conclusion) -> Commit {
        world.clock.run(async {
            let engine = world.engine();
            let connection = world.store.find(0, "1").await.expect("reads").expect("it is there");
            let context = engine.context(0, world.now(), Counting::Never, false, &[]);
            let decision = decide(&connection, &conclusion, &context);
            Commit { source: 0, connection, guard: Guard::Lease(engine.fence()), decision, outbox: Vec::new() }
        })
    }

    #[test]
    fn a_row_that_is_kept_back_leaves_what_is_known_of_it_and_an_answer_ends_it() {
        let world = World::rotating(Class::Strict);
        world.insert_pair(1, SignedDuration::from_mins(18));
        let (spent, now) = (Spent::default(), world.now());
        let refused = Conclusion {
            was_sent: true,
            sends_once: true,
            is_uncertain: true,
            ..Conclusion::unsent(Outcome::Transient, "no_answer")
        };
        spent.committed(decided(&world, refused), now);
        spent.doubt(now);
        let kept_back =
            Conclusion { is_kept_back: true, ..Conclusion::unsent(Outcome::Transient, "database_replaced") };
        spent.committed(decided(&world, kept_back), now);
        assert_eq!(spent.missing().len(), 1);
        let answered = Conclusion {
            was_sent: true,
            token: Some(Secret::new("a-1-1")),
            refresh_token: Some(Secret::new("r-1-1")),
            expires_at: Some(now + SignedDuration::from_mins(60)),
            ..Conclusion::unsent(Outcome::Refreshed, "refreshed")
        };
        spent.committed(decided(&world, answered), now);
        assert_eq!(spent.missing().len(), 0);
    }
}
