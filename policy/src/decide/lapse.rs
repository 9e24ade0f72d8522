//! Tokens of which nobody has heard: they end, and nothing was ever concluded about them, because whoever should have
//! refreshed them could not (the provider was down, Perene was, a limit was on) or had no time to.

use super::{Context, Decision, Event, EventKind, go_dark, nothing, remember, warn};
use crate::connection::{Connection, Incident, Memory, State};
use crate::decide::NoticeKind;
use crate::due::within;
use crate::outcome::Outcome;

/// What follows for a connection whose token has ended, or ends within `refresh.warn_before`, without an incident: its
/// customer hears of it. `None` when nothing follows: it lives, what is remembered speaks for it, it can be refreshed
/// after its end too, or its app is held.
///
/// A token that has not ended is sent again as soon as its provider can be asked; success closes the incident.
pub fn lapse(row: &Connection, context: &Context<'_>) -> Option<Decision> {
    let now = context.now;
    // One that is not due yet has missed nothing.
    let ahead = context.settings.warn_before.min(context.settings.window);
    let expires_at = row.expires_at.filter(|at| within(*at, now, ahead))?;
    let is_spoken_for = row.memory_of_this_generation().is_some_and(speaks);
    if context.is_held || row.outlives_its_expiry() || is_spoken_for {
        return None;
    }
    let is_over = expires_at <= now;
    let (outcome, kind, state, text) = if is_over {
        let state = State::NeedsReconnect { reason: "expired".to_owned() };
        let text = "it expired before it could be refreshed: only the customer's login helps";
        (Outcome::NeedsReconnect, NoticeKind::NeedsReconnect, state, text)
    } else {
        let state = State::Failing { outcome: Outcome::Transient, reason: "not_reached".to_owned(), retries: 0 };
        (Outcome::Transient, NoticeKind::Failing, state, "it could not be sent for days, and expires soon")
    };
    let mut memory = remember(row, state, context);
    memory.incident = Some(Incident::open(row, outcome, now));
    memory.next_try_at = (!is_over).then_some(now);
    let mut decision = nothing(outcome);
    decision.events.push(Event { kind: EventKind::IncidentOpened, outcome: Some(outcome), text: text.to_owned() });
    warn(&mut decision, &mut memory, kind, outcome, now);
    go_dark(&mut decision, &mut memory, row, now);
    decision.memory = Some(memory);
    Some(decision)
}

/// Whether what is remembered says enough. Of what the operator has to mend no customer hears, and what never expires
/// does not, whatever the row says.
fn speaks(memory: &Memory) -> bool {
    memory.incident.is_some()
        || matches!(memory.state, State::NeverExpires | State::Waiting { outcome: Outcome::Misconfigured, .. })
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::decide::Counting;
    use crate::secret::Secret;
    use crate::settings::Settings;
    use crate::testing::{connection, hours, instant};

    fn now() -> Timestamp {
        instant("2026-11-23T03:00:00Z")
    }

    fn context() -> Context<'static> {
        Context {
            now: now(),
            settings: Settings::default(),
            counting: Counting::Never,
            next_run_at: None,
            tomorrow: now() + hours(24),
            is_held: false,
            secrets: &[],
        }
    }

    fn left(left: SignedDuration) -> Connection {
        connection("IG-1", Some(now() + left))
    }

    #[test]
    fn a_token_that_ended_unheard_of_is_told_once() {
        let mut row = left(-hours(1));
        let decision = lapse(&row, &context()).expect("it is dark");
        assert!(decision.warns && decision.flag == Some(true) && decision.write.is_none());
        let kinds: Vec<NoticeKind> = decision.notices.iter().map(|notice| notice.kind).collect();
        assert_eq!(kinds, [NoticeKind::NeedsReconnect, NoticeKind::Dark]);
        row.memory = decision.memory;
        assert_eq!(lapse(&row, &context()), None);
    }

    #[test]
    fn a_token_that_ends_soon_is_told_ahead_and_sent_when_that_is_possible() {
        let decision = lapse(&left(hours(71)), &context()).expect("it ends soon");
        assert_eq!(decision.notices.iter().map(|notice| notice.kind).collect::<Vec<_>>(), [NoticeKind::Failing]);
        let memory = decision.memory.expect("an incident is open");
        assert_eq!((memory.state.name(), memory.next_try_at), ("failing", Some(now())));
        assert_eq!(lapse(&left(hours(72)), &context()), None);
    }

    #[test]
    fn nobody_hears_of_what_is_held_or_refreshed_after_its_end_or_for_the_operator() {
        let held = Context { is_held: true, ..context() };
        assert_eq!(lapse(&left(-hours(1)), &held), None);
        let pair = Connection { refresh_token: Some(Secret::new("r")), ..left(-hours(1)) };
        assert_eq!(lapse(&pair, &context()), None);
        let state = State::Waiting { outcome: Outcome::Misconfigured, reason: "test".to_owned(), times: 0 };
        let row = left(-hours(1));
        let waits = Connection { memory: Some(Memory::of(row.generation(), state, now())), ..row };
        assert_eq!(lapse(&waits, &context()), None);
    }

    #[test]
    fn what_waited_for_its_age_and_ended_is_told_too() {
        let row = left(-hours(1));
        let state = State::Waiting { outcome: Outcome::TooYoung, reason: "test".to_owned(), times: 0 };
        let waits = Connection { memory: Some(Memory::of(row.generation(), state, now())), ..row };
        assert!(lapse(&waits, &context()).is_some_and(|decision| decision.warns));
    }
}
