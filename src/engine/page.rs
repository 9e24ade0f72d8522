//! What a page of connections came to, once all of it is there: only then can be seen whether the failures are the
//! customers' or the app's. Of several replicas that share a run each sees a part of them, so a page with failures is
//! compared with what the others have seen before it is decided.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use perene_policy::answer;
use perene_policy::app::Sighting;
use perene_policy::{Conclusion, Connection, Counted, Counting, Grant, Outcome, State, decide};

use super::driver::{Driver, Work};
use super::outbox;
use crate::store::{Commit, Guard, StoreError, Which};

/// So long the failures of a page wait for those that other replicas see at the same time: for all their further tries.
const OTHERS_CONCLUDE: Duration = Duration::from_secs(6);

/// Connections that were claimed together.
pub(super) struct Page {
    began: Timestamp,
    /// Those that are not concluded yet.
    pub(super) outstanding: usize,
    pub(super) concluded: Vec<(Connection, Conclusion)>,
    stage: Stage,
}

impl Page {
    pub(super) fn of(now: Timestamp) -> Self {
        Self { began: now, outstanding: 0, concluded: Vec::new(), stage: Stage::Alone }
    }
}

/// Of several replicas that share a run each sees a part of its failures, and too few of them for circuit and brake. So
/// a page with failures is compared with what the others have seen before it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was compared.
    Alone,
    /// The others are given the time to save what they have seen.
    Waits,
    /// What they have saved is read with the next save.
    Saves,
    /// That save is under way.
    Saving,
    /// What the others have seen is known.
    Compared,
}

impl Driver<'_> {
    pub(super) fn leave_page(&mut self, page: usize) {
        self.pages.get_mut(&page).expect("a page stays until all of it is concluded").outstanding -= 1;
    }

    pub(super) fn book_superseded(&mut self, id: &str, conclusion: &Conclusion) {
        tracing::info!(id, reason = conclusion.reason, "the row has changed meanwhile: nothing was sent");
        self.report.book(Outcome::Superseded, Counted::Superseded);
    }

    pub(super) fn conclude(&mut self, page: usize, connection: Connection, conclusion: Conclusion) {
        let now = self.now();
        if let Some(name) = self.app_name(connection.grant)
            && (conclusion.was_sent
                || conclusion.outcome == Outcome::Refreshed
                || conclusion.scope.is_some()
                || conclusion.message.is_some())
        {
            let sighting = Sighting {
                connection: connection.id.clone(),
                outcome: conclusion.outcome,
                reason: conclusion.reason,
                scope: conclusion.scope,
                retry_after: conclusion.retry_after,
                usage: conclusion.usage,
                is_in_a_row: self.engine.apps.is_suspect(&name, &connection.id),
                // A last try is a second one too: its refusal tells what became of the first, and nothing of the app.
                is_repeated: conclusion.was_last_try
                    || (matches!(self.order.which, Which::Retry) && has_failed_before(&connection)),
                life: conclusion
                    .expires_at
                    .filter(|_| conclusion.outcome == Outcome::Refreshed && connection.grant == Grant::Oauth2)
                    .map(|at| at.duration_since(now)),
            };
            self.engine.apps.learn(&name, sighting, now);
        }
        let page = self.pages.get_mut(&page).expect("a page stays until all of it is concluded");
        page.outstanding -= 1;
        if conclusion.outcome == Outcome::Refreshed {
            self.decide(connection, &conclusion, false);
        } else {
            page.concluded.push((connection, conclusion));
        }
    }

    /// Decides about all that waited for its page to be complete.
    pub(super) fn close_pages(&mut self) {
        let complete: Vec<usize> =
            self.pages.iter().filter(|(_, page)| page.outstanding == 0).map(|(number, _)| *number).collect();
        for number in complete {
            if self.waits_for_others(number) {
                continue;
            }
            let page = self.pages.remove(&number).expect("it has just been found");
            let grants: BTreeSet<Grant> = page.concluded.iter().map(|(connection, _)| connection.grant).collect();
            for grant in grants {
                let Some(name) = self.app_name(grant) else { continue };
                self.engine.apps.judge(&name, self.now());
                if self.engine.apps.take_new_brake(&name) {
                    self.probe_app(grant, name);
                }
            }
            for (connection, conclusion) in page.concluded {
                let name = self.app_name(connection.grant).unwrap_or_default();
                let holds_notices = self.engine.apps.holds_notices(&name, self.now());
                let is_held = match conclusion.outcome {
                    _ if conclusion.is_held => true,
                    Outcome::NotExtended => holds_notices,
                    outcome => self.engine.apps.disbelieves(&name, outcome, page.began),
                };
                if is_held && conclusion.outcome != Outcome::NotExtended {
                    self.engine.apps.leave_backlog(&name, self.now());
                }
                self.decide(connection, &conclusion, is_held);
            }
            self.must_save = true;
        }
    }

    /// Whether a page has failures that other replicas, which are at work too, may have seen as well.
    fn waits_for_others(&mut self, number: usize) -> bool {
        let page = &self.pages[&number];
        let has_failures = page.concluded.iter().any(|(_, conclusion)| conclusion.outcome.counted() == Counted::Failed);
        // Every replica makes the scheduled run, and the first of them to claim sees nothing of the others.
        let may_have_company =
            matches!(self.order.counting, Counting::OnceSince(_)) || self.report.leased_elsewhere > 0;
        let may_wait = has_failures && may_have_company && !self.stop.is_set() && self.fatal.is_none();
        if !may_wait || page.stage == Stage::Compared {
            return false;
        }
        if page.stage == Stage::Alone {
            self.move_page(number, Stage::Waits);
            // They wait for what is seen here, too.
            self.must_save = true;
            let clock = &self.engine.parts.clock;
            self.works.push(Box::pin(async move {
                clock.sleep(OTHERS_CONCLUDE).await;
                Work::OthersConcluded(number)
            }));
        }
        true
    }

    fn move_page(&mut self, number: usize, stage: Stage) {
        if let Some(page) = self.pages.get_mut(&number) {
            page.stage = stage;
        }
    }

    fn move_pages(&mut self, from: Stage, to: Stage) {
        self.pages.values_mut().filter(|page| page.stage == from).for_each(|page| page.stage = to);
    }

    /// What this page has failed with, others have had the time to see as well.
    pub(super) fn others_concluded(&mut self, page: usize) {
        self.must_save = true;
        self.move_page(page, Stage::Saves);
    }

    pub(super) fn saved(&mut self, result: Result<(), StoreError>) {
        self.is_saving = false;
        self.move_pages(Stage::Saving, Stage::Compared);
        if let Err(error) = result {
            self.must_save = true;
            self.failed(error);
        }
    }

    pub(super) fn save(&mut self) {
        if !self.must_save || self.is_saving {
            return;
        }
        (self.must_save, self.is_saving) = (false, true);
        let compares = self.pages.values().any(|page| page.stage == Stage::Saves);
        self.move_pages(Stage::Saves, Stage::Saving);
        let engine = self.engine;
        self.works.push(Box::pin(async move {
            // What was seen here has been saved before, and so this save may have nothing to write, and to conflict with.
            let saved = async {
                if compares {
                    engine.load_apps(false).await?;
                }
                engine.apps.look_after(engine.parts.clock.now()).await
            };
            Work::Saved(saved.await)
        }));
    }

    /// The brake has just been put on: is it the app? Only Facebook can be asked.
    fn probe_app(&mut self, grant: Grant, name: String) {
        let (engine, source) = (self.engine, self.order.source);
        self.works.push(Box::pin(async move {
            let is_well = match engine.provider(source).probe_app(grant).await {
                Some(Ok(answer)) => {
                    let now = engine.parts.clock.now();
                    answer::judge(perene_policy::Endpoint::DebugToken, &answer, now).outcome == Outcome::Refreshed
                }
                Some(Err(_)) | None => false,
            };
            Work::Probed(name, is_well)
        }));
    }

    pub(super) fn decide(&mut self, connection: Connection, conclusion: &Conclusion, is_held: bool) {
        let secrets = self.engine.apps.secrets();
        let context = self.engine.context(self.order.source, self.now(), self.order.counting, is_held, &secrets);
        let decision = decide(&connection, conclusion, &context);
        let outbox = outbox::of(self.engine, self.order.source, &connection, &decision, context.now);
        let guard = Guard::Lease(self.fence);
        self.decided.push(Commit { source: self.order.source, connection, guard, decision, outbox });
    }
}

/// Whether a connection that comes up for a try has had one that failed. Who comes up to be asked after its data access
/// has not.
fn has_failed_before(connection: &Connection) -> bool {
    let state = connection.memory_of_this_generation().map(|memory| &memory.state);
    !matches!(state, None | Some(State::Healthy | State::NotExtended))
}
