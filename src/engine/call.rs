//! One call: how it is sent, what its answer means, and what comes next for the connection.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use jiff::Timestamp;
use perene_policy::answer::{self, Answer, NoAnswer, NoAnswerKind, Verdict};
use perene_policy::app::Permission;
use perene_policy::{Call, Connection, Exchange, Outcome, Step};

use super::driver::{Driver, Work, std_duration};
use crate::failpoint::fail_at;
use crate::journal::Entry;

/// A call that still hangs so long after the stop was asked for is given up, as its deadline would have done a
/// moment later: what the others brought must still be written before the time to stop is over.
const LAST_CALL: Duration = Duration::from_secs(29);

/// A connection whose call is to be made, or is under way.
pub(super) struct InFlight {
    pub(super) page: usize,
    pub(super) connection: Connection,
    pub(super) exchange: Exchange,
    pub(super) call: Call,
    /// What the call before was answered.
    pub(super) verdict: Option<Verdict>,
}

impl Driver<'_> {
    /// Makes the next call for a connection, unless its app may no longer be called: calling while limited
    /// prolongs the limit, and while the provider is down it helps nobody.
    pub(super) fn go_on(&mut self, mut in_flight: Box<InFlight>) {
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

    /// Whether what was about to be called when its intent was written may still be.
    pub(super) fn may_still_be_called(&self, in_flight: &InFlight) -> bool {
        let name = self.app_name(in_flight.connection.grant).unwrap_or_default();
        let permission = self.engine.apps.permission(&name, self.now());
        let is_free = matches!(permission, Permission::Go(_)) && self.engine.hindrance(self.order.source).is_none();
        !self.stop.is_set() && (self.order.is_probe || is_free)
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

    pub(super) fn called(&mut self, in_flight: Box<InFlight>, sent_at: Timestamp, result: Result<Answer, NoAnswer>) {
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
    pub(super) fn answered(&mut self, mut in_flight: Box<InFlight>, verdict: Verdict, sent_at: Timestamp) {
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

    pub(super) fn waits_no_more(&mut self, in_flight: &InFlight) {
        if let Some(waiting) = self.waiting.get_mut(&in_flight.connection.grant) {
            *waiting -= 1;
        }
    }

    fn must_not_repeat(&self, name: &str, now: Timestamp) -> bool {
        self.order.is_probe
            || self.stop.is_set()
            || !matches!(self.engine.apps.permission(name, now), Permission::Go(_))
    }
}
