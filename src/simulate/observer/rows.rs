//! The app's rows, and what is remembered of them.

use jiff::{SignedDuration, Timestamp};
use perene_policy::{Memory, State};

use super::super::truth::{SECRET_MARK, TOKEN_MARK};
use super::super::world::World;
use super::STORM_MIN;
use crate::store::memory::Change;

const fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

impl World {
    /// Looks at what Perene has written in one step.
    pub(in super::super) fn saw_step(&mut self, now: Timestamp) {
        if std::mem::take(&mut self.is_disturbed) {
            self.observer.disturbed_at = now;
        }
        let changes = self.store.take_changes();
        if changes.is_empty() {
            return;
        }
        self.agenda.deed(now);
        // Messages first: a warning and its messages are written together.
        for change in &changes {
            if let Change::Message(id) = change {
                self.saw_message(id, now);
            }
        }
        for change in &changes {
            match change {
                Change::Connection(source, id) => {
                    if let Some(number) = self.by_row.get(&(*source, id.clone())).copied() {
                        self.saw_row(number, now);
                    }
                }
                Change::App(name) => self.saw_app_state(name, now),
                Change::RunBegun(run) => self.saw_run(*run, now),
                Change::RunFinished(run) => {
                    self.check_wait_of_run(*run, now);
                    self.agenda.run(now);
                    self.add_next_run();
                }
                Change::Message(_) | Change::User(_) | Change::Alarms => {}
            }
        }
        for change in &changes {
            match change {
                Change::Connection(source, id) => {
                    let number = self.by_row.get(&(*source, id.clone())).copied();
                    if let Some(user) = number.and_then(|number| self.users[number].clone()) {
                        self.check_flag(&user, now);
                    }
                }
                Change::User(user) => self.check_flag(user, now),
                _ => {}
            }
        }
    }

    fn saw_app_state(&mut self, name: &str, now: Timestamp) {
        let Some(app) = self.store.known_app(name) else { return };
        let hold = app.hold.as_ref();
        let number = self.fleet.sources.iter().flat_map(|source| &source.apps).find(|(_, known, _)| known == name);
        if let Some((_, _, number)) = number {
            let was_held = std::mem::replace(&mut self.observer.is_held[*number], hold.is_some());
            if was_held || hold.is_some() {
                self.observer.held_at[*number] = Some(now);
            }
        }
        let mut instants: Vec<Timestamp> = hold.map(|hold| hold.probe_at).into_iter().collect();
        instants.extend(app.limit.as_ref().map(|limit| limit.until));
        instants.extend(app.believed_until);
        if let Some(hold) = hold {
            // A brake is looked at in growing steps of a quarter of an hour to an hour, and lets go after a day.
            instants.extend((1..=96).map(|quarter| hold.since + SignedDuration::from_mins(15 * quarter)));
        }
        for at in instants.into_iter().filter(|at| *at > now) {
            self.agenda.add(at, super::super::agenda::NOBODYS);
        }
    }

    fn saw_row(&mut self, number: usize, now: Timestamp) {
        let seen = &self.observer.seen[number];
        let before = Before {
            is_there: seen.is_there,
            generation: seen.generation,
            expires_at: seen.expires_at,
            refreshed_at: seen.refreshed_at,
            attempts: seen.attempts,
            memory: seen.memory.clone(),
        };
        self.look_at_row(number, now);
        self.trace_row(number, &before, now);
        self.check_generation(number, &before, now);
        self.check_expiry(number, &before, now);
        self.check_attempts(number, &before, now);
        self.check_texts(number, &before, now);
        self.check_memory(number, &before, now);
    }

    fn trace_row(&mut self, number: usize, before: &Before, now: Timestamp) {
        let seen = &self.observer.seen[number];
        let state = seen.memory.as_ref().map_or("nothing", |memory| memory.state.name());
        let (generation, expires_at, attempts) = (seen.generation, seen.expires_at, seen.attempts);
        let next = seen.memory.as_ref().and_then(|memory| memory.next_try_at);
        let is_same = before.generation == generation && before.expires_at == expires_at;
        self.trace.tell(now, Some(number), || {
            let row = if is_same { "row kept" } else { "row written" };
            let date = expires_at.map_or_else(|| "no date".to_owned(), |at| at.strftime("%FT%TZ").to_string());
            let next = next.map(|at| format!(", next try {}", at.strftime("%FT%TZ"))).unwrap_or_default();
            let generation = generation.map_or_else(|| "none".to_owned(), |generation| generation.to_string());
            format!("committed: {row}: generation {generation}, {date}, {attempts} attempts, remembered: {state}{next}")
        });
    }

    fn check_generation(&mut self, number: usize, before: &Before, now: Timestamp) {
        let seen = &self.observer.seen[number];
        if let (Some(old), Some(new)) = (before.generation, seen.generation)
            && let Some(sent) = self.accounts[number].generations[new].came_for.filter(|sent| *sent < old && new != old)
        {
            let text = format!("what came for generation {sent} was written over generation {old}");
            self.broke("newer_token_overwritten", Some(number), now, text);
        }
        let seen = &self.observer.seen[number];
        match (before.generation, seen.generation) {
            (Some(old), Some(new)) if new < old => {
                let text = format!("from generation {old} to {new}");
                self.broke("row_went_back", Some(number), now, text);
            }
            (Some(old), None) if before.is_there => {
                let text = format!("generation {old} was replaced by what no provider has issued");
                self.broke("token_of_nowhere_stored", Some(number), now, text);
            }
            (_, Some(held)) => {
                self.observer.unsettled.remove(&(number, held));
                let (source, id) = (self.accounts[number].source, self.row_id(number));
                let (row, _) = self.store.seen(source, &id);
                let refresh = row.and_then(|row| row.refresh_token);
                let other = refresh.as_ref().and_then(|token| super::super::truth::read(token.expose()));
                if other.is_some_and(|(_, generation)| generation != held) {
                    let text = format!("access token {held} stands beside refresh token {other:?}");
                    self.broke("pair_torn_apart", Some(number), now, text);
                }
            }
            _ => {}
        }
        let seen = &self.observer.seen[number];
        if seen.generation != before.generation
            && let Some(generation) = seen.generation
            && !self.accounts[number].generations[generation].was_received
        {
            self.broke("generation_from_nowhere", Some(number), now, format!("generation {generation} came to nobody"));
        }
    }

    fn check_expiry(&mut self, number: usize, before: &Before, now: Timestamp) {
        let seen = &self.observer.seen[number];
        let (Some(generation), Some(stored)) = (seen.generation, seen.expires_at) else { return };
        if before.expires_at == Some(stored) {
            return;
        }
        let true_one = self.accounts[number].generations[generation].expires_at;
        if stored > true_one + self.database_ahead {
            let text = format!("stored {stored}, and it dies at {true_one}");
            self.broke("expiry_later_than_the_true_one", Some(number), now, text);
        }
        let is_back = before.expires_at.is_some_and(|old| old.duration_since(stored) > hours(2));
        if is_back && before.generation == Some(generation) {
            self.broke("expiry_went_back", Some(number), now, format!("from {:?} to {stored}", before.expires_at));
        }
        let seen = &self.observer.seen[number];
        if seen.refreshed_at != before.refreshed_at && !seen.is_of_app {
            self.observer.day(now).refreshed += 1;
        }
        // A row without a date may have held its tokens for as long.
        let is_later = before.expires_at.is_some_and(|old| stored.duration_since(old) > hours(2));
        let is_first = before.expires_at.is_none() && before.generation.is_some_and(|old| generation > old);
        if is_later || is_first {
            let seen = &mut self.observer.seen[number];
            seen.trouble_since = None;
            // An incident that goes on is one that its customer has heard of.
            if !seen.memory.as_ref().is_some_and(Memory::is_flagged) {
                seen.warned_at = None;
                seen.mails.clear();
            }
        }
    }

    fn check_attempts(&mut self, number: usize, before: &Before, now: Timestamp) {
        let runs = self.observer.runs_begun;
        let (attempts, refreshed_at) = {
            let seen = &self.observer.seen[number];
            (seen.attempts, seen.refreshed_at)
        };
        if refreshed_at != before.refreshed_at && attempts != 0 {
            self.broke("attempts_kept_after_success", Some(number), now, format!("{attempts} attempts"));
        }
        if attempts < before.attempts {
            self.observer.seen[number].counted_for = None;
        }
        if attempts <= before.attempts {
            return;
        }
        let text = format!("from {} to {attempts} attempts", before.attempts);
        if attempts > before.attempts + 1 {
            self.broke("failure_counted_twice", Some(number), now, text.clone());
        }
        let counted_in = std::mem::replace(&mut self.observer.seen[number].version_of_run, runs);
        // All replicas make the run of one night: it is one.
        let night = self.run_due_until(now + self.database_ahead);
        let is_clear = night.is_some_and(|night| self.is_clearly_of(night, now));
        let counted_for = std::mem::replace(&mut self.observer.seen[number].counted_for, night.filter(|_| is_clear));
        if (counted_in == runs && runs > 0) || (is_clear && counted_for == night) {
            self.broke("failure_counted_twice", Some(number), now, format!("{text} in one run"));
        }
        let is_failing = self.observer.seen[number].memory.as_ref().is_some_and(|memory| {
            matches!(memory.state, State::Failing { .. } | State::NeedsReconnect { .. }) && !memory.is_flagged()
        });
        if attempts >= self.fleet.settings.warn_after_failures && is_failing {
            self.broke("not_warned_after_three_failures", Some(number), now, text.clone());
        }
        let app = self.app_of(number);
        let in_storm = self.failing_in_storm(app, now);
        let is_new_storm = self.observer.storm_since[app].is_some_and(|since| now.duration_since(since) < hours(20));
        let is_well = self.accounts[number].is_well(now);
        if in_storm >= STORM_MIN && is_new_storm && is_well && self.observer.failed_in_storm[app].contains_key(&number)
        {
            let text = format!("{in_storm} connections of the app fail alike");
            self.broke("counted_against_the_customer_in_a_storm", Some(number), now, text);
        }
    }

    fn check_texts(&mut self, number: usize, before: &Before, now: Timestamp) {
        let (source, id) = (self.accounts[number].source, self.row_id(number));
        let (row, _) = self.store.seen(source, &id);
        let is_success = self.observer.seen[number].refreshed_at != before.refreshed_at;
        if is_success && row.as_ref().is_some_and(|row| row.error.is_some()) {
            self.broke("error_kept_after_success", Some(number), now, "last_refresh_error still stands".to_owned());
        }
        let history = self.store.last_line(source, &id);
        let texts = row.and_then(|row| row.error).into_iter().chain(history.map(|line| line.text));
        for text in texts.collect::<Vec<String>>() {
            if text.contains(TOKEN_MARK) || text.contains(SECRET_MARK) {
                self.broke("secret_leaked", Some(number), now, format!("into a text: {text}"));
            }
            if text.chars().any(char::is_control) || text.chars().count() > 240 {
                self.broke("text_not_tamed", Some(number), now, "control characters, or too long".to_owned());
            }
        }
    }

    /// An incident of which the customer was warned is over: the app hears of it.
    fn check_recovery(&mut self, number: usize, before: &Before, now: Timestamp) {
        let seen = &self.observer.seen[number];
        let warned = before.memory.as_ref().and_then(|memory| memory.incident.as_ref());
        let Some(old) = warned.filter(|incident| incident.warned_at.is_some()) else { return };
        let incident = seen.memory.as_ref().and_then(|memory| memory.incident.as_ref());
        // A row that is gone has nobody who waits for good news.
        let (source, id) = (self.accounts[number].source, self.row_id(number));
        let is_gone = self.store.seen(source, &id).0.is_none();
        if incident.is_some_and(|incident| incident.id == old.id) || is_gone {
            return;
        }
        let known = self.observer.by_incident.get(&old.id);
        let is_told = known.is_some_and(|known| known.iter().any(|(_, step)| step.starts_with("recovered")));
        if !is_told {
            let text = format!("the incident of {} is over, and the outbox has no message of it", old.opened_at);
            self.broke("recovered_without_message", Some(number), now, text);
        }
    }

    /// Who is told that a token could not be sent for days has a provider that was of no use for a day.
    fn check_told_ahead(&mut self, number: usize, before: &Before, memory: &Memory, now: Timestamp) {
        let is_told =
            |memory: &Memory| matches!(&memory.state, State::Failing { reason, .. } if reason == "not_reached");
        if !is_told(memory) || before.memory.as_ref().is_some_and(is_told) {
            return;
        }
        let app = self.app_of(number);
        let well = self.observer.goods[app].longest(now - SignedDuration::from_hours(23), now);
        if well > SignedDuration::from_hours(1) {
            let text = format!("told that it could not be sent, and its provider was well for {} h", well.as_hours());
            self.broke("warned_of_anothers_outage", Some(number), now, text);
        }
    }

    /// What is about to be sent to a strict provider is written down before: from then on it may be spent.
    fn note_intent(&mut self, number: usize, before: &Before, memory: &Memory, now: Timestamp) {
        let is_intent =
            |memory: &Memory| matches!(&memory.state, State::Uncertain { reason, .. } if reason == "no_answer_yet");
        let is_same = before.memory.as_ref().is_some_and(|before| is_intent(before) && before.state == memory.state);
        if is_intent(memory) && !is_same {
            let seen = &mut self.observer.seen[number];
            (seen.in_doubt, seen.last_intent_at) = (seen.generation, Some(now));
            // The call may have gone out in the very step that is looked at.
            seen.intended_at = Some(now).filter(|_| seen.last_call_at != Some(now));
        }
    }

    /// What fails is tried again while a good part of its life is left.
    fn check_wait(&mut self, number: usize, before: &Before, memory: &Memory, now: Timestamp) {
        let next = memory.next_try_at.filter(|_| matches!(memory.state, State::Failing { .. }));
        let is_news = before.memory.as_ref().and_then(|memory| memory.next_try_at) != next;
        // By the database's time, as the dates are meant.
        let now_there = now + self.database_ahead;
        let left = self.observer.seen[number].expires_at.map(|at| at.duration_since(now_there));
        let Some((next, left)) = next.filter(|_| is_news).zip(left.filter(SignedDuration::is_positive)) else { return };
        let wait = next.duration_since(now_there);
        if wait > left / 3 + SignedDuration::from_mins(2) {
            let text = format!("in {} minutes, and {} minutes are left", wait.as_mins(), left.as_mins());
            self.broke("retried_too_late", Some(number), now, text);
        }
    }

    fn check_memory(&mut self, number: usize, before: &Before, now: Timestamp) {
        self.check_recovery(number, before, now);
        let Some(memory) = self.observer.seen[number].memory.clone() else { return };
        self.check_told_ahead(number, before, &memory, now);
        self.note_intent(number, before, &memory, now);
        let was_refused =
            before.memory.as_ref().is_some_and(|memory| matches!(memory.state, State::NeedsReconnect { .. }));
        let is_refused = matches!(memory.state, State::NeedsReconnect { .. });
        let seen = &self.observer.seen[number];
        // Whose token has ended needs nobody's word for it.
        let has_ended = seen.expires_at.is_some_and(|at| at <= now);
        if is_refused && !was_refused && !has_ended && !self.is_strict(number) {
            let recent = seen.refusals.iter().filter(|at| now.duration_since(**at) < SignedDuration::from_mins(15));
            if recent.count() < 2 {
                let text = "declared refused for good, and the provider has said so once".to_owned();
                self.broke("refused_without_second_look", Some(number), now, text);
            }
        }
        self.check_new_warning(number, before.memory.as_ref(), &memory, now);
        let wait = memory.next_try_at.map(|at| at.duration_since(now));
        let is_open = matches!(memory.state, State::Failing { .. } | State::Waiting { .. });
        if is_open && wait.is_some_and(|wait| wait > hours(37)) {
            self.broke("waits_too_long", Some(number), now, format!("{} hours", wait.map_or(0, |w| w.as_hours())));
        }
        self.check_wait(number, before, &memory, now);
        let is_live = self.observer.seen[number].expires_at.is_none_or(|at| at > now + self.database_ahead);
        let is_there = self.observer.seen[number].is_there;
        if is_open && wait.is_none() && is_live && is_there {
            self.broke("no_next_step", Some(number), now, format!("{} without a next try", memory.state.name()));
        }
    }
}

/// A row and its memory before a step.
pub(super) struct Before {
    is_there: bool,
    generation: Option<usize>,
    expires_at: Option<Timestamp>,
    refreshed_at: Option<Timestamp>,
    attempts: i64,
    memory: Option<Memory>,
}
