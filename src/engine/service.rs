//! The service: starts runs at their times, catches up on what was missed, retries what may be retried,
//! and sends the outbox, until it is asked to stop.
//!
//! The loop looks every few seconds rather than sleeping to a computed instant: a clock that jumps, a
//! machine that was suspended or a database that was away cannot make it miss anything.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use perene_policy::app::Permission;
use perene_policy::planted::{self, Bug};
use perene_policy::{Counting, Grant};

use super::driver::Order;
use super::report::Report;
use super::run::{RunError, RunKind, RunRequest};
use super::{Engine, Stop};
use crate::store::{StoreError, Which};

/// How often the loop looks.
const TICK: Duration = Duration::from_secs(5);

/// How often it looks while the database is away, so that it is found within seconds of its return.
const AWAY_TICK: Duration = Duration::from_secs(1);

/// How often it looks while something is missing that somebody must mend.
const BROKEN_TICK: Duration = Duration::from_secs(10);

/// How often remembered connections are looked at: a customer hears of a fact within a minute.
const SWEEP_EVERY: SignedDuration = SignedDuration::from_secs(30);

/// How often after a run is looked for what others have in flight: the leases of a dead one lapse within 50
/// seconds, and must be taken over within 60. Shorter than a tick, so that each look is one.
const MAKE_UP_EVERY: SignedDuration = SignedDuration::from_secs(4);

/// So long after the database was away is looked for what it has forgotten. A standby that takes its place may lack
/// the last commits, and the leases that they gave back are there again until they lapse.
const FORGOTTEN_FOR: SignedDuration = SignedDuration::from_mins(2);

/// So long a run is kept from being on record as finished by what others have in flight. Where tokens live for an hour
/// somebody always has one.
const UNFINISHED_FOR: SignedDuration = SignedDuration::from_hours(1);

/// How often is looked for what the app put there after the run and does not live until the next.
const LATE_EVERY: SignedDuration = SignedDuration::from_mins(10);

/// It is sent with no more than this left: the schedule is the owner's, and what can wait for its time does.
const LATE_WINDOW: SignedDuration = SignedDuration::from_hours(6);

/// How long the outbox may take before the loop looks at the time again.
const OUTBOX_TURN: Duration = Duration::from_secs(20);

/// How often old history is removed.
const CLEAN_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// History, settled messages and finished runs are kept for so long.
const KEEP: SignedDuration = SignedDuration::from_hours(400 * 24);

/// What the loop remembers between two looks.
#[derive(Debug, Default)]
struct Rounds {
    swept_at: Option<Timestamp>,
    late_at: Option<Timestamp>,
    /// When to look again for connections that a run found in the hands of others.
    make_up_at: Option<Timestamp>,
    /// When a run was made that is not on record as finished.
    run_at: Option<Timestamp>,
    /// That run, what it came to, and when it was over: it is finished when what others had in flight is made up for.
    unfinished: Option<(i64, Report, Timestamp)>,
    /// When the database was last back after it had been away.
    back_at: Option<Timestamp>,
    /// The last look failed because it is away.
    is_away: bool,
    /// Which server answered the last look.
    incarnation: Option<String>,
    cleaned_at: Option<Timestamp>,
    /// Everything that a run needs has been looked at, and is there.
    is_ready: bool,
    /// A run that found something missing is told once, not with every look.
    complaint: Option<String>,
}

impl Engine {
    /// Serves until `stop` is asked for; then what is in flight is finished, within 30 seconds.
    ///
    /// # Errors
    /// Only at the start, when something is missing that nobody but the operator can mend. Later troubles are
    /// logged, and outlived; so is a database that is away.
    pub async fn serve(&self, stop: Stop) -> Result<(), RunError> {
        stop.bound(self.parts.clock.as_ref(), self.serve_on(stop.clone())).await.unwrap_or(Ok(()))
    }

    async fn serve_on(&self, mut stop: Stop) -> Result<(), RunError> {
        let mut rounds = Rounds::default();
        while !stop.is_set() {
            let looked = match self.make_ready(&mut rounds).await {
                Err(error) if !error.may_pass() => return Err(error),
                Err(error) => Err(error),
                Ok(()) => self.look(&mut rounds, &stop).await,
            };
            rounds.is_away = looked.as_ref().is_err_and(RunError::may_pass);
            let pause = match &looked {
                Ok(()) => TICK,
                Err(error) if error.may_pass() => AWAY_TICK,
                Err(_) => BROKEN_TICK,
            };
            match looked {
                Ok(()) => rounds.complaint = None,
                Err(error) => {
                    let text = error.to_string();
                    if rounds.complaint.as_ref() != Some(&text) {
                        tracing::error!("{text}");
                    }
                    rounds.complaint = Some(text);
                }
            }
            // In this order, and not in a random one: a simulation takes the same course each time.
            tokio::select! {
                biased;
                () = self.parts.clock.rest(pause) => {}
                () = stop.wait() => {}
            }
        }
        Ok(())
    }

    /// Looks once whether everything is there.
    async fn make_ready(&self, rounds: &mut Rounds) -> Result<(), RunError> {
        if !rounds.is_ready {
            self.check().await?;
            self.parts.store.prepare().await?;
            rounds.is_ready = true;
        }
        Ok(())
    }

    /// One look: whatever has become due is done.
    async fn look(&self, rounds: &mut Rounds, stop: &Stop) -> Result<(), RunError> {
        let now = self.agree_on_the_time().await?;
        self.load_apps(false).await?;
        self.settle_up().await?;

        let incarnation = Some(self.parts.store.incarnation().await?.process);
        let before = std::mem::replace(&mut rounds.incarnation, incarnation);
        if rounds.is_away || (before.is_some() && before != rounds.incarnation) {
            rounds.back_at = Some(now);
        }
        let last = self.parts.store.last_run().await?;
        if self.parts.schedule.is_missed(rounds.last_run(last), now) {
            let kind = self.kind_of_run(rounds.last_run(last), now);
            let report = self.run(&RunRequest::all(kind), stop, &|_| {}).await?;
            rounds.swept_at = Some(self.parts.clock.now());
            rounds.note(&report, self.parts.clock.now());
            tell(kind, &report);
            rounds.run_at = report.unfinished.is_some().then_some(now);
            let over_at = self.parts.clock.now();
            let unfinished = report.unfinished.map(|run| (run, report, over_at));
            // What the run before had left to others was due in this one.
            if let Some((run, report, _)) = std::mem::replace(&mut rounds.unfinished, unfinished) {
                self.finish(run, &report).await?;
            }
        } else if is_due(rounds.swept_at, SWEEP_EVERY, now) {
            self.sweep().await?;
            rounds.swept_at = Some(now);
        }
        if rounds.make_up_at.is_some_and(|at| at <= now) {
            let report = self.make_up(self.counting(RunKind::CaughtUp, now), stop).await?;
            rounds.note(&report, self.parts.clock.now());
        } else if rounds.back_at.is_some() {
            let report = self.make_up(Counting::Never, stop).await?;
            rounds.note(&report, self.parts.clock.now());
        }
        let over_at = rounds.unfinished.as_ref().map(|(.., over_at)| *over_at);
        let has_waited = over_at.is_some_and(|at| now.duration_since(at) >= UNFINISHED_FOR);
        if (rounds.make_up_at.is_none() || has_waited) && !stop.is_set() {
            self.finish_made_up(rounds).await?;
        }
        self.retry(stop).await?;
        if is_due(rounds.late_at, LATE_EVERY, now) {
            self.take_late_comers(now, stop).await?;
            rounds.late_at = Some(now);
        }
        self.take_up_backlogs(stop).await?;
        self.apps.look_after(self.parts.clock.now()).await?;
        self.send_outbox(OUTBOX_TURN, stop).await?;
        if is_due(rounds.cleaned_at, CLEAN_EVERY, now) {
            self.parts.store.forget_before(perene_policy::backoff::later(now, -KEEP)).await?;
            rounds.cleaned_at = Some(now);
        }
        Ok(())
    }

    /// Puts on record that the run is done of which nothing is in anybody's hands any more.
    async fn finish_made_up(&self, rounds: &mut Rounds) -> Result<(), StoreError> {
        if let Some((run, report, _)) = &rounds.unfinished {
            self.finish(*run, report).await?;
            rounds.unfinished = None;
        }
        Ok(())
    }

    fn kind_of_run(&self, last: Option<Timestamp>, now: Timestamp) -> RunKind {
        let started = last.and_then(|last| self.parts.schedule.next_after(last));
        // Found within a minute of its time, it was not missed.
        match started {
            Some(at) if now.duration_since(at) < SignedDuration::from_mins(1) => RunKind::Scheduled,
            _ => RunKind::CaughtUp,
        }
    }

    /// Sends what the run left to others and they have not sent: one of them may have died. It belongs to the
    /// run, so a failure counts; what another has tried meanwhile is not tried here again. What the database has
    /// forgotten is sent in the same way, but was counted before.
    ///
    /// What a brake holds looks as if nobody had tried it, and has its own turns.
    async fn make_up(&self, counting: Counting, stop: &Stop) -> Result<Report, StoreError> {
        let mut report = Report::default();
        for source in 0..self.parts.sources.len() {
            let (braked, grants): (Vec<Grant>, Vec<Grant>) =
                self.grants(source).iter().partition(|grant| self.is_braked(source, **grant));
            self.leave_to_the_next_turn(source, &braked);
            if grants.is_empty() {
                continue;
            }
            for which in self.due_of(source) {
                let order = Order { counting, grants: &grants, only_untried: true, ..self.uncounted(source, which) };
                self.pass(order, stop, &mut report, &|_| {}).await?;
            }
        }
        if report.due > 0 {
            tracing::info!(
                due = report.due,
                refreshed = report.refreshed,
                failed = report.failed,
                "made up for what another replica did not finish, or the database has forgotten"
            );
        }
        Ok(report)
    }

    /// Makes the tries between runs: connections whose retry time has come, and tokens that live too short to wait
    /// for a run. No failure of theirs counts.
    async fn retry(&self, stop: &Stop) -> Result<(), StoreError> {
        let mut report = Report::default();
        for source in 0..self.parts.sources.len() {
            // Tokens that live for an hour do not wait for the night.
            let window = self.window_between_runs(source);
            let soon = window.into_iter().flat_map(|window| [Which::Due { window }, Which::Undated]);
            for which in soon.chain([Which::Retry]) {
                self.pass(self.uncounted(source, which), stop, &mut report, &|_| {}).await?;
            }
        }
        if report.refreshed > 0 {
            tracing::info!(refreshed = report.refreshed, "refreshed between runs");
        }
        Ok(())
    }

    /// Sends what the app put there after the run, and what would not live until the next one. What a run had to put off
    /// is not among it: while an app is held or limited nothing is taken, and what was tried has its own time.
    async fn take_late_comers(&self, now: Timestamp, stop: &Stop) -> Result<(), StoreError> {
        let Some(next) = self.parts.schedule.next_after(now) else { return Ok(()) };
        let mut report = Report::default();
        for source in 0..self.parts.sources.len() {
            let window = (next.duration_since(now) + LATE_EVERY).min(LATE_WINDOW).min(self.settings(source).window);
            let grants: Vec<Grant> =
                self.grants(source).iter().copied().filter(|g| self.is_free(source, *g, now)).collect();
            if self.window_between_runs(source).is_none() && !grants.is_empty() {
                let uncounted = self.uncounted(source, Which::Due { window });
                let order = Order { grants: &grants, only_untried: true, ..uncounted };
                self.pass(order, stop, &mut report, &|_| {}).await?;
            }
        }
        if report.refreshed > 0 {
            tracing::info!(refreshed = report.refreshed, "refreshed what would not have lived until the next run");
        }
        Ok(())
    }

    fn is_braked(&self, source: usize, grant: Grant) -> bool {
        self.provider(source).app(grant).is_some_and(|app| self.apps.is_braked(&app.name))
    }

    fn leave_to_the_next_turn(&self, source: usize, grants: &[Grant]) {
        for app in grants.iter().filter_map(|grant| self.provider(source).app(*grant)) {
            self.apps.leave_backlog(&app.name, self.parts.clock.now());
        }
    }

    /// Whether the app of a grant may be called as if nothing had ever been wrong with it.
    fn is_free(&self, source: usize, grant: Grant, now: Timestamp) -> bool {
        self.provider(source).app(grant).is_some_and(|app| self.apps.is_free(&app.name, now))
    }

    /// Goes on with what a run had to put off, as soon as the app may be called again; while it may not, makes
    /// the probes.
    async fn take_up_backlogs(&self, stop: &Stop) -> Result<(), StoreError> {
        // Looked at for all sources before the first pass: several may be of one app.
        let mut names = BTreeMap::new();
        for source in 0..self.parts.sources.len() {
            for grant in self.grants(source) {
                let Some(app) = self.provider(source).app(*grant) else { continue };
                names.entry(app.name.clone()).or_insert_with(Vec::new).push((source, *grant));
            }
        }
        let mut report = Report::default();
        for (name, places) in names {
            let permission = self.apps.permission(&name, self.parts.clock.now());
            let may_be_called = !matches!(permission, Permission::Wait { .. });
            // What cannot be written, or kept, is not taken up: it stays the app's backlog.
            let (open, closed): (Vec<_>, Vec<_>) =
                places.into_iter().partition(|(source, _)| self.hindrance(*source).is_none());
            if open.is_empty() || !self.apps.has_backlog(&name) || !may_be_called {
                continue;
            }
            if self.apps.is_braked(&name) && !self.apps.take_turn(&name, self.parts.clock.now()).await? {
                continue;
            }
            let takes_all = matches!(permission, Permission::Go(_)) && closed.is_empty();
            let begun = self.apps.begin_backlog(&name);
            let before = report.leased_elsewhere;
            for (source, grant) in open {
                let grants = [grant];
                for which in self.due_of(source) {
                    let order = Order { grants: &grants, ..self.uncounted(source, which) };
                    self.pass(order, stop, &mut report, &|_| {}).await?;
                }
            }
            // Whoever has the rest in flight may be dead.
            if takes_all && report.leased_elsewhere == before && !stop.is_set() {
                self.apps.end_backlog(&name, begun, self.parts.clock.now());
            }
        }
        if report.refreshed > 0 {
            tracing::info!(refreshed = report.refreshed, "what had been put off is refreshed");
        }
        Ok(())
    }

    pub(super) fn uncounted<'a>(&self, source: usize, which: Which<'a>) -> Order<'a> {
        Order {
            source,
            which,
            grants: self.grants(source),
            counting: if planted::has(Bug::AttemptsOnRetries) { Counting::Each } else { Counting::Never },
            insist: false,
            only_due: false,
            only_untried: false,
            rows_max: None,
            is_probe: false,
            from: None,
            as_seen: None,
        }
    }
}

fn is_due(last: Option<Timestamp>, every: SignedDuration, now: Timestamp) -> bool {
    last.is_none_or(|last| now.duration_since(last) >= every)
}

impl Rounds {
    /// When the last run was made: the one on record, or this process's own that is still to be finished.
    fn last_run(&self, on_record: Option<Timestamp>) -> Option<Timestamp> {
        on_record.max(self.run_at)
    }

    /// Notes what a pass over all that is due has left to be made up for.
    fn note(&mut self, report: &Report, now: Timestamp) {
        if report.had_outage {
            self.back_at = Some(now);
        }
        // Those that are leased although nobody works on them may be leases that were given back and are there again.
        self.back_at = self.back_at.filter(|at| now.duration_since(*at) < FORGOTTEN_FOR);
        let is_left = report.leased_elsewhere > 0;
        self.make_up_at = is_left.then(|| perene_policy::backoff::later(now, MAKE_UP_EVERY));
    }
}

fn tell(kind: RunKind, report: &Report) {
    tracing::info!(
        kind = kind.name(),
        due = report.due,
        refreshed = report.refreshed,
        failed = report.failed,
        deferred = report.deferred,
        superseded = report.superseded,
        warned = report.warned,
        recovered = report.recovered,
        elapsed_ms = report.elapsed_ms,
        "run finished: {} due, {} refreshed, {} failed, {} put off",
        report.due,
        report.refreshed,
        report.failed,
        report.deferred
    );
}
