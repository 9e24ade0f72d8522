//! Drives one pass over one source: claims pages, keeps so many calls in flight, commits in batches.
//!
//! Everything runs in one task: calls, claims and commits are futures in one set, so a slow one delays
//! nobody, and under the simulation's clock the order of events is the same every time.
//!
//! What was refreshed is committed as it comes. Everything else waits until its page is complete, because
//! only then can be seen whether the failures are the customers' or the app's: circuit and brake hold for the
//! first rows of a storm too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use jiff::{SignedDuration, Timestamp};
use perene_policy::answer::{self, Answer, NoAnswer, NoAnswerKind, Verdict};
use perene_policy::app::{Permission, Sighting};
use perene_policy::planted::{self, Bug};
use perene_policy::{
    Call, Class, Conclusion, Connection, Context, Counted, Counting, Decision, Exchange, Grant, Outcome, State, Step,
    Terms, decide,
};
use uuid::Uuid;

use super::intent::NoIntent;
use super::outage::Outage;
use super::report::{Report, Trouble};
use super::{Engine, Stop, outbox};
use crate::failpoint::fail_at;
use crate::journal::{Entry, EntryId, JournalError};
use crate::store::{Claim, Claimed, Commit, Committed, Cursor, Guard, Lease, StoreError, Which};

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

/// Rows that are claimed at a time.
const PAGE: usize = 500;

/// Rows that are committed at a time.
const BATCH: usize = 250;

/// No call is begun while so many results wait to be written: the database is slower than the provider.
const UNWRITTEN_MAX: usize = 8 * BATCH;

/// So long the failures of a page wait for those that other replicas see at the same time: for all their further tries.
const OTHERS_CONCLUDE: Duration = Duration::from_secs(6);

/// A call that still hangs so long after the stop was asked for is given up, as its deadline would have done a
/// moment later: what the others brought must still be written before the time to stop is over.
const LAST_CALL: Duration = Duration::from_secs(29);

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
    stop: Stop,
    pub(super) report: &'a mut Report,
    progress: &'a (dyn Fn(&Report) + Sync),

    pub(super) works: FuturesUnordered<BoxFuture<'a, Work>>,
    /// Claimed, not begun, by grant.
    fresh: BTreeMap<Grant, VecDeque<(usize, Connection)>>,
    /// Calls whose time has come.
    ready: VecDeque<Box<InFlight>>,
    pages: BTreeMap<usize, Page>,
    /// Their token is about to be sent to a provider that punishes reuse.
    pub(super) intending: Vec<InFlight>,
    pub(super) is_intending: bool,
    /// What is kept in the journal and not committed yet, by the connection's key.
    journalled: BTreeMap<String, EntryId>,
    /// Decided, not committed.
    pub(super) decided: Vec<Commit>,
    /// Leases to be given back.
    returned: Vec<String>,
    outage: Outage,
    /// What ends the pass once everything that is in flight is written.
    fatal: Option<StoreError>,
    /// The earliest start of the next call, by grant: the app's pace.
    next_start: BTreeMap<Grant, Timestamp>,
    /// Rows that a pass over all live ones has had: it goes by expiry, and meets what it moved ahead again.
    had: BTreeSet<String>,
    /// Whether the database has answered a commit.
    has_committed: bool,
    /// Whether the table has taken a row.
    pub(super) has_written: bool,
    /// Refused by the database, and why: counted as failures when the pass is over.
    pub(super) refused: Vec<(Commit, String)>,
    pub(super) calling: usize,
    waiting: BTreeMap<Grant, usize>,
    cursor: Option<Cursor>,
    /// Grants whose app cannot be called any more.
    closed: BTreeSet<Grant>,
    /// Up to where rows of a grant have been claimed; what lies behind is still to be counted.
    reached: Closed,
    claimed: usize,
    is_claiming: bool,
    is_exhausted: bool,
    is_napping: bool,
    is_saving: bool,
    must_save: bool,
    must_settle: bool,
    is_settling: bool,
    last_beat: Duration,
    /// When the database last took a write.
    last_heard: Duration,
    page_count: usize,
}

pub(super) struct InFlight {
    pub(super) page: usize,
    pub(super) connection: Connection,
    pub(super) exchange: Exchange,
    call: Call,
    /// What the call before was answered.
    verdict: Option<Verdict>,
}

struct Page {
    began: Timestamp,
    outstanding: usize,
    concluded: Vec<(Connection, Conclusion)>,
    stage: Stage,
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
    fn has_fresh(&self) -> bool {
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
    fn passed(&mut self) {
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

    /// Whether what was about to be called when its intent was written may still be.
    pub(super) fn may_still_be_called(&self, in_flight: &InFlight) -> bool {
        let name = self.app_name(in_flight.connection.grant).unwrap_or_default();
        let permission = self.engine.apps.permission(&name, self.now());
        let is_free = matches!(permission, Permission::Go(_)) && self.engine.hindrance(self.order.source).is_none();
        !self.stop.is_set() && (self.order.is_probe || is_free)
    }

    /// Makes the next call for a connection, unless its app may no longer be called: calling while limited
    /// prolongs the limit, and while the provider is down it helps nobody.
    fn go_on(&mut self, mut in_flight: Box<InFlight>) {
        let name = self.app_name(in_flight.connection.grant).unwrap_or_default();
        let may_be_called = matches!(self.engine.apps.permission(&name, self.now()), Permission::Go(_));
        match in_flight.verdict.take() {
            Some(verdict) if self.stop.is_set() || (!may_be_called && !self.order.is_probe) => {
                let conclusion = in_flight.exchange.give_up(verdict);
                self.conclude(in_flight.page, in_flight.connection, conclusion);
            }
            _ => self.call(in_flight),
        }
    }

    pub(super) fn call(&mut self, in_flight: Box<InFlight>) {
        self.calling += 1;
        let sent_at = self.now();
        let provider = self.engine.provider(self.order.source);
        let (clock, mut stop) = (&self.engine.parts.clock, self.stop.clone());
        self.works.push(Box::pin(async move {
            let lost = |text: &str| Err(NoAnswer { kind: NoAnswerKind::Lost, text: text.to_owned() });
            let call = &in_flight.call;
            fail_at("before_call");
            let answer = AssertUnwindSafe(provider.call(in_flight.connection.grant, call.endpoint, &call.token));
            // A bug that one answer brings to light must not end the run of all the others.
            let answer = answer.catch_unwind();
            let too_late = async {
                stop.wait().await;
                clock.sleep(LAST_CALL).await;
            };
            let answer = match select(pin!(answer), pin!(too_late)).await {
                Either::Left((answer, _)) => {
                    answer.unwrap_or_else(|_| lost("reading the answer failed: this is a bug in perene"))
                }
                Either::Right(_) => lost("no complete answer before perene had to stop"),
            };
            fail_at("after_call");
            Work::Called(in_flight, sent_at, answer)
        }));
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
            Work::OthersConcluded(page) => {
                self.must_save = true;
                self.move_page(page, Stage::Saves);
            }
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
            Work::Saved(result) => {
                self.is_saving = false;
                self.move_pages(Stage::Saving, Stage::Compared);
                if let Err(error) = result {
                    self.must_save = true;
                    self.failed(error);
                }
            }
            Work::Probed(name, is_well) => self.engine.apps.probed(&name, is_well, self.now()),
            Work::Napped => self.is_napping = false,
        }
    }

    fn called(&mut self, in_flight: Box<InFlight>, sent_at: Timestamp, result: Result<Answer, NoAnswer>) {
        let now = self.now();
        let verdict = match &result {
            Ok(answer) => answer::judge(in_flight.call.endpoint, answer, now),
            Err(no_answer) => answer::judge_no_answer(no_answer),
        };
        let name = self.app_name(in_flight.connection.grant).unwrap_or_default();
        tracing::debug!(
            id = in_flight.connection.id,
            endpoint = in_flight.call.endpoint.name(),
            outcome = verdict.outcome.name(),
            reason = verdict.reason,
            rule = verdict.rule,
            "answered"
        );
        let is_transient = verdict.outcome == Outcome::Transient;
        self.engine.apps.glance(&name, &in_flight.connection.id, is_transient, !in_flight.call.is_retry);
        if verdict.granted.is_some() {
            self.engine.apps.read_usage(&name, &verdict.usage, now);
        }
        let entry = verdict.granted.as_ref().map(|granted| Entry {
            table: self.engine.parts.sources[self.order.source].table.to_string(),
            id: in_flight.connection.id.clone(),
            fence: self.fence,
            sent: in_flight.connection.token.clone(),
            sent_refresh: in_flight.connection.refresh_token.clone(),
            token: granted.token.clone(),
            refresh_token: granted.refresh_token.clone(),
            expires_at: in_flight.exchange.expiry_of(granted, sent_at),
            received_at: now,
        });
        let Some(entry) = entry else { return self.answered(in_flight, verdict, sent_at) };
        // Before anything else is done with it: the token that was sent may be dead, and this one is nowhere else.
        *self.waiting.entry(in_flight.connection.grant).or_default() += 1;
        let engine = self.engine;
        self.works.push(Box::pin(async move {
            fail_at("before_journal");
            let written = engine.ledger.write(entry).await;
            fail_at("after_journal");
            Work::Journalled(in_flight, Box::new(verdict), sent_at, written)
        }));
    }

    /// Goes on with an answer, which is kept if it brought a token.
    fn answered(&mut self, mut in_flight: Box<InFlight>, verdict: Verdict, sent_at: Timestamp) {
        let now = self.now();
        let name = self.app_name(in_flight.connection.grant).unwrap_or_default();
        let step = in_flight.exchange.answered(verdict.clone(), sent_at, now);
        if matches!(step, Step::Call(_))
            && self.engine.apps.holds_refusals(&name)
            && let Some(held) = in_flight.exchange.hold()
        {
            return self.conclude(in_flight.page, in_flight.connection, held);
        }
        match step {
            Step::Call(call) if self.stop.is_set() || (call.is_retry && self.must_not_repeat(&name, now)) => {
                let conclusion = in_flight.exchange.give_up(verdict);
                self.conclude(in_flight.page, in_flight.connection, conclusion);
            }
            Step::Call(call) => {
                let wait = std_duration(call.after);
                in_flight.call = call;
                in_flight.verdict = Some(verdict);
                *self.waiting.entry(in_flight.connection.grant).or_default() += 1;
                let clock = &self.engine.parts.clock;
                self.works.push(Box::pin(async move {
                    if !wait.is_zero() {
                        clock.sleep(wait).await;
                    }
                    Work::Waited(in_flight)
                }));
            }
            // Such a refusal cannot be looked at by a second call. But the app may have used the token itself just now,
            // and is about to write what it got: it is given the time to, and then the row is compared.
            Step::Conclude(conclusion)
                if conclusion.sends_once && conclusion.was_sent && conclusion.outcome == Outcome::NeedsReconnect =>
            {
                *self.waiting.entry(in_flight.connection.grant).or_default() += 1;
                let clock = &self.engine.parts.clock;
                self.works.push(Box::pin(async move {
                    clock.sleep(std_duration(perene_policy::exchange::SECOND_LOOK_AFTER)).await;
                    Work::Settled(in_flight, Box::new(conclusion))
                }));
            }
            Step::Conclude(conclusion) => self.conclude(in_flight.page, in_flight.connection, conclusion),
        }
    }

    fn waits_no_more(&mut self, in_flight: &InFlight) {
        if let Some(waiting) = self.waiting.get_mut(&in_flight.connection.grant) {
            *waiting -= 1;
        }
    }

    fn must_not_repeat(&self, name: &str, now: Timestamp) -> bool {
        self.order.is_probe
            || self.stop.is_set()
            || !matches!(self.engine.apps.permission(name, now), Permission::Go(_))
    }

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
    fn close_pages(&mut self) {
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

    fn save(&mut self) {
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

    fn commit_some(&mut self) {
        // A batch that is not full goes when nothing else is left that could fill it, or when there is little time.
        let is_last = self.calling == 0 && self.ready.is_empty() && self.waiting.values().all(|count| *count == 0);
        // The first row of a pass goes at once, and so does each that follows one which was refused: a table that takes
        // none is to be known before hundreds of calls have brought what it does not take.
        let is_first = !self.has_committed && self.outage.commits() == 0;
        let is_suspicious = is_first || self.engine.refusals.is_suspicious(self.order.source);
        let is_urgent = is_last || is_suspicious || self.stop.is_set() || self.fatal.is_some();
        while self.decided.len() >= BATCH || (is_urgent && !self.decided.is_empty()) {
            self.commit_next();
        }
    }

    fn commit_next(&mut self) {
        let rest = self.decided.split_off(self.decided.len().min(BATCH));
        let mut batch = std::mem::replace(&mut self.decided, rest);
        if planted::has(Bug::CommitForgotten) && batch.len() > 1 {
            batch.pop();
        }
        let engine = self.engine;
        let ids = batch.iter().map(|commit| &commit.connection.id);
        let kept: BTreeMap<String, EntryId> =
            ids.filter_map(|id| Some((id.clone(), *self.journalled.get(id)?))).collect();
        let began = engine.parts.clock.monotonic();
        self.outage.commit_began(began);
        self.works.push(Box::pin(async move {
            fail_at("before_commit");
            let result = engine.parts.store.commit(&batch, engine.parts.clock.now()).await;
            fail_at("after_commit");
            if let Ok(committed) = &result {
                engine.settle_kept(&batch, committed, &kept).await;
                fail_at("after_forget");
            }
            Work::Committed(batch, began, result)
        }));
    }

    /// Books what was written. What was not is kept for the next commit: the store finds again what it has
    /// done already, also in another batch.
    fn committed(&mut self, commits: Vec<Commit>, began: Duration, result: Result<Vec<Committed>, StoreError>) {
        self.outage.commit_ended(began);
        let committed = match result {
            Ok(committed) => committed,
            Err(error) => {
                if error.may_pass() {
                    self.decided.splice(..0, commits);
                }
                return self.failed(error);
            }
        };
        self.passed();
        self.has_committed = true;
        for (commit, committed) in commits.into_iter().zip(committed) {
            // What the database has not taken stays in the journal, for whoever replays it.
            let place = self.journalled.remove(&commit.connection.id);
            if matches!(committed, Committed::GuardLost | Committed::Refused(_) | Committed::Locked) {
                self.engine.ledger.let_go(place);
            }
            match committed {
                Committed::Done => {
                    if commit.decision.write.is_some() {
                        self.has_written = true;
                        self.engine.refusals.accepted(commit.source);
                    }
                    self.book(&commit.connection, &commit.decision);
                    self.engine.spent.committed(commit, self.now());
                }
                Committed::Superseded | Committed::GuardLost => {
                    tracing::info!(id = commit.connection.id, "the row has changed meanwhile: the result is dropped");
                    if commit.decision.counted.is_some() {
                        self.report.book(Outcome::Superseded, Counted::Superseded);
                    }
                    if committed == Committed::GuardLost {
                        self.engine.spent.not_committed(commit, self.now());
                    }
                }
                // What it brought is in the journal, or it is due again.
                Committed::Locked => {
                    tracing::warn!(id = commit.connection.id, "somebody keeps the row locked: it is written later");
                    if commit.decision.counted.is_some() {
                        self.report.book(Outcome::Transient, Counted::Deferred);
                    }
                }
                Committed::Refused(text) => {
                    tracing::error!(id = commit.connection.id, "the database refused to write the row: {text}");
                    self.engine.refusals.refused(commit.source, &commit.connection.id, self.now());
                    self.refused.push((commit, text));
                }
            }
        }
        if self.engine.refusals.closed_since(self.order.source).is_some() {
            self.close_table();
        }
        (self.progress)(self.report);
    }

    pub(super) fn book(&mut self, connection: &Connection, decision: &Decision) {
        let id = connection.id.as_str();
        if let Some(counted) = decision.counted {
            self.report.book(decision.outcome, counted);
        }
        self.report.warned += u64::from(decision.warns);
        self.report.recovered += u64::from(decision.recovers);
        if decision.warns {
            tracing::warn!(id, outcome = decision.outcome.name(), "connection {id}: the customer is warned");
        }
        if decision.recovers {
            tracing::info!(id, "connection {id}: recovered");
        }
        let text = decision.events.first().map_or("", |event| event.text.as_str());
        match decision.counted {
            Some(Counted::Failed) => tracing::warn!(id, outcome = decision.outcome.name(), "connection {id}: {text}"),
            Some(Counted::Deferred) => tracing::info!(id, outcome = decision.outcome.name(), "connection {id}: {text}"),
            _ => {}
        }
        if matches!(decision.counted, Some(Counted::Failed | Counted::Deferred)) {
            self.report.note(Trouble {
                table: self.engine.parts.sources[self.order.source].table.to_string(),
                id: id.to_owned(),
                outcome: decision.outcome,
                text: text.to_owned(),
                was_warned: decision.warns,
            });
        }
    }

    fn claim_more(&mut self) {
        let in_stock: usize = self.fresh.values().map(VecDeque::len).sum();
        let room = self.order.rows_max.map_or(PAGE, |max| max.saturating_sub(self.claimed).min(PAGE));
        if self.is_claiming || self.is_exhausted || in_stock >= self.engine.parts.concurrency || room == 0 {
            return;
        }
        let open: Vec<Grant> = self.order.grants.iter().copied().filter(|grant| !self.closed.contains(grant)).collect();
        if open.is_empty() {
            self.is_exhausted = true;
            return;
        }
        self.is_claiming = true;
        let Self { engine, order, fence, .. } = *self;
        let cursor = self.cursor.clone();
        self.works.push(Box::pin(async move {
            let now = engine.parts.clock.now();
            let claim = Claim {
                source: order.source,
                which: order.which,
                grants: &open,
                holder: &engine.holder,
                fence,
                now,
                until: lease_until(now),
                after: cursor.as_ref(),
                limit: room,
                overdue: engine.overdue(order.source),
            };
            let claimed = engine.parts.store.claim(&claim).await;
            Work::Claimed(open, claimed)
        }));
    }

    fn claimed(&mut self, grants: &[Grant], claimed: Claimed) {
        self.report.leased_elsewhere += claimed.elsewhere;
        self.claimed += claimed.connections.len();
        self.is_exhausted |= claimed.next.is_none() || self.order.rows_max.is_some_and(|max| self.claimed >= max);
        for grant in grants {
            match &claimed.next {
                Some(next) => self.reached.insert(*grant, Some(next.clone())),
                None => self.reached.remove(grant),
            };
        }
        if claimed.next.is_some() {
            self.cursor = claimed.next;
        }
        let now = self.now();
        let number = self.page_count;
        self.page_count += 1;
        let mut page = Page { began: now, outstanding: 0, concluded: Vec::new(), stage: Stage::Alone };
        let mut not_due = Vec::new();
        let mut connections = claimed.connections;
        if planted::has(Bug::RowSkipped) && connections.len() > 1 {
            connections.pop();
        }
        for connection in connections {
            // A retry is of the generation that is remembered: a newer one is not due because an older was.
            let is_another =
                matches!(self.order.which, Which::Retry) && connection.memory_of_this_generation().is_none();
            let was_had = matches!(self.order.which, Which::Live) && !self.had.insert(connection.id.clone());
            let was_tried = self.order.only_untried
                && connection.memory_of_this_generation().is_some_and(|memory| memory.next_try_at.is_some());
            let is_not_due = self.order.only_due && !self.engine.is_due(self.order.source, &connection, now);
            // The page was made with the window of the provider's usual tokens; this one may live shorter.
            let is_early = matches!(self.order.which, Which::Due { .. })
                && connection.grant == Grant::Oauth2
                && !self.engine.is_in_window(self.order.source, &connection, now);
            let has_changed = self
                .order
                .as_seen
                .is_some_and(|seen| !holds_the_same(seen, &connection) || seen.memory != connection.memory);
            let is_not_due = is_not_due || is_early || has_changed;
            let was_had = was_had || self.engine.was_due_before(&self.order, &connection, now);
            if is_another || was_had || was_tried || is_not_due {
                not_due.push(connection.id);
            } else {
                page.outstanding += 1;
                self.fresh.entry(connection.grant).or_default().push_back((number, connection));
            }
        }
        if page.outstanding > 0 {
            self.pages.insert(number, page);
        }
        self.give_back(not_due);
        if self.engine.refusals.closed_since(self.order.source).is_some() && !self.order.is_probe {
            self.close_table();
        }
    }

    /// The app cannot be called, or nothing that comes of it be written: what is claimed of it is given back, and counted
    /// as put off.
    pub(super) fn defer_fresh(&mut self, grant: Grant, name: &str, outcome: Outcome) {
        let deferred: Vec<(usize, Connection)> = self.fresh.remove(&grant).into_iter().flatten().collect();
        self.report.book_many(outcome, Counted::Deferred, deferred.len() as u64);
        self.engine.apps.leave_backlog(name, self.now());
        self.closed.insert(grant);
        let mut ids = Vec::with_capacity(deferred.len());
        for (page, connection) in deferred {
            if let Some(page) = self.pages.get_mut(&page) {
                page.outstanding -= 1;
            }
            ids.push(connection.id);
        }
        self.give_back(ids);
    }

    fn give_back_fresh(&mut self) {
        let mut ids = Vec::new();
        for (page, connection) in std::mem::take(&mut self.fresh).into_values().flatten() {
            if let Some(page) = self.pages.get_mut(&page) {
                page.outstanding -= 1;
            }
            ids.push(connection.id);
        }
        self.give_back(ids);
    }

    pub(super) fn give_back(&mut self, ids: Vec<String>) {
        if planted::has(Bug::LeaseKept) {
            return;
        }
        self.returned.extend(ids);
    }

    fn release(&mut self) {
        if self.returned.is_empty() {
            return;
        }
        let Self { engine, order, fence, .. } = *self;
        let ids = std::mem::take(&mut self.returned);
        self.works.push(Box::pin(async move {
            let lease = |id: &String| Lease { source: order.source, id: id.clone(), fence };
            let leases: Vec<Lease> = ids.iter().map(lease).collect();
            let result = engine.parts.store.release(&leases).await;
            Work::Released(ids, result)
        }));
    }

    /// All leases that this pass may still hold.
    fn held(&self) -> Vec<Lease> {
        let fresh = self.fresh.values().flatten().map(|(_, connection)| connection);
        let intending = self.intending.iter().map(|in_flight| &in_flight.connection);
        let decided = self.decided.iter().map(|commit| &commit.connection);
        let concluded = self.pages.values().flat_map(|page| page.concluded.iter().map(|(connection, _)| connection));
        let ids = fresh
            .chain(intending)
            .chain(decided)
            .chain(concluded)
            .map(|connection| &connection.id)
            .chain(&self.returned);
        ids.map(|id| Lease { source: self.order.source, id: id.clone(), fence: self.fence }).collect()
    }

    fn beat(&mut self) {
        let monotonic = self.engine.parts.clock.monotonic();
        let is_due = monotonic.saturating_sub(self.last_beat) >= BEAT;
        let is_quiet = monotonic.saturating_sub(self.last_heard) >= QUIET;
        if (is_due || is_quiet) && !self.outage.is_beating() && !self.works.is_empty() {
            self.extend();
        }
    }

    fn extend(&mut self) {
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

    /// What the database has confirmed leaves the journal; what it has not stays, to be replayed.
    async fn settle_kept(&self, batch: &[Commit], committed: &[Committed], kept: &BTreeMap<String, EntryId>) {
        let mut done: BTreeMap<usize, Vec<EntryId>> = BTreeMap::new();
        for (commit, committed) in batch.iter().zip(committed) {
            if matches!(committed, Committed::Done | Committed::Superseded)
                && let Some(place) = kept.get(&commit.connection.id)
            {
                done.entry(commit.source).or_default().push(*place);
            }
        }
        for (source, places) in done {
            self.ledger.settle(&places, self.keeps_answers(source)).await;
        }
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

/// Whether a connection that comes up for a try has had one that failed. Who comes up to be asked after its data access
/// has not.
fn has_failed_before(connection: &Connection) -> bool {
    let state = connection.memory_of_this_generation().map(|memory| &memory.state);
    !matches!(state, None | Some(State::Healthy | State::NotExtended))
}

/// Whether a row holds the tokens and the date that it held before.
pub(super) fn holds_the_same(before: &Connection, now: &Connection) -> bool {
    before.token == now.token && before.refresh_token == now.refresh_token && before.expires_at == now.expires_at
}

fn std_duration(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}
