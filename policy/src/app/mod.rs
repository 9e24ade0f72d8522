//! What is known of one app at a provider: how full its limits are, whether its circuit is open, whether
//! the breadth brake is on. Shared by all replicas through the database.
//!
//! When many connections of one app fail alike in a short time, it is the app or the provider and not the
//! customers. Three mechanisms rest on that:
//!
//! - **Limit**: the provider asked for a pause, or nearly so: nothing is sent before its end.
//! - **Circuit**: ten connections in a row got no usable answer: one probe in 30 seconds, until one answers.
//!   A misconfigured app is held alike, with rarer probes, and at once released when its credentials change.
//! - **Brake**: many connections got the same bad outcome within an hour: calls go on (one connection's
//!   trouble never delays another's refresh), but that outcome is not believed, not counted, not told.

mod hold;
mod pace;
mod tally;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::answer::Usage;
use crate::backoff::{later, limit_wait, limit_wait_at_least};
use crate::outcome::{Outcome, Scope};
use crate::planted::{self, Bug};
use crate::secret::Fingerprint;

pub use hold::{Hold, HoldKind};
pub use pace::{Pace, SLOW_FROM_PERCENT, STOP_FROM_PERCENT};
pub use tally::{BRAKE_CONNECTIONS, BRAKE_PERCENT, Tally};

/// So many connections in a row without a usable answer open the circuit.
pub const CIRCUIT_CONNECTIONS: usize = 10;

/// How long calls stop when the provider's usage header says that the limit is near, if it tells no time.
const NEAR_LIMIT_WAIT: SignedDuration = SignedDuration::from_mins(15);

/// What is known of one app at a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Of the app's id, secret and host: when they change, all that is below is forgotten.
    pub credentials: Fingerprint,
    /// A limit that the provider has set on the app.
    #[serde(default)]
    pub limit: Option<Limit>,
    /// How full the app's limit was when it was last told.
    #[serde(default)]
    pub pace: Pace,
    /// The circuit, the brake, or the hold on a misconfigured app.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// Who was tried within the last hour, and with what outcome.
    #[serde(default)]
    pub tally: Tally,
    /// Connections were deferred because of this app: they are taken up as soon as it may be called again.
    #[serde(default)]
    pub has_backlog: bool,
    /// How often that was: of several replicas one may be sending what another has just put off.
    #[serde(default)]
    pub times_put_off: u64,
    /// An outcome that the brake has held and then let go is believed until this instant.
    #[serde(default)]
    pub believed_until: Option<Timestamp>,
    /// How long the tokens live that it issues, as the last answer told.
    #[serde(default)]
    pub life: Option<SignedDuration>,
}

/// A limit that the provider has set on an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Since when.
    pub since: Timestamp,
    /// Until when nothing is sent.
    pub until: Timestamp,
    /// How often in a row it was met without an end being told.
    pub times: u32,
}

/// Whether the app may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Yes, with this much time between the starts of two calls.
    Go(SignedDuration),
    /// One connection may be sent, once, to see whether the provider is back.
    Probe,
    /// Not before `until`; a connection that would have been sent is deferred with this outcome.
    Wait {
        /// [`Outcome::RateLimited`], [`Outcome::Misconfigured`] or [`Outcome::Transient`].
        outcome: Outcome,
        /// When to ask again.
        until: Timestamp,
    },
}

/// What was seen of an app when one connection was tried.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// The connection's key, to tell connections apart.
    pub connection: String,
    /// What the answer meant.
    pub outcome: Outcome,
    /// Why, as a fixed word.
    pub reason: &'static str,
    /// Whom it was about.
    pub scope: Option<Scope>,
    /// How long the provider asks to be left alone.
    pub retry_after: Option<SignedDuration>,
    /// How full the limits are.
    pub usage: Usage,
    /// No other connection has been answered since this one failed first. Failures that are scattered among
    /// successes conclude late, one after the other, and are no outage.
    pub is_in_a_row: bool,
    /// It is another try of a connection that has been counted within the hour.
    pub is_repeated: bool,
    /// How long the token lives that was issued.
    pub life: Option<SignedDuration>,
}

/// Something that the operator must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// `app_misconfigured`, `provider_down`, `many_alike` or `app_limited`.
    pub kind: &'static str,
    /// Since when.
    pub since: Timestamp,
    /// What is wrong and what to do.
    pub text: String,
}

impl App {
    /// An app of which nothing is known yet.
    pub fn new(credentials: Fingerprint) -> Self {
        Self {
            credentials,
            limit: None,
            pace: Pace::default(),
            hold: None,
            tally: Tally::default(),
            has_backlog: false,
            times_put_off: 0,
            believed_until: None,
            life: None,
        }
    }

    /// Whether the app may be called now.
    pub fn permission(&self, now: Timestamp) -> Permission {
        if let Some(limit) = self.limit.as_ref().filter(|limit| limit.until > now) {
            return Permission::Wait { outcome: Outcome::RateLimited, until: limit.until };
        }
        match &self.hold {
            Some(hold) if hold.kind.stops_calls() && hold.probe_at <= now => Permission::Probe,
            Some(hold) if hold.kind.stops_calls() => Permission::Wait { outcome: hold.outcome, until: hold.probe_at },
            _ => Permission::Go(self.pace.spacing(now)),
        }
    }

    /// Takes the one probe that is allowed: the next is not before its interval has passed, whatever
    /// becomes of this one.
    pub fn take_probe(&mut self, now: Timestamp) {
        if let Some(hold) = &mut self.hold {
            hold.probe_at = later(now, hold.kind.probe_interval());
        }
    }

    /// Whether the brake is on.
    pub fn is_braked(&self) -> bool {
        self.is_held_by(HoldKind::Brake)
    }

    /// Takes the one turn at which what the brake holds is sent again; `false` if it is not time yet.
    pub fn take_turn(&mut self, now: Timestamp) -> bool {
        let brake = self.hold.as_mut().filter(|hold| hold.kind == HoldKind::Brake && hold.may_send_again(now));
        brake.is_some_and(|hold| hold.sent_again_at.replace(now) != Some(now))
    }

    /// Reads how full the limits are, from any answer: as soon as it is there, before more calls are begun.
    pub fn read_usage(&mut self, usage: &Usage, now: Timestamp) {
        self.pace.learn(usage, now);
        if let Some(wait) = self.pace.stop_for(usage, NEAR_LIMIT_WAIT) {
            self.pause(later(now, wait), 0, now);
        }
    }

    /// Learns from one connection's answer.
    pub fn learn(&mut self, sighting: &Sighting, now: Timestamp) {
        self.pace.learn(&sighting.usage, now);
        self.life = sighting.life.or(self.life);
        if sighting.outcome != Outcome::RateLimited
            && let Some(wait) = self.pace.stop_for(&sighting.usage, NEAR_LIMIT_WAIT)
        {
            self.pause(later(now, wait), 0, now);
        }
        if !sighting.is_repeated {
            self.tally.add(&sighting.connection, sighting.outcome, sighting.is_in_a_row, now);
        }
        match (sighting.outcome, sighting.scope) {
            (Outcome::RateLimited, Some(Scope::App)) => {
                // What was in flight when the limit was met says nothing new: it is met anew after its end.
                let times = self.limit.as_ref().map_or(0, |limit| limit.times + u32::from(limit.until <= now));
                let wait = sighting.retry_after.unwrap_or_else(|| limit_wait(times)).max(limit_wait_at_least(times));
                self.pause(later(now, wait), times, now);
            }
            (Outcome::Misconfigured, Some(Scope::App)) => {
                self.keep_hold(HoldKind::Misconfigured, sighting.outcome, sighting.reason, now);
            }
            (Outcome::Transient, _) => {
                if planted::has(Bug::NoCircuit) {
                    return;
                }
                if self.tally.failed_in_a_row() >= CIRCUIT_CONNECTIONS || self.is_held_by(HoldKind::Circuit) {
                    self.keep_hold(HoldKind::Circuit, Outcome::Transient, sighting.reason, now);
                }
            }
            (outcome, _) => self.answered(outcome, now),
        }
    }

    /// Looks at the outcomes of a page together: this is where the brake is put on, and let go.
    pub fn judge(&mut self, now: Timestamp) {
        if self.believed_until.is_some_and(|until| until <= now) {
            self.believed_until = None;
        }
        match &self.hold {
            Some(hold) if hold.kind == HoldKind::Brake && hold.may_let_go(now) => {
                self.hold = None;
                self.leave_backlog();
                self.believed_until = Some(later(now, hold::LONGEST));
            }
            None if self.believed_until.is_none() => {
                if let Some(outcome) = self.tally.many_alike(now) {
                    self.hold = Some(Hold::new(HoldKind::Brake, outcome, "many_alike", now));
                }
            }
            _ => {}
        }
    }

    /// The app itself was asked, without any connection, and is well (or is not).
    pub fn probed(&mut self, is_well: bool, now: Timestamp) {
        if let Some(hold) = self.hold.as_mut().filter(|_| is_well) {
            hold.app_is_well_at = Some(now);
        }
    }

    /// Whether a bad outcome is not to be believed now.
    pub fn disbelieves(&self, outcome: Outcome) -> bool {
        self.hold.as_ref().is_some_and(|hold| {
            hold.outcome == outcome || (hold.kind == HoldKind::Brake && outcome == Outcome::Transient)
        })
    }

    /// Whether customers are told nothing now. A hold of a day is no storm any more: then they are told,
    /// except of a misconfigured app, of which no customer hears ever.
    pub fn holds_notices(&self, now: Timestamp) -> bool {
        self.hold
            .as_ref()
            .is_some_and(|hold| hold.kind == HoldKind::Misconfigured || now.duration_since(hold.since) < hold::LONGEST)
    }

    /// Whether the provider has been of no use for a day: then customers whose tokens end soon hear of it, though nothing
    /// was concluded about them. Never while the app itself is refused, which is the operator's affair.
    pub fn is_out_of_reach(&self, now: Timestamp) -> bool {
        let is_long = |since: Timestamp| now.duration_since(since) >= hold::LONGEST;
        let is_down = self.hold.as_ref().is_some_and(|hold| hold.kind == HoldKind::Circuit && is_long(hold.since));
        let is_limited = self.limit.as_ref().is_some_and(|limit| limit.until > now && is_long(limit.since));
        is_down || (is_limited && !self.is_held_by(HoldKind::Misconfigured))
    }

    /// Connections were deferred because the app could not be called.
    pub fn leave_backlog(&mut self) {
        self.has_backlog = true;
        self.times_put_off += 1;
    }

    /// What had been deferred when it was so for the `times`-th time has been sent.
    pub fn end_backlog(&mut self, times: u64) {
        self.has_backlog &= self.times_put_off != times;
    }

    /// What is left to be known when the app's id, secret or host has changed: that something was deferred.
    #[must_use]
    pub fn forgotten(&self, credentials: Fingerprint) -> Self {
        let has_backlog = self.has_backlog || self.hold.is_some() || self.limit.is_some();
        Self { has_backlog, times_put_off: self.times_put_off, ..Self::new(credentials) }
    }

    /// Somebody asks by hand, and wants to know whether an app that was misconfigured is well again: its next probe is now.
    pub fn ask_at_once(&mut self, now: Timestamp) {
        if let Some(hold) = self.hold.as_mut().filter(|hold| hold.kind == HoldKind::Misconfigured) {
            hold.probe_at = now;
        }
    }

    /// What the operator must know of it; `name` is the app's.
    pub fn alarms(&self, name: &str, now: Timestamp) -> Vec<Alarm> {
        let mut alarms: Vec<Alarm> = self.hold.iter().map(|hold| hold.alarm(name)).collect();
        if let Some(limit) = self.limit.as_ref().filter(|limit| limit.until > now) {
            alarms.push(Alarm {
                kind: "app_limited",
                since: limit.since,
                text: format!(
                    "app `{name}` has reached the provider's limit; nothing is sent before {}",
                    limit.until.strftime("%Y-%m-%dT%H:%M:%SZ")
                ),
            });
        }
        alarms
    }

    /// The provider has given a usable answer.
    fn answered(&mut self, outcome: Outcome, now: Timestamp) {
        if matches!(outcome, Outcome::Refreshed | Outcome::NotExtended) {
            self.limit = self.limit.take().filter(|limit| limit.until > now);
            if let Some(hold) = &mut self.hold {
                hold.app_is_well_at = Some(now);
            }
        }
        // Any verdict about a token shows that the provider is back and knows the app.
        if planted::has(Bug::CircuitNeverCloses) {
            return;
        }
        if outcome != Outcome::TooYoung && self.hold.as_ref().is_some_and(|hold| hold.kind.stops_calls()) {
            self.hold = None;
            self.leave_backlog();
            self.tally.forget_transient();
        }
    }

    fn keep_hold(&mut self, kind: HoldKind, outcome: Outcome, reason: &str, now: Timestamp) {
        match &mut self.hold {
            Some(hold) if hold.kind == kind => hold.probe_at = later(now, kind.probe_interval()),
            _ => self.hold = Some(Hold::new(kind, outcome, reason, now)),
        }
    }

    fn pause(&mut self, until: Timestamp, times: u32, now: Timestamp) {
        // One that ended long ago and was not seen to be over is another one.
        const OVER: SignedDuration = SignedDuration::from_hours(1);
        match self.limit.as_mut().filter(|limit| now.duration_since(limit.until) < OVER) {
            Some(limit) => {
                limit.until = limit.until.max(until);
                limit.times = times;
            }
            None => self.limit = Some(Limit { since: now, until, times }),
        }
        self.leave_backlog();
    }

    fn is_held_by(&self, kind: HoldKind) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hours, instant};

    fn app() -> App {
        App::new(Fingerprint::of("app"))
    }

    fn sighting(connection: usize, outcome: Outcome, scope: Option<Scope>) -> Sighting {
        Sighting {
            connection: connection.to_string(),
            outcome,
            reason: "test",
            scope,
            retry_after: None,
            usage: Usage::default(),
            is_in_a_row: true,
            life: None,
            is_repeated: false,
        }
    }

    fn seconds(count: i64) -> SignedDuration {
        SignedDuration::from_secs(count)
    }

    #[test]
    fn ten_in_a_row_without_an_answer_open_the_circuit_and_one_answer_closes_it() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut app = app();
        for n in 0..9 {
            app.learn(&sighting(n, Outcome::Transient, None), now);
        }
        assert_eq!(app.permission(now), Permission::Go(SignedDuration::ZERO));
        app.learn(&sighting(9, Outcome::Transient, None), now);
        assert_eq!(app.permission(now), Permission::Wait { outcome: Outcome::Transient, until: now + seconds(30) });
        assert!(app.disbelieves(Outcome::Transient));
        assert!(!app.disbelieves(Outcome::NeedsReconnect));

        let later = now + seconds(30);
        assert_eq!(app.permission(later), Permission::Probe);
        app.take_probe(later);
        assert_ne!(app.permission(later), Permission::Probe);
        app.learn(&sighting(3, Outcome::Transient, None), later + seconds(2));
        assert_eq!(
            app.permission(later + seconds(30)),
            Permission::Wait { outcome: Outcome::Transient, until: later + seconds(32) }
        );
        app.learn(&sighting(3, Outcome::Refreshed, None), later + seconds(40));
        assert_eq!(app.permission(later + seconds(40)), Permission::Go(SignedDuration::ZERO));
        assert!(app.has_backlog);
    }

    #[test]
    fn one_connection_that_fails_for_ever_opens_no_circuit() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut app = app();
        for _ in 0..50 {
            app.learn(&sighting(7, Outcome::Transient, None), now);
        }
        assert_eq!(app.permission(now), Permission::Go(SignedDuration::ZERO));
    }

    #[test]
    fn failures_scattered_among_successes_open_no_circuit() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut app = app();
        for n in 0..40 {
            app.learn(&Sighting { is_in_a_row: false, ..sighting(n, Outcome::Transient, None) }, now);
        }
        assert_eq!(app.permission(now), Permission::Go(SignedDuration::ZERO));
    }

    #[test]
    fn another_try_of_the_same_connections_weighs_nothing_in_the_brake() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut app = app();
        for n in 0..100 {
            let outcome = if n < 10 { Outcome::Unrecognised } else { Outcome::Refreshed };
            app.learn(&sighting(n, outcome, None), now);
        }
        for n in (0..10).cycle().take(50) {
            app.learn(&Sighting { is_repeated: true, ..sighting(n, Outcome::Unrecognised, None) }, now);
        }
        app.judge(now);
        assert_eq!(app.hold, None);
    }

    #[test]
    fn under_a_brake_what_may_pass_is_not_believed_either() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut app = app();
        for n in 0..10 {
            app.learn(&sighting(n, Outcome::NeedsReconnect, None), now);
        }
        app.judge(now);
        assert!(app.disbelieves(Outcome::NeedsReconnect) && app.disbelieves(Outcome::Transient));
        assert!(!app.disbelieves(Outcome::Unrecognised));
    }

    #[test]
    fn a_wrong_secret_holds_the_app_at_once_and_a_good_answer_lets_it_go() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut app = app();
        app.learn(&sighting(1, Outcome::Misconfigured, Some(Scope::App)), now);
        assert!(matches!(app.permission(now), Permission::Wait { outcome: Outcome::Misconfigured, .. }));
        assert!(app.holds_notices(now + hours(1000)));
        assert_eq!(app.alarms("facebook", now)[0].kind, "app_misconfigured");
        app.learn(&sighting(1, Outcome::NotExtended, None), now + hours(1));
        assert_eq!(app.hold, None);
    }

    #[test]
    fn one_damaged_token_does_not_hold_the_app() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut app = app();
        app.learn(&sighting(1, Outcome::Misconfigured, Some(Scope::Connection)), now);
        assert_eq!(app.hold, None);
    }

    #[test]
    fn the_brake_needs_ten_connections_and_a_fifth_of_those_tried() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut small = app();
        for n in 0..9 {
            small.learn(&sighting(n, Outcome::NeedsReconnect, Some(Scope::Connection)), now);
        }
        small.judge(now);
        assert_eq!(small.hold, None);

        let mut sparse = app();
        for n in 0..51 {
            sparse.learn(&sighting(100 + n, Outcome::Refreshed, None), now);
        }
        for n in 0..12 {
            sparse.learn(&sighting(n, Outcome::NeedsReconnect, Some(Scope::Connection)), now);
        }
        sparse.judge(now);
        assert_eq!(sparse.hold, None);

        sparse.learn(&sighting(12, Outcome::NeedsReconnect, Some(Scope::Connection)), now);
        sparse.judge(now);
        assert!(sparse.disbelieves(Outcome::NeedsReconnect));
        assert_eq!(sparse.permission(now), Permission::Go(SignedDuration::ZERO), "calls go on");
    }

    #[test]
    fn the_brake_lets_go_after_an_hour_when_the_app_is_well_and_after_a_day_at_the_latest() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut app = app();
        for n in 0..20 {
            app.learn(&sighting(n, Outcome::NeedsReconnect, Some(Scope::Connection)), now);
        }
        app.judge(now);
        assert!(app.hold.is_some());
        app.judge(now + hours(2));
        assert!(app.hold.is_some(), "nothing shows that the app is well");
        let mut braked = app.clone();
        braked.judge(now + hours(24));
        assert_eq!(braked.hold, None);

        app.learn(&sighting(99, Outcome::Refreshed, None), now + hours(2));
        app.judge(now + hours(2));
        assert_eq!(app.hold, None);
        for n in 0..20 {
            app.learn(&sighting(n, Outcome::NeedsReconnect, Some(Scope::Connection)), now + hours(2));
        }
        app.judge(now + hours(2));
        assert_eq!(app.hold, None, "what was held and let go is believed");
    }

    #[test]
    fn what_a_brake_holds_is_sent_again_after_a_quarter_of_its_age_and_once_for_all_replicas() {
        let now = instant("2026-11-23T03:00:00Z");
        let minutes = |count: i64| now + SignedDuration::from_mins(count);
        let mut app = app();
        assert!(!app.take_turn(now) && !app.is_braked(), "without a brake there is no turn to take");
        for n in 0..20 {
            app.learn(&sighting(n, Outcome::NeedsReconnect, Some(Scope::Connection)), now);
        }
        app.judge(now);
        assert!(app.is_braked());
        let turns: Vec<i64> = (0..600).filter(|minute| app.take_turn(minutes(*minute))).collect();
        assert_eq!(turns[..6], [15, 30, 45, 60, 80, 107], "{turns:?}");
        assert!(
            turns.windows(2).all(|pair| pair[1] - pair[0] <= 60) && !app.take_turn(minutes(turns[turns.len() - 1]))
        );
    }

    #[test]
    fn a_limit_stops_the_app_for_the_time_told_or_for_one_hour_doubling_to_six() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut app = app();
        let mut told = sighting(1, Outcome::RateLimited, Some(Scope::App));
        told.retry_after = Some(seconds(90));
        app.learn(&told, now);
        assert_eq!(app.permission(now), Permission::Wait { outcome: Outcome::RateLimited, until: now + seconds(90) });
        assert_eq!(app.permission(now + seconds(90)), Permission::Go(SignedDuration::ZERO));
        let mut at = now + hours(1);
        for expected in [2, 4, 6, 6] {
            app.learn(&sighting(1, Outcome::RateLimited, Some(Scope::App)), at);
            let until = at + hours(expected);
            assert_eq!(app.permission(at), Permission::Wait { outcome: Outcome::RateLimited, until });
            at = until;
        }
        app.learn(&sighting(1, Outcome::Refreshed, None), at);
        assert_eq!(app.limit, None);
    }

    #[test]
    fn a_provider_that_limits_and_asks_for_nothing_is_left_alone_for_longer_each_time() {
        let mut at = instant("2026-11-23T03:00:00Z");
        let mut app = app();
        let told = Sighting { retry_after: Some(seconds(1)), ..sighting(1, Outcome::RateLimited, Some(Scope::App)) };
        let mut calls = 0;
        for _ in 0..360 {
            if matches!(app.permission(at), Permission::Go(_)) {
                app.learn(&told, at);
                calls += 1;
            }
            at += seconds(5);
        }
        assert!(calls < 15, "{calls} calls in half an hour");
    }

    #[test]
    fn what_another_replica_puts_off_meanwhile_stays_to_be_sent() {
        let mut app = app();
        app.leave_backlog();
        let begun = app.times_put_off;
        let mut meanwhile = app.clone();
        app.end_backlog(begun);
        assert!(!app.has_backlog);
        meanwhile.leave_backlog();
        meanwhile.end_backlog(begun);
        assert!(meanwhile.has_backlog);
    }

    #[test]
    fn a_limit_on_one_connection_does_not_stop_the_app() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut app = app();
        app.learn(&sighting(1, Outcome::RateLimited, Some(Scope::Connection)), now);
        assert_eq!(app.permission(now), Permission::Go(SignedDuration::ZERO));
    }
}
