//! Drives one pass over one source: claims pages (`claim.rs`), keeps so many calls in flight (`call.rs`), decides page by
//! page (`page.rs`), commits in batches (`commit.rs`).
//!
//! Everything runs in one task: calls, claims and commits are futures in one set, so a slow one delays
//! nobody, and under the simulation's clock the order of events is the same every time.
//!
//! What was refreshed is committed as it comes. Everything else waits until its page is complete, because
//! only then can be seen whether the failures are the customers' or the app's: circuit and brake hold for the
//! first rows of a storm too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::{SignedDuration, Timestamp};
use perene_policy::answer::{Answer, NoAnswer, Verdict};
use perene_policy::app::Permission;
use perene_policy::planted::{self, Bug};
use perene_policy::{Class, Conclusion, Connection, Context, Counting, Exchange, Grant, Outcome, Step, Terms};
use uuid::Uuid;

use super::call::InFlight;
use super::commit::BATCH;
use super::intent::NoIntent;
use super::outage::Outage;
use super::page::Page;
use super::report::Report;
use super::{Engine, Stop};
use crate::journal::{EntryId, JournalError};
use crate::store::{Claimed, Commit, Committed, Cursor, StoreError, Which};

/// A lease outlives the longest call (30 s) by a wide margin, and a killed replica's leases are taken over
/// within a minute.
pub(super) const LEASE: SignedDuration = SignedDuration::from_secs(50);

/// The deadline of leases that are taken or prolonged now.
pub(super) fn lease_until(now: Timestamp) -> Timestamp {
    later(now, if planted::has(Bug::LeaseTooShort) { LEASE / 10 } else { LEASE })
}

/// Leases are prolonged when this has passed since the last time.
const BEAT: Duration = Duration::from_secs(5);

/// Leases are prolonged also when nothing was written for so long: calls must not go on for long unnoticed when the
/// database is away.
const QUIET: Duration = Duration::from_secs(2);

/// No call is begun while so many results wait to be written: the database is slower than the provider.
const UNWRITTEN_MAX: usize = 8 * BATCH;

/// What a pass is to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) source: usize,
    pub(super) which: Which<'a>,
    pub(super) grants: &'a [Grant],
    /// Whether a failure adds to `refresh_attempts`.
    pub(super) counting: Counting,
    /// Rows are sent although their date says otherwise: the operator named them and insists.
    pub(super) insist: bool,
    /// Of named rows, those that are not due are given back unsent.
    pub(super) only_due: bool,
    /// Rows that are to be tried again at some time are given back unsent: their failure has been counted.
    pub(super) only_untried: bool,
    /// At most so many rows; `None` for all.
    pub(super) rows_max: Option<usize>,
    /// A probe: one call a row, nothing is repeated.
    pub(super) is_probe: bool,
    /// Behind which row to begin.
    pub(super) from: Option<&'a Cursor>,
    /// Of named rows, those that are not as they were seen are given back unsent: somebody asked for a token, and another
    /// has just refreshed it, or has tried to.
    pub(super) as_seen: Option<&'a Connection>,
}

/// Where a pass ended for grants whose app could not be called any more.
pub(super) type Closed = BTreeMap<Grant, Option<Cursor>>;

pub(super) struct Driver<'a> {
    pub(super) engine: &'a Engine,
    pub(super) order: Order<'a>,
    pub(super) fence: Uuid,
    pub(super) stop: Stop,
    pub(super) report: &'a mut Report,
    pub(super) progress: &'a (dyn Fn(&Report) + Sync),

    pub(super) works: FuturesUnordered<BoxFuture<'a, Work>>,
    /// Claimed, not begun, by grant.
    pub(super) fresh: BTreeMap<Grant, VecDeque<(usize, Connection)>>,
    /// Calls whose time has come.
    pub(super) ready: VecDeque<Box<InFlight>>,
    pub(super) pages: BTreeMap<usize, Page>,
    /// Their token is about to be sent to a provider that punishes reuse.
    pub(super) intending: Vec<InFlight>,
    pub(super) is_intending: bool,
    /// What is kept in the journal and not committed yet, by the connection's key.
    pub(super) journalled: BTreeMap<String, EntryId>,
    /// Decided, not committed.
    pub(super) decided: Vec<Commit>,
    /// Leases to be given back.
    pub(super) returned: Vec<String>,
    pub(super) outage: Outage,
    /// What ends the pass once everything that is in flight is written.
    pub(super) fatal: Option<StoreError>,
    /// The earliest start of the next call, by grant: the app's pace.
    pub(super) next_start: BTreeMap<Grant, Timestamp>,
    /// Rows that a pass over all live ones has had: it goes by expiry, and meets what it moved ahead again.
    pub(super) had: BTreeSet<String>,
    /// Whether the database has answered a commit.
    pub(super) has_committed: bool,
    /// Whether the table has taken a row.
    pub(super) has_written: bool,
    /// Refused by the database, and why: counted as failures when the pass is over.
    pub(super) refused: Vec<(Commit, String)>,
    pub(super) calling: usize,
    pub(super) waiting: BTreeMap<Grant, usize>,
    pub(super) cursor: Option<Cursor>,
    /// Grants whose app cannot be called any more.
    pub(super) closed: BTreeSet<Grant>,
    /// Up to where rows of a grant have been claimed; what lies behind is still to be counted.
    pub(super) reached: Closed,
    pub(super) claimed: usize,
    pub(super) is_claiming: bool,
    pub(super) is_exhausted: bool,
    pub(super) is_napping: bool,
    pub(super) is_saving: bool,
    pub(super) must_save: bool,
    pub(super) must_settle: bool,
    pub(super) is_settling: bool,
    pub(super) last_beat: Duration,
    /// When the database last took a write.
    pub(super) last_heard: Duration,
    pub(super) page_count: usize,
}

pub(super) enum Work {
    Claimed(Vec<Grant>, Result<Claimed, StoreError>),
    /// What is about to be sent is written down, or is not.
    Intended(Vec<InFlight>, Timestamp, Result<Vec<Committed>, NoIntent>),
    Called(Box<InFlight>, Timestamp, Result<Answer, NoAnswer>),
    /// An answer that brought a token is on disk.
    Journalled(Box<InFlight>, Box<Verdict>, Timestamp, Result<Option<EntryId>, JournalError>),
    /// A refusal has had its time to be overtaken.
    Settled(Box<InFlight>, Box<Conclusion>),
    Waited(Box<InFlight>),
    /// Others have had the time to save what they have seen of the apps that this page called.
    OthersConcluded(usize),
    /// With the time at which the commit began.
    Committed(Vec<Commit>, Duration, Result<Vec<Committed>, StoreError>),
    /// Whether another server has answered than before.
    Beaten(Result<bool, StoreError>),
    /// The journal has been compared with what the server that took over holds.
    SettledUp(Result<(), StoreError>),
    Released(Vec<String>, Result<(), StoreError>),
    /// The database has been left alone for a while.
    Rested,
    /// What was learnt of the apps is saved.
    Saved(Result<(), StoreError>),
    /// The app itself was asked.
    Probed(String, bool),
    /// The time of a paced call has come.
    Napped,
}

impl<'a> Driver<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        order: Order<'a>,
        stop: Stop,
        report: &'a mut Report,
        progress: &'a (dyn Fn(&Report) + Sync),
    ) -> Self {
        Self {
            engine,
            order,
            fence: engine.fence(),
            stop,
            report,
            progress,
            works: FuturesUnordered::new(),
            fresh: BTreeMap::new(),
            ready: VecDeque::new(),
            pages: BTreeMap::new(),
            intending: Vec::new(),
            is_intending: false,
            journalled: BTreeMap::new(),
            decided: Vec::new(),
            returned: Vec::new(),
            outage: Outage::default(),
            fatal: None,
            next_start: BTreeMap::new(),
            had: BTreeSet::new(),
            has_committed: false,
            has_written: false,
            refused: Vec::new(),
            calling: 0,
            waiting: BTreeMap::new(),
            cursor: order.from.cloned(),
            closed: BTreeSet::new(),
            reached: order.grants.iter().map(|grant| (*grant, None)).collect(),
            claimed: 0,
            is_claiming: false,
            is_exhausted: false,
            is_napping: false,
            is_saving: false,
            must_save: false,
            must_settle: false,
            is_settling: false,
            last_beat: engine.parts.clock.monotonic(),
            last_heard: engine.parts.clock.monotonic(),
            page_count: 0,
        }
    }

    /// Works until there is nothing left to claim, or the stop was asked for and what was in flight is
    /// committed. Returns what it has left undone; a probe, what lies behind the row that it took. On an error of the store, leases that can be given back are.
    pub(super) async fn drive(mut self) -> Result<Closed, StoreError> {
        let result = self.drive_to_end().await;
        if result.is_err() {
            let held = self.held();
            // They may hold the connections that giving back needs.
            self.works.clear();
            self.engine.ledger.let_go(std::mem::take(&mut self.journalled).into_values());
            // The database is in trouble: should this fail too, the leases lapse by themselves.
            let _ = self.engine.parts.store.release(&held).await;
        }
        result?;
        self.count_refused().await?;
        let Self { closed, mut reached, order, .. } = self;
        reached.retain(|grant, _| order.is_probe || closed.contains(grant));
        Ok(reached)
    }

    /// Awaits nothing but the set, and the stop: a future that is not polled may hold the connection to the
    /// database for which another one waits.
    async fn drive_to_end(&mut self) -> Result<(), StoreError> {
        let mut stop = self.stop.clone();
        let mut asked = pin!(stop.wait());
        loop {
            if self.stop.is_set() || self.fatal.is_some() {
                self.report.was_interrupted |= !self.is_exhausted || self.has_fresh();
                self.is_exhausted = true;
                self.give_back_fresh();
            }
            self.admit();
            self.write_intents();
            // After admitting: what cannot be sent is concluded at once, and may complete a page.
            self.close_pages();
            self.write();
            let work = if self.stop.is_set() {
                self.works.next().await
            } else {
                match select(self.works.next(), asked.as_mut()).await {
                    Either::Left((work, _)) => work,
                    Either::Right(_) => continue,
                }
            };
            let Some(work) = work else { return self.fatal.take().map_or(Ok(()), Err) };
            self.take(work);
        }
    }

    /// Begins what the database is to do. While it fails, that is one thing at a time, and always a write: the
    /// next commit if there is one, for its success alone shows that commits are taken again.
    fn write(&mut self) {
        if self.fatal.is_some() {
            // Nothing is begun anew, least of all what has just failed for good: it would fail again, for ever. What is
            // leased is given back when the pass has ended.
            if !self.outage.is_on() {
                self.commit_some();
            }
        } else if !self.outage.is_on() {
            self.claim_more();
            self.commit_some();
            self.release();
            self.save();
            self.beat();
        } else if !self.outage.is_resting() && self.outage.commits() == 0 {
            if !self.decided.is_empty() {
                self.commit_next();
            } else if !self.returned.is_empty() {
                self.release();
            } else if !self.outage.is_beating() && !self.is_done() {
                self.extend();
            }
        }
    }

    /// Whether nothing is left for which the database is needed.
    fn is_done(&self) -> bool {
        self.is_exhausted && self.calling == 0 && !self.has_fresh() && self.pages.is_empty() && !self.must_save
    }

    /// Whether something is claimed that is not begun.
    pub(super) fn has_fresh(&self) -> bool {
        self.fresh.values().any(|waiting| !waiting.is_empty())
    }

    /// Something failed: it is done again after a pause, if that can help; if not, the pass ends.
    pub(super) fn failed(&mut self, error: StoreError) {
        self.report.had_outage = true;
        match self.outage.failed(error, self.engine.parts.clock.monotonic()) {
            Ok(Some(pause)) => {
                let clock = &self.engine.parts.clock;
                self.works.push(Box::pin(async move {
                    clock.sleep(pause).await;
                    Work::Rested
                }));
            }
            Ok(None) => {}
            Err(error) => {
                self.fatal.get_or_insert(error);
            }
        }
    }

    /// The database took a write.
    pub(super) fn passed(&mut self) {
        self.last_heard = self.engine.parts.clock.monotonic();
        // What takes a lease may still refuse a commit: its disk is nearly full.
        if self.decided.is_empty() && self.outage.commits() == 0 {
            self.outage.passed(self.engine.parts.clock.monotonic());
        }
    }

    /// Begins calls while there is room: first those whose turn has come, then fresh connections, of the
    /// grant whose next one expires soonest.
    ///
    /// Begins none while what it brings could not be written.
    fn admit(&mut self) {
        while self.calling < self.engine.parts.concurrency {
            let unwritten = self.decided.len() + self.outage.commits() * BATCH;
            let may_call = unwritten < UNWRITTEN_MAX && self.outage.allows_calls(self.engine.parts.clock.monotonic());
            if !may_call && !self.stop.is_set() {
                return;
            }
            if let Some(in_flight) = self.ready.pop_front() {
                self.go_on(in_flight);
            } else if let Some(grant) = self.admissible() {
                self.begin(grant);
            } else {
                return;
            }
        }
    }

    fn admissible(&mut self) -> Option<Grant> {
        let now = self.now();
        let mut soonest: Option<(Timestamp, Grant)> = None;
        let mut wake_at: Option<Timestamp> = None;
        let grants: Vec<Grant> = self.fresh.keys().copied().collect();
        for grant in grants {
            let Some(name) = self.app_name(grant) else { continue };
            match self.engine.apps.permission(&name, now) {
                Permission::Wait { outcome, .. } if !self.order.is_probe => self.defer_fresh(grant, &name, outcome),
                // Between two probes: what has already been claimed is put off like the rest.
                Permission::Probe if !self.order.is_probe => self.defer_fresh(grant, &name, Outcome::Transient),
                _ => {}
            }
            let Some((_, next)) = self.fresh.get(&grant).and_then(VecDeque::front) else { continue };
            let is_outstanding = self.calling > 0 || self.waiting.get(&grant).is_some_and(|waiting| *waiting > 0);
            if is_outstanding && self.engine.apps.is_suspicious(&name) {
                continue;
            }
            if let Some(start) = self.next_start.get(&grant).filter(|start| **start > now) {
                wake_at = Some(wake_at.map_or(*start, |at| at.min(*start)));
                continue;
            }
            let expires_at = next.expires_at.unwrap_or(Timestamp::MAX);
            if soonest.is_none_or(|(at, _)| expires_at < at) {
                soonest = Some((expires_at, grant));
            }
        }
        if soonest.is_none()
            && let Some(at) = wake_at
            && !self.is_napping
        {
            self.is_napping = true;
            let wait = std_duration(at.duration_since(now));
            let clock = &self.engine.parts.clock;
            self.works.push(Box::pin(async move {
                clock.sleep(wait).await;
                Work::Napped
            }));
        }
        soonest.map(|(_, grant)| grant)
    }

    fn begin(&mut self, grant: Grant) {
        let Some((page, connection)) = self.fresh.get_mut(&grant).and_then(VecDeque::pop_front) else { return };
        let now = self.now();
        let source = self.order.source;
        let provider = self.engine.provider(source);
        let terms = Terms {
            class: provider.class(),
            window: perene_policy::due::settings_of(&connection, self.engine.settings(source)).window,
            insist: self.order.insist,
            looks_after: matches!(self.order.which, Which::Retry),
            usual_life: provider.usual_life(),
            needs_refresh_token: self.engine.has_refresh_tokens(source),
        };
        let (exchange, step) = if self.engine.has_answer_to(source, &connection) {
            // It is spent: what came of it is in the journal, and the database has lost it or not got it yet.
            self.engine.ledger.reopen(&self.engine.parts.sources[source].table.to_string(), &connection.id);
            let kept_back = Conclusion { is_kept_back: true, ..Conclusion::unsent(Outcome::Transient, "answer_kept") };
            (None, Step::Conclude(kept_back))
        } else {
            let (exchange, step) = Exchange::begin(&connection, terms, now);
            (Some(exchange), step)
        };
        if let Some(name) = self.app_name(grant)
            && let Permission::Go(spacing) = self.engine.apps.permission(&name, now)
            && spacing.is_positive()
            && matches!(step, Step::Call(_))
        {
            self.next_start.insert(grant, later(now, spacing));
        }
        if planted::has(Bug::PassStopsAtBadRow) && perene_policy::due::unsendable(&connection).is_some() {
            self.is_exhausted = true;
            self.give_back_fresh();
        }
        match (step, exchange) {
            (Step::Call(call), Some(exchange)) => {
                let in_flight = InFlight { page, connection, exchange, call, verdict: None };
                if terms.class == Class::Strict && !planted::has(Bug::NoIntent) {
                    self.calling += 1;
                    self.intending.push(in_flight);
                } else {
                    self.call(Box::new(in_flight));
                }
            }
            (Step::Call(_), None) => unreachable!("without an exchange nothing is called"),
            (Step::Conclude(conclusion), _) => self.conclude(page, connection, conclusion),
        }
    }

    fn take(&mut self, work: Work) {
        match work {
            Work::Claimed(grants, claimed) => {
                self.is_claiming = false;
                match claimed {
                    Ok(claimed) => {
                        self.passed();
                        self.claimed(&grants, claimed);
                    }
                    Err(error) => self.failed(error),
                }
            }
            Work::Called(in_flight, sent_at, result) => {
                self.calling -= 1;
                self.called(in_flight, sent_at, result);
            }
            Work::Waited(in_flight) => {
                self.waits_no_more(&in_flight);
                self.ready.push_back(in_flight);
            }
            Work::OthersConcluded(page) => self.others_concluded(page),
            Work::Intended(batch, sent_at, written) => self.intended(batch, sent_at, written),
            Work::Journalled(in_flight, verdict, sent_at, written) => {
                self.waits_no_more(&in_flight);
                match written {
                    Ok(place) => {
                        self.journalled.extend(place.map(|place| (in_flight.connection.id.clone(), place)));
                    }
                    // It is only here now: the sooner it is in the database, the better.
                    Err(error) => tracing::error!(id = in_flight.connection.id, "an answer could not be kept: {error}"),
                }
                self.answered(in_flight, *verdict, sent_at);
            }
            Work::Settled(in_flight, conclusion) => {
                self.waits_no_more(&in_flight);
                self.conclude(in_flight.page, in_flight.connection, *conclusion);
            }
            Work::Committed(commits, began, result) => self.committed(commits, began, result),
            Work::Beaten(result) => {
                self.outage.set_beat(None);
                match result {
                    Ok(is_another_server) => {
                        self.passed();
                        self.settle_up(is_another_server);
                    }
                    Err(error) => self.failed(error),
                }
            }
            Work::SettledUp(result) => {
                self.is_settling = false;
                if let Err(error) = result {
                    self.must_settle = true;
                    self.failed(error);
                }
            }
            Work::Released(ids, result) => match result {
                Ok(()) => self.passed(),
                Err(error) => {
                    self.returned.extend(ids);
                    self.failed(error);
                }
            },
            Work::Rested => self.outage.rested(),
            Work::Saved(result) => self.saved(result),
            Work::Probed(name, is_well) => self.engine.apps.probed(&name, is_well, self.now()),
            Work::Napped => self.is_napping = false,
        }
    }

    fn beat(&mut self) {
        let monotonic = self.engine.parts.clock.monotonic();
        let is_due = monotonic.saturating_sub(self.last_beat) >= BEAT;
        let is_quiet = monotonic.saturating_sub(self.last_heard) >= QUIET;
        if (is_due || is_quiet) && !self.outage.is_beating() && !self.works.is_empty() {
            self.extend();
        }
    }

    pub(super) fn extend(&mut self) {
        self.last_beat = self.engine.parts.clock.monotonic();
        self.outage.set_beat(Some(self.last_beat));
        let Self { engine, fence, .. } = *self;
        self.works.push(Box::pin(async move { Work::Beaten(engine.prolong(fence).await) }));
    }

    /// Another server has taken over in the middle of this pass, which may last for hours: what it has lost is brought
    /// back at once, because other replicas leave strict providers alone for a minute only.
    pub(super) fn settle_up(&mut self, is_another_server: bool) {
        self.must_settle |= is_another_server;
        if self.must_settle && !self.is_settling {
            (self.must_settle, self.is_settling) = (false, true);
            let engine = self.engine;
            self.works.push(Box::pin(async move { Work::SettledUp(engine.settle_up().await) }));
        }
    }

    pub(super) fn app_name(&self, grant: Grant) -> Option<String> {
        self.engine.provider(self.order.source).app(grant).map(|app| app.name.clone())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.engine.parts.clock.now()
    }
}

impl Engine {
    /// Whether a row that comes up for a retry in a run has had its turn in it: among those that are due, or
    /// without a date. A run counts a connection once.
    pub(super) fn was_due_before(&self, order: &Order<'_>, connection: &Connection, now: Timestamp) -> bool {
        order.counting.is_of_run()
            && matches!(order.which, Which::Retry)
            && (connection.expires_at.is_none() || self.is_in_window(order.source, connection, now))
    }

    /// Whether a row expires inside the window of tokens that live as long as its own.
    pub(super) fn is_in_window(&self, source: usize, connection: &Connection, now: Timestamp) -> bool {
        let window = perene_policy::due::settings_of(connection, self.settings(source)).window;
        connection.expires_at.is_some_and(|at| perene_policy::due::within(at, now, window))
    }

    /// Whether a row that was named is one that a run would have taken by itself.
    pub(super) fn is_due(&self, source: usize, connection: &Connection, now: Timestamp) -> bool {
        let next_try_at = connection.memory_of_this_generation().and_then(|memory| memory.next_try_at);
        let since = later(now, -self.overdue(source));
        next_try_at.is_none_or(|at| at <= now)
            && connection.expires_at.is_none_or(|at| at > since && self.is_in_window(source, connection, now))
    }

    /// Prolongs the leases of a pass; returns whether another server has answered than before. The time is agreed on
    /// first: a machine that slept in the middle of the pass has a clock that did not.
    async fn prolong(&self, fence: Uuid) -> Result<bool, StoreError> {
        let now = self.agree_on_the_time().await?;
        self.parts.store.extend(fence, lease_until(now)).await?;
        self.meet_server().await
    }

    pub(super) fn context<'a>(
        &'a self,
        source: usize,
        now: Timestamp,
        counting: Counting,
        is_held: bool,
        secrets: &'a [perene_policy::Secret],
    ) -> Context<'a> {
        Context {
            now,
            settings: self.settings(source),
            counting,
            next_run_at: self.parts.schedule.next_after(now),
            tomorrow: self.parts.schedule.tomorrow(now),
            is_held,
            secrets,
        }
    }
}

pub(super) fn later(now: Timestamp, wait: SignedDuration) -> Timestamp {
    perene_policy::backoff::later(now, wait)
}

/// Whether a row holds the tokens and the date that it held before.
pub(super) fn holds_the_same(before: &Connection, now: &Connection) -> bool {
    before.token == now.token && before.refresh_token == now.refresh_token && before.expires_at == now.expires_at
}

pub(super) fn std_duration(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}
