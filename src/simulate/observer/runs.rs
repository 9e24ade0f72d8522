//! When runs are made, and whether they take all that is due.

use jiff::{SignedDuration, Timestamp};
use perene_policy::State;

use super::super::faults::Kind;
use super::super::world::{Event, World};

const fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

const fn minutes(count: i64) -> SignedDuration {
    SignedDuration::from_mins(count)
}

/// A run that was due is to be over by then, whatever single connections do.
const RUN_TAKES: SignedDuration = minutes(20);

/// What a run had to put off is sent by then when its provider is well again: a probe finds that out within five minutes.
pub(in super::super) const TAKEN_UP_WITHIN: SignedDuration = minutes(90);

impl World {
    /// Looks, some time after a provider's trouble, whether what the last run could not send was sent.
    pub(in super::super) fn check_taken_up(&mut self, now: Timestamp) {
        let Some(run_at) = self.observer.run_begun_at else { return };
        for number in 0..self.accounts.len() {
            let seen = &self.observer.seen[number];
            let Some(expires_at) = seen.expires_at.filter(|_| seen.is_there && seen.generation.is_some()) else {
                continue;
            };
            let account = &self.accounts[number];
            let was_due = expires_at > now && expires_at.duration_since(run_at) < self.fleet.settings.window - hours(1);
            let was_there = seen.since.is_some_and(|since| since < run_at);
            let is_quiet = seen
                .memory
                .as_ref()
                .is_none_or(|memory| memory.state == State::Healthy && memory.next_try_at.is_none_or(|at| at <= now));
            let is_free = !self.was_held_within(number, minutes(30), now);
            let is_well = account.is_well(now) && account.well_since() < run_at;
            let is_young = now.duration_since(account.generations[seen.generation.unwrap_or(0)].issued_at) < hours(50);
            if was_due
                && was_there
                && is_quiet
                && is_free
                && is_well
                && !is_young
                && !self.is_strict(number)
                && !self.is_row_refused(number)
                && now.duration_since(run_at) > minutes(90)
                && self.has_been_good_for(number, TAKEN_UP_WITHIN - minutes(5), now)
            {
                let text = format!("due since the run of {run_at}, and its provider has been well for an hour");
                self.broke("put_off_and_not_taken_up", Some(number), now, text);
            }
        }
    }

    pub(super) fn saw_run(&mut self, number: i64, now: Timestamp) {
        let Some(run) = self.store.run(number) else { return };
        self.agenda.run(now);
        self.add_next_run();
        self.observer.runs_begun += 1;
        self.observer.day(now).runs += 1;
        (self.observer.last_run_at, self.observer.run_begun_at) = (Some(run.started_at), Some(now));
        self.observer.runs_begun_at.retain(|at| now.duration_since(*at) < hours(2));
        self.observer.runs_begun_at.push(now);
        let holder = run.holder;
        self.trace.tell(now, None, || format!("run {number} begins ({}, {})", run.kind, &holder[..6]));
        self.note_calendar(now);
        // By an independent reading of the wall clock at the place: at the hour that was asked for, unless the clocks
        // were changed across it, or the run is made up for.
        if run.kind == "scheduled"
            && let Some((hour, minute)) = self.fleet.run_at
        {
            let local = run.started_at.to_zoned(self.fleet.zone.clone());
            let wanted = i32::from(hour) * 60 + i32::from(minute);
            let found = i32::from(local.hour()) * 60 + i32::from(local.minute());
            let is_change = self.is_change_of_clocks(run.started_at);
            if !(0..=2).contains(&(found - wanted)) && !is_change {
                self.broke("run_at_the_wrong_time", None, now, format!("{local}"));
            }
        }
    }

    /// The service looks when the next run is due.
    pub(super) fn add_next_run(&mut self) {
        if let Some(last) = self.observer.last_run_at
            && let Some(next) = self.fleet.schedule.next_after(last)
        {
            // The schedule is the database's time.
            self.agenda.add(next - self.database_ahead, super::super::agenda::NOBODYS);
        }
    }

    /// When the next run is due, by the wall clock of the zone and by no code of Perene's. An hour that a change of the
    /// clocks skips is an hour late here.
    pub(in super::super) fn run_due_after(&self, at: Timestamp) -> Option<Timestamp> {
        let Some((hour, minute)) = self.fleet.run_at else { return self.fleet.schedule.next_after(at) };
        let zone = &self.fleet.zone;
        let date = at.to_zoned(zone.clone()).date();
        let due = (0..3).filter_map(|days| {
            let date = date.checked_add(jiff::Span::new().days(days)).ok()?;
            Some(date.at(hour, minute, 0, 0).to_zoned(zone.clone()).ok()?.timestamp())
        });
        due.filter(|due| *due > at).min()
    }

    /// When the latest run was due, in the same way.
    pub(in super::super) fn run_due_until(&self, now: Timestamp) -> Option<Timestamp> {
        let mut due = self.run_due_after(now - hours(50)).filter(|at| *at <= now)?;
        while let Some(next) = self.run_due_after(due).filter(|next| *next <= now) {
            due = next;
        }
        Some(due)
    }

    /// Whether what is done in a run now can be of no other night's: shortly after the time of one, a run may still be on
    /// that was made up for the night before.
    pub(super) fn is_clearly_of(&self, night: Timestamp, now: Timestamp) -> bool {
        let others = night - hours(1)..night - SignedDuration::from_secs(2);
        let mut begun = self.observer.runs_begun_at.iter().map(|at| *at + self.database_ahead);
        let is_late = now.duration_since(night) > minutes(5);
        (is_late || !begun.any(|at| others.contains(&at))) && !self.is_change_of_clocks(now)
    }

    /// What is not sent is given back: a run that nobody calls for any more has no lease to wait for.
    pub(super) fn check_wait_of_run(&mut self, number: i64, now: Timestamp) {
        let Some(run) = self.store.run(number) else { return };
        let is_calm = now.duration_since(self.observer.disturbed_at) > minutes(2) && self.is_system_good();
        let calls = self.observer.seen.iter().map(|seen| (seen.last_call_at, seen.in_flight.is_empty()));
        let (last, is_idle) = calls.fold((None, true), |(last, idle), (at, empty)| (last.max(at), idle && empty));
        let answered = self.observer.answered_at;
        let idle_since = last.max(answered).max(Some(run.started_at - self.database_ahead));
        let waited = idle_since.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
        if is_calm && is_idle && waited > SignedDuration::from_secs(40) {
            self.broke("lease_left_behind", None, now, format!("run {number} has waited for {} s", waited.as_secs()));
        }
    }

    pub(super) fn is_change_of_clocks(&self, at: Timestamp) -> bool {
        let offset = |at: Timestamp| self.fleet.zone.to_offset(at).seconds();
        offset(at - hours(4)) != offset(at + hours(4))
    }

    fn note_calendar(&mut self, now: Timestamp) {
        let offset = self.fleet.zone.to_offset(now).seconds();
        if self.observer.last_offset.replace(offset).is_some_and(|before| before != offset) {
            self.weather.fire(Kind::DaylightSaving);
        }
        let end_of_32_bits = i64::from(i32::MAX);
        if self.observer.begun_at.as_second() <= end_of_32_bits
            && now.as_second() > end_of_32_bits
            && self.weather.fired(Kind::Year2038) == 0
        {
            self.weather.fire(Kind::Year2038);
        }
    }

    /// Looks, some time after a run was due, whether it was made and has taken all that was due.
    pub(in super::super) fn check_run(&mut self, due_at: Timestamp, now: Timestamp) {
        if let Some(next) = self.run_due_after(due_at) {
            self.at(next + RUN_TAKES, Event::RunWasDue(next));
        }
        self.agenda.tidy(now - hours(1));
        self.check_generations(now);
        let was_good = self
            .observer
            .goods
            .iter()
            .all(|good| good.good_since().is_some_and(|since| now.duration_since(since) > RUN_TAKES + minutes(10)));
        let was_made = self.observer.last_run_at.is_some_and(|at| at >= due_at - hours(1));
        if was_good && !was_made {
            self.broke("run_missed", None, now, format!("it was due at {due_at}"));
        }
        for number in 0..self.accounts.len() {
            self.check_was_taken(number, due_at, now);
            self.check_remembered(number, now);
            self.check_dark_was_told(number, now);
            self.check_intent(number, now);
            self.check_was_counted(number, due_at, now);
        }
    }

    /// A connection that was due when the run began, and whose provider was well, must have a later date by now.
    fn check_was_taken(&mut self, number: usize, due_at: Timestamp, now: Timestamp) {
        let seen = &self.observer.seen[number];
        let Some(expires_at) = seen.expires_at.filter(|_| seen.is_there && seen.generation.is_some()) else { return };
        let window = self.fleet.settings.window;
        // An hour that the clocks leave out is made up for within the next one: by then a row may have become due.
        let began = if self.is_change_of_clocks(due_at) { due_at - hours(1) } else { due_at };
        let was_due = expires_at > now && expires_at.duration_since(began) < window;
        let was_there = seen.since.is_some_and(|since| since < due_at);
        if !was_due
            || !was_there
            || !self.accounts[number].is_well(now)
            || now.duration_since(self.accounts[number].well_since()) < hours(26)
        {
            return;
        }
        // What was remembered of an earlier trouble has its own times.
        let is_quiet = seen.memory.as_ref().is_none_or(|memory| memory.state == State::Healthy);
        let generation = &self.accounts[number].generations[seen.generation.unwrap_or(0)];
        let is_young = now.duration_since(generation.issued_at) < hours(50);
        if is_young || self.is_row_refused(number) || !self.has_been_good_for(number, hours(26), now) {
            return;
        }
        // What is in doubt waits for its last try; what a strict provider has refused, wrongly or not, has none.
        let waits = seen.memory.as_ref().is_some_and(|memory| match memory.state {
            State::Uncertain { .. } => true,
            State::NeedsReconnect { .. } => self.is_strict(number),
            _ => false,
        });
        if waits {
            return;
        }
        let was_called = seen.last_call_at.is_some_and(|at| at >= due_at);
        if was_called {
            let text = format!("sent after the run began at {due_at}, and the row still says {expires_at}");
            return self.broke("due_and_not_refreshed", Some(number), now, text);
        }
        if !is_quiet && seen.memory.as_ref().and_then(|memory| memory.next_try_at).is_some_and(|at| at > now) {
            let wait = seen.memory.as_ref().and_then(|memory| memory.next_try_at).map(|at| at.duration_since(now));
            if wait.is_some_and(|wait| wait < hours(26)) {
                return;
            }
        }
        let others = self.observer.seen.iter().any(|other| other.last_call_at.is_some_and(|at| at >= due_at));
        let check = if others { "delayed_by_another" } else { "no_next_step" };
        self.broke(check, Some(number), now, format!("due since {due_at}, and not sent"));
    }

    /// What is remembered must have a next step, and what is refused is asked for daily.
    fn check_remembered(&mut self, number: usize, now: Timestamp) {
        let seen = &self.observer.seen[number];
        let Some(memory) = &seen.memory else { return };
        let is_live = seen.is_there && seen.expires_at.is_none_or(|at| at > now);
        let was_good = self.has_been_good_for(number, hours(50), now);
        if !is_live || !was_good || seen.generation.is_none() {
            return;
        }
        let quiet_since = seen.last_call_at.max(seen.since);
        let quiet_for = quiet_since.map_or(hours(1000), |at| now.duration_since(at));
        match memory.state {
            State::NeedsReconnect { .. } if quiet_for > hours(50) && !self.is_strict(number) => {
                let text = format!("nobody has asked for {} hours whether it lives again", quiet_for.as_hours());
                self.broke("refused_row_never_probed", Some(number), now, text);
            }
            State::Failing { .. } | State::Waiting { .. } if quiet_for > hours(50) && !self.is_row_refused(number) => {
                let text = format!("{} and not tried for {} hours", memory.state.name(), quiet_for.as_hours());
                self.broke("no_next_step", Some(number), now, text);
            }
            _ => {}
        }
    }

    /// What fails in run after run, with nothing wrong but the connection itself, is counted.
    fn check_was_counted(&mut self, number: usize, due_at: Timestamp, now: Timestamp) {
        let seen = &self.observer.seen[number];
        let is_failing = seen.memory.as_ref().is_some_and(|memory| {
            matches!(memory.state, State::Failing { .. } | State::NeedsReconnect { .. })
                && now.duration_since(memory.since) > hours(50)
        });
        let was_sent = seen.last_call_at.is_some_and(|at| at >= due_at - minutes(1));
        // Whose process dies over it in a run is tried again by another between two runs, and not counted.
        let died = |downs: &[Timestamp]| downs.last().is_some_and(|at| now.duration_since(*at) < hours(50));
        let nobody_died = !self.replicas.iter().any(|replica| died(&replica.downs));
        if is_failing
            && was_sent
            && seen.is_there
            && seen.attempts == 0
            && nobody_died
            && !self.was_held_within(number, hours(50), now)
            && self.has_been_good_for(number, hours(50), now)
            && !self.is_row_refused(number)
        {
            let text = "it has failed for two days, and no attempt is counted".to_owned();
            self.broke("failure_not_counted", Some(number), now, text);
        }
    }

    /// Whether the database has said within that time that the app is held.
    pub(super) fn was_held_within(&self, number: usize, time: SignedDuration, now: Timestamp) -> bool {
        let app = self.app_of(number);
        self.observer.is_held[app] || self.observer.held_at[app].is_some_and(|at| now.duration_since(at) < time)
    }

    /// What was written down as about to be sent is sent, unless its process died.
    fn check_intent(&mut self, number: usize, now: Timestamp) {
        let seen = &self.observer.seen[number];
        let Some(at) = seen.intended_at.filter(|at| now.duration_since(*at) > minutes(5)) else { return };
        let is_calm = self.observer.disturbed_at < at;
        let is_still = seen.memory.as_ref().is_some_and(|memory| matches!(memory.state, State::Uncertain { .. }));
        self.observer.seen[number].intended_at = None;
        if is_calm && is_still && self.has_been_good_for(number, now.duration_since(at) + minutes(5), now) {
            self.broke("intent_without_call", Some(number), now, format!("since {at}"));
        }
    }

    /// Whose token has expired in an incident: the operator's receiver hears of it.
    fn check_dark_was_told(&mut self, number: usize, now: Timestamp) {
        let seen = &self.observer.seen[number];
        let incident = seen.memory.as_ref().and_then(|memory| memory.incident.as_ref());
        let (Some(incident), Some(expires_at)) = (incident, seen.expires_at) else { return };
        let known_since = expires_at.max(incident.opened_at);
        let had_time = now.duration_since(known_since) > hours(3) && self.has_been_good_for(number, hours(3), now);
        if !seen.is_there || seen.generation.is_none() || !had_time {
            return;
        }
        let told = self.observer.by_incident.get(&incident.id);
        let is_told = told.is_some_and(|told| told.iter().any(|(_, step)| step.trim() == "dark"));
        if !is_told {
            let text = format!("dark since {expires_at}, and no message says so");
            self.broke("dark_not_told", Some(number), now, text);
        }
    }

    pub(super) fn is_row_refused(&self, number: usize) -> bool {
        self.refused_rows.contains(&number)
    }
}
