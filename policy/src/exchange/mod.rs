//! The calls for one connection in one run, as a machine without I/O: it says which call comes next, is
//! told what was answered, and concludes after three calls at the most.

use jiff::{SignedDuration, Timestamp};

use crate::answer::{Expires, Granted, Inspected, InspectedExpiry, Usage, Verdict};
use crate::backoff::{QUICK, later};
use crate::connection::{Connection, State};
use crate::due::{self, within};
use crate::grant::{Class, Grant};
use crate::outcome::{Outcome, Scope};
use crate::planted::{self, Bug};
use crate::secret::Secret;

pub use crate::answer::Endpoint;

/// One connection costs at most this many calls in one run.
pub const CALLS_MAX: u8 = 3;

/// A refusal is believed when it is repeated at least this much later.
pub const SECOND_LOOK_AFTER: SignedDuration = SignedDuration::from_secs(1);

/// An expiry that has moved by no more than this has not moved: Meta's instants lie on full hours.
pub const NO_MOVE: SignedDuration = SignedDuration::from_hours(1);

/// One call to the provider.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is called.
    pub endpoint: Endpoint,
    /// The token that is sent.
    pub token: Secret,
    /// How long to wait before it.
    pub after: SignedDuration,
    /// Whether it repeats a call that failed. While the provider is down, nothing is repeated: see
    /// [`Exchange::give_up`].
    pub is_retry: bool,
}

/// What comes next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Make this call, then tell the answer to [`Exchange::answered`].
    Call(Call),
    /// Nothing more is to be asked.
    Conclude(Conclusion),
}

/// What the calls for one connection came to.
#[derive(Debug, Clone)]
pub struct Conclusion {
    /// What it means.
    pub outcome: Outcome,
    /// Why, as a fixed word.
    pub reason: &'static str,
    /// Whom it is about, where that is known.
    pub scope: Option<Scope>,
    /// How long the provider asks to be left alone.
    pub retry_after: Option<SignedDuration>,
    /// The provider's own words; not yet redacted.
    pub message: Option<String>,
    /// The token that was issued. Always stored, whatever the outcome.
    pub token: Option<Secret>,
    /// The refresh token that was issued with it.
    pub refresh_token: Option<Secret>,
    /// The expiry to store; `None` leaves the stored one.
    pub expires_at: Option<Timestamp>,
    /// The provider said that the token never expires.
    pub never_expires: bool,
    /// When the end of data access was told.
    pub data_access_ends_at: Option<Timestamp>,
    /// Whether the token was sent for a refresh (an inspection is none).
    pub was_sent: bool,
    /// How full the provider's limits are, as the last answer told.
    pub usage: Usage,
    /// The provider punishes reuse: what was sent is not sent again, not even to see whether it has revived.
    pub sends_once: bool,
    /// It was sent to such a provider, and whether it is spent is not known.
    pub is_uncertain: bool,
    /// It was the one further try after such a one.
    pub was_last_try: bool,
    /// It was not sent because sending it again is not allowed.
    pub is_kept_back: bool,
    /// The token was spent, and what came for it is in a journal until the database takes it: nobody sends it again, and
    /// there is nothing that a customer could do.
    pub is_answer_kept: bool,
    /// A refusal that nobody looked at a second time, because the app's brake holds refusals: it is held, whatever
    /// becomes of the brake meanwhile.
    pub is_held: bool,
}

impl Conclusion {
    /// A conclusion without a call.
    pub fn unsent(outcome: Outcome, reason: &'static str) -> Self {
        Self {
            outcome,
            reason,
            scope: None,
            retry_after: None,
            message: None,
            token: None,
            refresh_token: None,
            expires_at: None,
            never_expires: false,
            data_access_ends_at: None,
            was_sent: false,
            usage: Usage::default(),
            sends_once: false,
            is_uncertain: false,
            was_last_try: false,
            is_kept_back: false,
            is_answer_kept: false,
            is_held: false,
        }
    }

    /// What an answer comes to that was kept while its process or the database was away: the token that was
    /// issued, with the expiry that was reckoned when it came (`None`: it was not told).
    pub fn replayed(
        connection: &Connection,
        token: Secret,
        refresh_token: Option<Secret>,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let is_new = token != connection.token;
        let extended = expires_at.map(|new| extended(connection.grant, is_new, connection.expires_at, new, now));
        let (outcome, reason) = extended.unwrap_or((Outcome::Unrecognised, "expiry_unknown"));
        let token = Some(token);
        Self { token, refresh_token, expires_at, was_sent: true, ..Self::unsent(outcome, reason) }
    }

    fn of(verdict: Verdict) -> Self {
        Self {
            is_uncertain: verdict.may_be_spent,
            scope: verdict.scope,
            retry_after: verdict.retry_after,
            message: verdict.message,
            usage: verdict.usage,
            ..Self::unsent(verdict.outcome, verdict.reason)
        }
    }
}

/// How a connection is to be treated in this run.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// What a second call costs at this provider.
    pub class: Class,
    /// How long before its expiry a token is due.
    pub window: SignedDuration,
    /// The operator named this connection and insists: it is sent although its date says otherwise.
    pub insist: bool,
    /// A row that is not due may be asked for the end of its data access alone.
    pub looks_after: bool,
    /// How long an access token of this provider usually lives: counts where an answer does not tell.
    pub usual_life: Option<SignedDuration>,
    /// The source has a column for refresh tokens: a row without one has nothing that could be sent.
    pub needs_refresh_token: bool,
}

/// The calls for one connection in one run.
#[derive(Debug)]
pub struct Exchange {
    grant: Grant,
    terms: Terms,
    token: Secret,
    old_token: Secret,
    old_expires_at: Option<Timestamp>,
    phase: Phase,
    calls: u8,
    retries: usize,
    was_sent: bool,
    was_inspected: bool,
    is_last_try: bool,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each connection in flight, moved a few times")]
enum Phase {
    /// Asking what the expiry is, before anything is sent.
    Inspecting,
    /// Asking for the refresh.
    Refreshing,
    /// A token was issued without a date: asking for the date.
    Dating(Granted),
    /// The token was refused: looking a second time, by `debug_token` or by the same call.
    Confirming(Verdict),
}

impl Exchange {
    /// Begins with a connection that is due, or whose expiry is unknown.
    pub fn begin(connection: &Connection, terms: Terms, now: Timestamp) -> (Self, Step) {
        let mut exchange = Self {
            grant: connection.grant,
            terms,
            token: connection.refresh_token.clone().unwrap_or_else(|| connection.token.clone()),
            old_token: connection.token.clone(),
            old_expires_at: connection.expires_at,
            phase: Phase::Refreshing,
            calls: 0,
            retries: 0,
            was_sent: false,
            was_inspected: false,
            is_last_try: false,
        };
        if let Some(why) = exchange.keeps_back(connection, now) {
            let conclusion = Conclusion { is_kept_back: true, ..Conclusion::unsent(Outcome::Transient, why) };
            return (exchange, Step::Conclude(conclusion));
        }
        if terms.needs_refresh_token && connection.refresh_token.is_none() {
            return (exchange, Step::Conclude(Conclusion::unsent(Outcome::Unrecognised, "no_refresh_token")));
        }
        if let Some(reason) = due::unsendable(connection) {
            return (exchange, Step::Conclude(Conclusion::unsent(Outcome::Unrecognised, reason)));
        }
        if let Some(until) = due::too_young_until(connection, now) {
            let mut conclusion = Conclusion::unsent(Outcome::TooYoung, "under_24_hours_of_age");
            conclusion.retry_after = Some(until.duration_since(now));
            return (exchange, Step::Conclude(conclusion));
        }
        if connection.grant.can_be_inspected() && !terms.insist && exchange.is_inspection(connection, now) {
            exchange.phase = Phase::Inspecting;
        }
        let step = exchange.call(SignedDuration::ZERO, false);
        (exchange, step)
    }

    /// Why this generation must not be sent now, to a provider that punishes reuse; `None` if it may. Whoever
    /// asks, and however much: the one last try is made when its time has come.
    fn keeps_back(&mut self, connection: &Connection, now: Timestamp) -> Option<&'static str> {
        let memory = connection.memory_of_this_refresh_token().filter(|_| self.terms.class == Class::Strict)?;
        match &memory.state {
            State::Uncertain { is_last: false, .. } if memory.next_try_at.is_some_and(|at| at <= now) => {
                self.is_last_try = true;
                None
            }
            State::Uncertain { .. } => Some("answer_lost"),
            State::NeedsReconnect { .. } => Some("refused_before"),
            _ => None,
        }
    }

    /// Whether the token is sent for the second and last time.
    pub const fn is_last_try(&self) -> bool {
        self.is_last_try
    }

    /// When the token that was issued expires; `None` if that is not told, or cannot be believed.
    pub fn expiry_of(&self, granted: &Granted, sent_at: Timestamp) -> Option<Timestamp> {
        match granted.expires {
            Expires::In(life) => Some(later(sent_at, life)),
            Expires::Unknown => self.terms.usual_life.map(|life| later(sent_at, life)),
            Expires::Unbelievable => None,
        }
    }

    /// Whether the date is asked for first: because there is none, or because the connection has come up for
    /// the end of its data access alone, its token being good for long.
    fn is_inspection(&self, connection: &Connection, now: Timestamp) -> bool {
        let is_due = connection.expires_at.is_some_and(|at| within(at, now, self.terms.window));
        let asks_for_data_access = connection.memory_of_this_generation().is_some_and(|memory| {
            memory.next_try_at.is_some_and(|at| at <= now)
                && (memory.state == State::Healthy
                    || (memory.state == State::NotExtended && memory.data_access_ends_at.is_some()))
        });
        connection.expires_at.is_none() || (self.terms.looks_after && !is_due && asks_for_data_access)
    }

    /// Takes the answer to the last call. `sent_at` is the instant before its request was sent: from there
    /// the new life is counted, so that the stored expiry is never later than the true one.
    pub fn answered(&mut self, verdict: Verdict, sent_at: Timestamp, now: Timestamp) -> Step {
        match std::mem::replace(&mut self.phase, Phase::Refreshing) {
            Phase::Inspecting => self.inspected(verdict, now),
            Phase::Refreshing => self.refreshed(verdict, sent_at, now),
            Phase::Dating(granted) => self.dated(granted, verdict, now),
            Phase::Confirming(first) => self.confirmed(first, verdict, sent_at, now),
        }
    }

    /// Concludes with the last answer, although another try would be allowed: the provider is down, and
    /// calling again would only add to its troubles. A token that was issued meanwhile is kept.
    pub fn give_up(&mut self, verdict: Verdict) -> Conclusion {
        match std::mem::replace(&mut self.phase, Phase::Refreshing) {
            Phase::Dating(granted) => self.without_date(granted, "expiry_unknown", verdict.usage),
            // A refusal that has not been looked at a second time is not believed.
            Phase::Confirming(first) => match self.unbelieved(first) {
                Step::Conclude(conclusion) => conclusion,
                Step::Call(_) => self.conclude(Conclusion::of(verdict)),
            },
            _ => self.conclude(Conclusion::of(verdict)),
        }
    }

    /// Concludes with a refusal that was to be looked at a second time; `None` if no such look is pending. While the
    /// brake holds refusals a second one is believed no more than the first, and would only double the calls.
    pub fn hold(&mut self) -> Option<Conclusion> {
        match std::mem::replace(&mut self.phase, Phase::Refreshing) {
            Phase::Confirming(first) => Some(Conclusion { is_held: true, ..self.conclude(Conclusion::of(first)) }),
            other => {
                self.phase = other;
                None
            }
        }
    }

    fn refreshed(&mut self, verdict: Verdict, sent_at: Timestamp, now: Timestamp) -> Step {
        match (verdict.outcome, verdict.granted.clone()) {
            (Outcome::Refreshed, Some(granted)) => self.granted(granted, verdict, sent_at, now),
            (Outcome::NeedsReconnect, _) => self.look_again(verdict),
            (Outcome::Transient, _) => {
                self.phase = Phase::Refreshing;
                self.try_again(verdict)
            }
            _ => self.end(Conclusion::of(verdict)),
        }
    }

    fn granted(&mut self, granted: Granted, verdict: Verdict, sent_at: Timestamp, now: Timestamp) -> Step {
        let sent_at = if planted::has(Bug::ExpiryFromAfter) { now } else { sent_at };
        if let Some(expires_at) = self.expiry_of(&granted, sent_at) {
            return self.moved(granted, expires_at, verdict, now);
        }
        match granted.expires {
            Expires::Unknown if self.grant.can_be_inspected() && self.calls < CALLS_MAX => {
                self.phase = Phase::Dating(granted);
                self.call(SignedDuration::ZERO, false)
            }
            Expires::In(_) | Expires::Unknown => self.stored_without_date(granted, "expiry_unknown", verdict.usage),
            Expires::Unbelievable => self.stored_without_date(granted, "expiry_unbelievable", verdict.usage),
        }
    }

    fn dated(&mut self, granted: Granted, verdict: Verdict, now: Timestamp) -> Step {
        match verdict.inspected.clone() {
            Some(Inspected { valid: true, expires: InspectedExpiry::At(at), data_access_expires_at, .. }) => {
                let step = self.moved(granted, at, verdict, now);
                with_data_access(step, data_access_expires_at)
            }
            Some(Inspected { valid: true, expires: InspectedExpiry::Never, data_access_expires_at, .. }) => {
                let mut conclusion = Conclusion::of(verdict);
                conclusion.outcome = Outcome::Refreshed;
                conclusion.reason = "never_expires";
                conclusion.never_expires = true;
                conclusion.token = Some(granted.token);
                conclusion.refresh_token = granted.refresh_token;
                with_data_access(self.end(conclusion), data_access_expires_at)
            }
            // A passing fault of debug_token: asked again while calls are left. The token is not lost by it.
            _ if verdict.outcome == Outcome::Transient && self.calls < CALLS_MAX => {
                self.phase = Phase::Dating(granted);
                self.try_again(verdict)
            }
            _ => self.stored_without_date(granted, "expiry_unknown", verdict.usage),
        }
    }

    /// Did the expiry move? "200 OK, not moved" is a state of its own: only the customer's login helps.
    fn moved(&self, granted: Granted, new: Timestamp, verdict: Verdict, now: Timestamp) -> Step {
        let mut conclusion = Conclusion::of(verdict);
        (conclusion.outcome, conclusion.reason) =
            extended(self.grant, granted.token != self.old_token, self.old_expires_at, new, now);
        conclusion.message = None;
        conclusion.token = Some(granted.token);
        conclusion.refresh_token = granted.refresh_token;
        conclusion.expires_at = Some(new);
        self.end(conclusion)
    }

    fn stored_without_date(&self, granted: Granted, reason: &'static str, usage: Usage) -> Step {
        Step::Conclude(self.without_date(granted, reason, usage))
    }

    fn without_date(&self, granted: Granted, reason: &'static str, usage: Usage) -> Conclusion {
        let mut conclusion = Conclusion::unsent(Outcome::Unrecognised, reason);
        conclusion.token = Some(granted.token);
        conclusion.refresh_token = granted.refresh_token;
        conclusion.usage = usage;
        self.conclude(conclusion)
    }

    fn inspected(&mut self, verdict: Verdict, now: Timestamp) -> Step {
        let Some(inspected) = verdict.inspected.clone().filter(|inspected| inspected.valid) else {
            return match verdict.outcome {
                Outcome::NeedsReconnect => self.look_again(verdict),
                Outcome::Transient => {
                    self.phase = Phase::Inspecting;
                    self.try_again(verdict)
                }
                // It was asked after its data access alone, and is good for long: nothing is sent for that.
                Outcome::Refreshed | Outcome::Unrecognised
                    if self.old_expires_at.is_some_and(|at| !within(at, now, due::LOOK_AHEAD)) =>
                {
                    self.end(Conclusion { outcome: Outcome::Unrecognised, ..Conclusion::of(verdict) })
                }
                // It answered, and did not tell what was asked: the refresh itself will.
                Outcome::Refreshed | Outcome::Unrecognised => self.send_inspected(verdict),
                _ => self.end(Conclusion::of(verdict)),
            };
        };
        let data_access = inspected.data_access_expires_at;
        match inspected.expires {
            InspectedExpiry::At(at) if at > now && within(at, now, self.terms.window) => {
                self.old_expires_at = Some(at);
                self.send_inspected(verdict)
            }
            InspectedExpiry::At(at) => {
                let mut conclusion = Conclusion::of(verdict);
                conclusion.reason = "inspected";
                conclusion.expires_at = Some(at);
                with_data_access(self.end(conclusion), data_access)
            }
            InspectedExpiry::Never => {
                let mut conclusion = Conclusion::of(verdict);
                conclusion.reason = "never_expires";
                conclusion.never_expires = true;
                with_data_access(self.end(conclusion), data_access)
            }
            InspectedExpiry::Unknown => self.send_inspected(verdict),
        }
    }

    /// Sends what was inspected, if a call is left: looking may have needed all three.
    fn send_inspected(&mut self, verdict: Verdict) -> Step {
        if self.calls < CALLS_MAX {
            return self.call(SignedDuration::ZERO, false);
        }
        let mut conclusion = Conclusion::of(verdict);
        (conclusion.outcome, conclusion.reason) = (Outcome::Transient, "inspected_late");
        self.end(conclusion)
    }

    /// A refusal is looked at a second time before it is believed. A strict provider punishes the reuse of
    /// a token, so there the first refusal is the last word.
    fn look_again(&mut self, first: Verdict) -> Step {
        if self.terms.class == Class::Strict || planted::has(Bug::NoSecondLook) {
            return self.end(Conclusion::of(first));
        }
        if self.calls >= CALLS_MAX {
            return self.unbelieved(first);
        }
        self.phase = Phase::Confirming(first);
        self.call(SECOND_LOOK_AFTER, false)
    }

    fn confirmed(&mut self, first: Verdict, second: Verdict, sent_at: Timestamp, now: Timestamp) -> Step {
        match second.outcome {
            Outcome::NeedsReconnect => self.end(Conclusion::of(first)),
            Outcome::Refreshed if second.granted.is_some() => self.refreshed(second, sent_at, now),
            // debug_token finds the token sound: the refusal was a passing one.
            Outcome::Refreshed => self.unbelieved(first),
            Outcome::RateLimited | Outcome::Misconfigured => self.end(Conclusion::of(second)),
            _ if self.calls < CALLS_MAX => {
                self.phase = Phase::Confirming(first);
                self.call(QUICK[1], false)
            }
            _ => self.unbelieved(first),
        }
    }

    fn unbelieved(&self, first: Verdict) -> Step {
        let mut conclusion = Conclusion::of(first);
        conclusion.outcome = Outcome::Transient;
        conclusion.reason = "refusal_not_confirmed";
        self.end(conclusion)
    }

    fn try_again(&mut self, verdict: Verdict) -> Step {
        // A strict provider may have spent the token without our seeing the answer.
        if self.calls >= CALLS_MAX || self.retries >= QUICK.len() || self.terms.class == Class::Strict {
            let phase = std::mem::replace(&mut self.phase, Phase::Refreshing);
            return match phase {
                Phase::Dating(granted) => self.stored_without_date(granted, "expiry_unknown", verdict.usage),
                _ => self.end(Conclusion::of(verdict)),
            };
        }
        let wait = QUICK[self.retries];
        self.retries += 1;
        self.call(wait, true)
    }

    fn call(&mut self, after: SignedDuration, is_retry: bool) -> Step {
        self.calls += 1;
        let (endpoint, token) = match &self.phase {
            Phase::Inspecting => (Endpoint::DebugToken, self.token.clone()),
            Phase::Dating(granted) => (Endpoint::DebugToken, granted.token.clone()),
            // The second look by debug_token where there is one, and should that not tell, by the refresh.
            Phase::Confirming(_) if self.grant.can_be_inspected() && !(self.was_sent && self.was_inspected) => {
                self.was_inspected = true;
                (Endpoint::DebugToken, self.token.clone())
            }
            Phase::Confirming(_) | Phase::Refreshing => {
                self.was_sent = true;
                (refresh_endpoint(self.grant), self.token.clone())
            }
        };
        Step::Call(Call { endpoint, token, after, is_retry })
    }

    fn end(&self, conclusion: Conclusion) -> Step {
        Step::Conclude(self.conclude(conclusion))
    }

    fn conclude(&self, mut conclusion: Conclusion) -> Conclusion {
        conclusion.was_sent = self.was_sent;
        conclusion.sends_once = self.terms.class == Class::Strict;
        conclusion.was_last_try = self.is_last_try && self.was_sent;
        conclusion.is_uncertain &= conclusion.sends_once && self.was_sent && conclusion.token.is_none();
        conclusion
    }
}

/// Whether the expiry has moved, and the word for it. Another token of an OAuth 2.0 provider is a success whatever
/// its date: one that was refreshed minutes after it was issued lives no longer for it, and needs nobody's login.
fn extended(
    grant: Grant,
    is_new_token: bool,
    old: Option<Timestamp>,
    new: Timestamp,
    now: Timestamp,
) -> (Outcome, &'static str) {
    let is_extended = match old {
        None => true,
        Some(_) if planted::has(Bug::NotExtendedIsRefreshed) => true,
        Some(old) if grant == Grant::Oauth2 => is_new_token || new > old,
        Some(old) => !within(old, now, due::LOOK_AHEAD) || new.duration_since(old) > NO_MOVE,
    };
    if is_extended { (Outcome::Refreshed, "extended") } else { (Outcome::NotExtended, "expiry_did_not_move") }
}

/// Where a token of this grant is renewed.
pub const fn refresh_endpoint(grant: Grant) -> Endpoint {
    match grant {
        Grant::Facebook => Endpoint::Exchange,
        Grant::Instagram => Endpoint::IgRefresh,
        Grant::Threads => Endpoint::ThRefresh,
        Grant::Oauth2 => Endpoint::Oauth2,
    }
}

fn with_data_access(step: Step, ends_at: Option<Timestamp>) -> Step {
    match step {
        Step::Conclude(conclusion) => Step::Conclude(Conclusion { data_access_ends_at: ends_at, ..conclusion }),
        call => call,
    }
}

#[cfg(test)]
mod tests;
