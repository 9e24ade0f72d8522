//! What is sent to providers, and what becomes of what they issue.

use jiff::{SignedDuration, Timestamp};
use perene_policy::answer::NoAnswerKind;
use perene_policy::{Endpoint, State};

use super::super::reply::{Asked, Meaning, Reply};
use super::super::truth::Standing;
use super::super::world::World;

/// More calls than these within fourteen seconds are of more than one run.
const CALLS_AT_ONCE: usize = 3;

/// More calls for one connection in a day than the retry series allows, unless its end is near.
const CALLS_A_DAY: usize = 45;

/// So many answers with a token in a day are too many where the token lives for days: one is enough, and a standby that has
/// forgotten it may have it done again.
const REFRESHES_A_DAY: usize = 8;

/// A probe in thirty seconds, and the further tries of fewer connections than open a circuit.
const CALLS_AN_HOUR_WHILE_DOWN: usize = 300;

const fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

const fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

impl World {
    /// A token was sent that no provider has issued.
    pub(in super::super) fn sent_nonsense(&mut self, replica: usize, now: Timestamp) {
        self.broke(
            "unsendable_token_sent",
            None,
            now,
            format!("replica {replica} has sent a token that cannot be one"),
        );
    }

    /// A request has left a replica.
    pub(in super::super) fn saw_sent(&mut self, asked: &Asked, now: Timestamp) {
        let number = asked.account;
        self.trace.tell(now, Some(number), || {
            format!("r{} {} with generation {}", asked.replica, asked.endpoint.name(), asked.generation)
        });
        self.agenda.deed(now);
        self.observer.day(now).calls += 1;
        let minute = now.as_second().div_euclid(60);
        if self.observer.minute.0 == minute {
            self.observer.minute.1 += 1;
        } else {
            self.observer.minute = (minute, 1);
        }
        if self.observer.minute.1 > self.observer.busiest.1 {
            self.observer.busiest = self.observer.minute;
        }
        let calls = &mut self.observer.seen[number].calls;
        while calls.front().is_some_and(|(at, _)| now.duration_since(*at) > hours(24)) {
            calls.pop_front();
        }
        self.check_date(asked, now);
        self.check_pace(asked, now);
        self.check_limits(asked, now);
        self.check_calls_to_one_that_is_down(asked.app, now);
        let is_once = self.is_strict(number) && asked.endpoint != Endpoint::DebugToken;
        let seen = &mut self.observer.seen[number];
        if is_once {
            (seen.in_doubt, seen.intended_at) = (Some(asked.generation), None);
        }
        seen.in_flight.push(asked.replica);
        self.replicas[asked.replica].calling += 1;
        seen.last_call_at = Some(now);
        seen.calls.push_back((now, asked.replica));
    }

    fn check_date(&mut self, asked: &Asked, now: Timestamp) {
        let (number, window) = (asked.account, self.fleet.settings.window);
        if asked.endpoint == Endpoint::DebugToken {
            return;
        }
        let seen = &self.observer.seen[number];
        let account = &self.accounts[number];
        if seen.generation != Some(asked.generation) {
            return;
        }
        let Some(expires_at) = seen.expires_at else { return };
        // The answers to the two calls before may have taken half a minute each.
        if expires_at + seconds(70) < now && account.refresh_token(0).is_none() {
            return self.broke("expired_row_sent", Some(number), now, format!("the row says {expires_at}"));
        }
        let is_remembered = seen.memory.as_ref().is_some_and(|memory| memory.next_try_at.is_some());
        let is_early = expires_at.duration_since(now) > window + seconds(90) + self.database_ahead;
        if is_early && !is_remembered && self.has_been_good_for(number, hours(1), now) {
            self.broke("sent_before_it_was_due", Some(number), now, format!("the row says {expires_at}"));
        }
        let account = &self.accounts[number];
        let generation = &account.generations[asked.generation];
        let age = now.duration_since(generation.issued_at);
        if account.grant.refuses_young_tokens() && age + self.database_ahead < hours(24) && !generation.is_of_login {
            self.broke("young_token_sent", Some(number), now, format!("it is {} minutes old", age.as_mins()));
        }
    }

    fn check_pace(&mut self, asked: &Asked, now: Timestamp) {
        let number = asked.account;
        let seen = &self.observer.seen[number];
        let recent = seen.calls.iter().rev().take(2 * CALLS_AT_ONCE);
        let at_once =
            recent.filter(|(at, replica)| *replica == asked.replica && now.duration_since(*at) < seconds(14)).count();
        let others = seen.in_flight.iter().any(|replica| *replica != asked.replica);
        let is_well = self.has_been_good_for(number, hours(24), now);
        let expires_soon = seen.expires_at.is_none_or(|at| at.duration_since(now) < hours(48));
        let a_day = seen.calls.len();
        // When a hold has just ended what it held is sent, some of it for the second time in a moment.
        let app = self.app_of(number);
        let may_be_sent_anew =
            self.observer.storm_since[app].is_some() || self.was_held_within(number, seconds(60), now);
        let is_too_often =
            at_once >= 2 * CALLS_AT_ONCE || (at_once >= CALLS_AT_ONCE && !self.is_about_the_time_of_a_run(now));
        if is_too_often && !may_be_sent_anew {
            self.broke("too_many_calls", Some(number), now, format!("the fourth call of replica {}", asked.replica));
        }
        let is_calm = now.duration_since(self.observer.disturbed_at) > seconds(120) && self.is_system_good();
        if others && is_calm {
            self.broke("called_twice_at_once", Some(number), now, "another replica's call is under way".to_owned());
        }
        let is_settled = now.duration_since(self.observer.begun_at) > hours(24);
        if a_day >= CALLS_A_DAY && !expires_soon && is_settled && is_well {
            self.broke("retried_too_often", Some(number), now, format!("{a_day} calls in a day"));
        }
    }

    /// The run may begin in the very moment at which a retry was due, and begin anew when the database is back.
    fn is_about_the_time_of_a_run(&self, now: Timestamp) -> bool {
        let night = self.run_due_until(now + self.database_ahead + seconds(1));
        self.observer.run_begun_at.is_some_and(|at| now.duration_since(at) < seconds(20))
            || night.is_some_and(|at| (now + self.database_ahead).duration_since(at) < seconds(60))
    }

    /// A provider that has been down for a while gets a probe now and then, from each replica, and little else.
    fn check_calls_to_one_that_is_down(&mut self, app: usize, now: Timestamp) {
        let is_down = self.weather.hits(super::super::faults::Kind::Outage, app);
        let calls = &mut self.observer.calls_in_storm[app];
        let settled =
            self.observer.storm_since[app].filter(|_| is_down).map(|since| since + SignedDuration::from_mins(10));
        if settled.is_none_or(|settled| now < settled) {
            return calls.clear();
        }
        calls.push_back(now);
        while calls.front().is_some_and(|at| now.duration_since(*at) > hours(1)) {
            calls.pop_front();
        }
        let count = calls.len();
        if count == CALLS_AN_HOUR_WHILE_DOWN {
            self.broke("called_while_down", None, now, format!("{count} calls within an hour to one that is down"));
        }
    }

    fn check_limits(&mut self, asked: &Asked, now: Timestamp) {
        let number = asked.account;
        let seen = &self.observer.seen[number];
        let own = seen.limited_until.filter(|(until, _)| now + seconds(1) < *until);
        if let Some((until, _)) = own {
            self.broke(
                "called_while_limited",
                Some(number),
                now,
                format!("the provider had asked to wait until {until}"),
            );
        }
    }

    /// The provider has carried a request out, or refused it.
    pub(in super::super) fn saw_processed(&mut self, asked: &Asked, reply: &Reply, now: Timestamp) {
        let number = asked.account;
        if !self.is_strict(number) || asked.endpoint == Endpoint::DebugToken {
            return;
        }
        // A provider that limits or is down has not looked at the token. What leaves it open counts as if it had.
        if tells_what_became_of_it(reply) && !reply.may_have_spent && reply.meaning != Meaning::Refused {
            return;
        }
        let Some(generation) = self.accounts[number].generations.get_mut(asked.generation) else { return };
        generation.sent += 1;
        let sent = generation.sent;
        let before = generation.sent_by.replace((asked.replica, now));
        let is_declared = self.observer.seen[number]
            .memory
            .as_ref()
            .is_some_and(|memory| matches!(memory.state, State::Uncertain { is_last: true, .. }));
        let is_one_too_many = sent > 2 || (sent == 2 && !is_declared);
        if is_one_too_many && before.is_some_and(|(replica, at)| self.is_forgotten(replica, at, now)) {
            self.accounts[number].generations[asked.generation].sent = 1;
        } else if is_one_too_many && !self.is_with_the_dead(number, asked.generation) {
            let text = format!("generation {} was sent {sent} times", asked.generation);
            self.broke("generation_sent_twice", Some(number), now, text);
        }
    }

    /// Whether nobody can know that a token was sent: a standby has not got what was written of it, and it is in no journal
    /// where an error came, or nothing. Who sent it knows, and says so again, if it has lived on.
    fn is_forgotten(&self, replica: usize, sent_at: Timestamp, now: Timestamp) -> bool {
        let Some(lost_at) =
            self.observer.failed_over_at.filter(|at| *at >= sent_at && at.duration_since(sent_at) < seconds(60))
        else {
            return false;
        };
        let sender = &self.replicas[replica];
        let lived_until = sender.downs.iter().copied().find(|at| *at >= sent_at).unwrap_or(now);
        let had_time = self.observer.system_good.longest(lost_at, lived_until.max(lost_at)) > seconds(100);
        let stood_still =
            sender.pauses.iter().any(|(from, until)| *until > sent_at && from.duration_since(lost_at) < seconds(150));
        !had_time || stood_still
    }

    /// Whether what came for a generation is in the journal of a process that is down, and a standby has not got it: nobody
    /// else can know.
    fn is_with_the_dead(&self, number: usize, generation: usize) -> bool {
        let is_recent = self.observer.failed_over_at.is_some();
        let (account, id) = (&self.accounts[number], self.row_id(number));
        let mut answers =
            account.generations.iter().enumerate().filter(|(_, issued)| issued.came_for == Some(generation));
        let mut down = self.journals.iter().zip(&self.replicas).filter(|(_, replica)| !replica.is_up);
        is_recent && answers.any(|(issued, _)| down.any(|(journal, _)| journal.holds(&id, &account.token(issued))))
    }

    /// An answer, or that there is none, has come to a replica.
    pub(in super::super) fn saw_answered(&mut self, asked: &Asked, reply: &Reply, panics: bool, now: Timestamp) {
        let number = asked.account;
        let meaning = if panics { Meaning::Trouble } else { reply.meaning };
        self.trace.tell(now, Some(number), || format!("r{} answered: {meaning:?}", asked.replica));
        self.observer.answered_at = Some(now);
        let app = asked.app;
        if self.observer.storm_since[app].is_some() && !matches!(meaning, Meaning::Issued(_) | Meaning::Told) {
            self.observer.failed_in_storm[app].entry(number).or_insert(now);
        }
        let is_row_limit = self.is_row_limit(app);
        let calling = &mut self.replicas[asked.replica].calling;
        *calling = calling.saturating_sub(1);
        let was_there = self.observer.seen[number].generation == Some(asked.generation);
        let is_of_before = self.observer.seen[number].generation.is_some_and(|held| held > asked.generation);
        let seen = &mut self.observer.seen[number];
        if let Some(place) = seen.in_flight.iter().position(|replica| *replica == asked.replica) {
            seen.in_flight.swap_remove(place);
        }
        // The last try is the last whatever error it is answered with, if it got through to the token.
        let is_last =
            seen.memory.as_ref().is_some_and(|memory| matches!(memory.state, State::Uncertain { is_last: true, .. }));
        let is_told = tells_what_became_of_it(reply)
            && !panics
            && (!is_last || matches!(meaning, Meaning::Issued(_) | Meaning::Refused));
        if is_told && seen.in_doubt == Some(asked.generation) {
            seen.in_doubt = None;
        }
        match meaning {
            Meaning::Issued(generation) => {
                seen.refusals.clear();
                seen.trouble_since = if self.accounts[number].standing == Standing::Stuck {
                    seen.trouble_since.or(Some(now))
                } else {
                    None
                };
                self.check_worth(number, generation, now);
                let issued = &mut self.accounts[number].generations[generation];
                (issued.was_received, issued.came_for) = (true, Some(asked.generation));
                let is_new = self.observer.seen[number].generation.is_none_or(|held| generation > held);
                if is_new && was_there {
                    self.observer.unsettled.insert((number, generation), (asked.generation, now));
                }
            }
            // The customer has logged in meanwhile: it says nothing of the token that the row holds now.
            _ if is_of_before => {}
            Meaning::Refused => {
                seen.trouble_since.get_or_insert(now);
                seen.refusals.push_back(now);
            }
            Meaning::Limited(until) if asked.grant != perene_policy::Grant::Oauth2 && is_row_limit => {
                seen.limited_until = Some((until, asked.replica));
            }
            Meaning::Limited(until) => {
                let known = &mut self.observer.limited_until[app];
                *known = (*known).max(Some(until));
                self.note_good(now);
                self.at(until, super::super::world::Event::Nothing);
            }
            Meaning::Trouble => {
                seen.trouble_since.get_or_insert(now);
            }
            Meaning::Told => seen.trouble_since = None,
        }
    }

    /// A token that lives for days is not refreshed again and again.
    fn check_worth(&mut self, number: usize, generation: usize, now: Timestamp) {
        let left = self.accounts[number].generations[generation].expires_at.duration_since(now);
        let is_stuck = self.accounts[number].standing == Standing::Stuck;
        let issued = &mut self.observer.seen[number].issued;
        issued.retain(|at| now.duration_since(*at) < hours(24));
        issued.push(now);
        let count = issued.len();
        if count == REFRESHES_A_DAY && left > hours(48) && !is_stuck {
            let text = format!("{count} times in a day, and {} hours are left", left.as_hours());
            self.broke("refreshed_over_and_over", Some(number), now, text);
        }
    }

    /// Whether limits are on single connections just now, and not on the whole app.
    fn is_row_limit(&self, app: usize) -> bool {
        use super::super::faults::Kind;
        let whole = [Kind::Throttle, Kind::ThrottleDate, Kind::ThrottleAbsurd];
        !whole.into_iter().any(|kind| self.weather.hits(kind, app))
    }

    /// Generations that have come whole must be in the database or in a journal: looked at when a process died, when a
    /// standby took over, and now and then.
    pub(in super::super) fn check_generations(&mut self, now: Timestamp) {
        let is_full = self.weather.is_on(super::super::faults::Kind::JournalFull);
        let unsettled: Vec<(usize, usize)> = self.observer.unsettled.keys().copied().collect();
        for (number, generation) in unsettled {
            let seen = &self.observer.seen[number];
            // Of two that replicas got for the same generation, as some providers allow, one is enough.
            let (sent, received_at) = self.observer.unsettled[&(number, generation)];
            let is_over = !seen.is_there || seen.generation.is_some_and(|held| held > sent);
            let account = &self.accounts[number];
            let (id, token) = (self.row_id(number), account.token(generation));
            let is_kept = self.journals.iter().any(|journal| journal.holds(&id, &token));
            let mut serving = self.journals.iter().zip(&self.replicas).filter(|(_, replica)| replica.is_up);
            let is_at_hand = serving.any(|(journal, _)| journal.holds(&id, &token));
            if is_over || (is_full && !is_kept) {
                self.observer.unsettled.remove(&(number, generation));
            } else if !is_kept {
                self.observer.unsettled.remove(&(number, generation));
                let text = format!("generation {generation} is in no journal, and the row holds {:?}", seen.generation);
                self.broke("issued_generation_lost", Some(number), now, text);
            } else if now.duration_since(received_at) > hours(3)
                && self.has_been_good_for(number, hours(3), now)
                && !self.is_row_refused(number)
                && is_at_hand
            {
                self.observer.unsettled.remove(&(number, generation));
                let text = format!("generation {generation} has been in a journal since {received_at}");
                self.broke("kept_answer_not_stored", Some(number), now, text);
            }
        }
    }
}

/// Whether an answer tells if the token was spent: by what every client of RFC 6749 knows. An error of the client's own is
/// an answer, and so is the server's word that it does nothing; any other error of the server, or a success that cannot
/// be read, is none.
fn tells_what_became_of_it(reply: &Reply) -> bool {
    match (&reply.result, reply.meaning) {
        (_, Meaning::Issued(_) | Meaning::Refused | Meaning::Limited(_)) => true,
        (Ok(answer), _) => matches!(answer.status, 300..=499 | 501 | 503),
        (Err(no_answer), _) => no_answer.kind == NoAnswerKind::NotSent,
    }
}
