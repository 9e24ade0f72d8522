use super::*;
use crate::grant::Grant;
use crate::outcome::Scope;
use crate::testing::{connection, hours, instant};

fn now() -> Timestamp {
    instant("2026-11-23T03:00:00Z")
}

fn settings() -> Settings {
    Settings::default()
}

fn context(settings: &Settings) -> Context<'_> {
    Context {
        now: now(),
        settings: *settings,
        counting: Counting::Each,
        next_run_at: Some(now() + hours(24)),
        tomorrow: now() + hours(24),
        is_held: false,
        secrets: &[],
    }
}

fn row(attempts: i64) -> Connection {
    Connection { attempts, ..connection("IG-old", Some(now() + hours(6 * 24))) }
}

fn concluded(outcome: Outcome) -> Conclusion {
    Conclusion {
        was_sent: true,
        message: Some("the provider's words".to_owned()),
        ..Conclusion::unsent(outcome, "test")
    }
}

fn success() -> Conclusion {
    Conclusion {
        token: Some(Secret::new("IG-new")),
        expires_at: Some(now() + hours(60 * 24)),
        message: None,
        ..concluded(Outcome::Refreshed)
    }
}

/// Decides, and puts the decision into the row as a store would.
fn live(row: &mut Connection, conclusion: &Conclusion, context: &Context<'_>) -> Decision {
    let decision = decide(row, conclusion, context);
    if let Some(write) = &decision.write {
        row.token = write.token.clone().unwrap_or_else(|| row.token.clone());
        row.expires_at = write.expires_at.or(row.expires_at);
        row.attempts = match write.attempts {
            Attempts::Keep => row.attempts,
            Attempts::Zero => 0,
            Attempts::AddOne => row.attempts + 1,
        };
    }
    row.memory = decision.memory.clone();
    decision
}

fn kinds(decision: &Decision) -> Vec<NoticeKind> {
    decision.notices.iter().map(|notice| notice.kind).collect()
}

#[test]
fn success_writes_all_five_columns_and_remembers_nothing() {
    let settings = settings();
    let decision = decide(&row(2), &success(), &context(&settings));
    assert_eq!(
        decision.write,
        Some(RowWrite {
            token: Some(Secret::new("IG-new")),
            refresh_token: None,
            expires_at: Some(now() + hours(60 * 24)),
            refreshed_at: Some(now()),
            attempts: Attempts::Zero,
            error: ErrorText::Clear,
        })
    );
    assert_eq!((decision.memory, decision.flag, decision.recovers), (None, None, false));
    assert!(decision.notices.is_empty());
}

#[test]
fn the_third_failed_run_warns_once_and_tries_go_on() {
    let settings = settings();
    let mut row = row(0);
    let mut warned = Vec::new();
    for _ in 0..5 {
        let decision = live(&mut row, &concluded(Outcome::Transient), &context(&settings));
        warned.push(decision.warns);
        assert!(row.memory.as_ref().unwrap().next_try_at.is_some());
        if decision.warns {
            assert_eq!((decision.flag, kinds(&decision)), (Some(true), vec![NoticeKind::Failing]));
        }
    }
    assert_eq!(warned, [false, false, true, false, false]);
    assert_eq!(row.attempts, 5);
}

#[test]
fn the_apps_own_count_is_the_truth() {
    let settings = settings();
    assert!(decide(&row(2), &concluded(Outcome::Transient), &context(&settings)).warns);
    assert!(!decide(&row(1), &concluded(Outcome::Transient), &context(&settings)).warns);
    assert!(!decide(&row(-7), &concluded(Outcome::Transient), &context(&settings)).warns);
}

#[test]
fn a_try_between_runs_counts_nothing() {
    let settings = settings();
    let between = Context { counting: Counting::Never, ..context(&settings) };
    let decision = decide(&row(2), &concluded(Outcome::Transient), &between);
    assert_eq!(decision.write.unwrap().attempts, Attempts::Keep);
    assert!(!decision.warns);
}

#[test]
fn a_refusal_under_the_brake_by_a_provider_that_punishes_reuse_is_doubted_once() {
    let settings = settings();
    let held = Context { is_held: true, ..context(&settings) };
    let refused = Conclusion { sends_once: true, ..concluded(Outcome::NeedsReconnect) };
    let mut row = row(0);
    let decision = live(&mut row, &refused, &held);
    let memory = row.memory.as_ref().expect("it is remembered");
    assert!(matches!(memory.state, State::Uncertain { is_last: false, .. }), "{:?}", memory.state);
    assert!(memory.next_try_at.is_some_and(|at| at > now() + hours(4 * 24)), "not before it ends: {memory:?}");
    assert_eq!((decision.counted, row.attempts, decision.warns), (Some(Counted::Deferred), 0, false));

    let refused = Conclusion { was_last_try: true, ..refused };
    let decision = live(&mut row, &refused, &held);
    let memory = row.memory.as_ref().expect("it is remembered");
    assert!(matches!(memory.state, State::NeedsReconnect { .. }), "{:?}", memory.state);
    assert_eq!((memory.next_try_at, row.attempts, decision.warns), (Some(backoff::NEVER), 0, false));
}

#[test]
fn a_last_try_that_is_answered_with_any_error_is_the_last() {
    let settings = settings();
    let uncertain = || {
        let mut row = row(0);
        let state = State::Uncertain { sent_at: now(), reason: "answer_lost".to_owned(), is_last: false };
        row.memory = Some(Memory::of(row.token.fingerprint(), state, now()));
        row
    };
    let last = |outcome| Conclusion { sends_once: true, was_last_try: true, ..concluded(outcome) };
    let about_the_connection = |outcome| Conclusion { scope: Some(Scope::Connection), ..last(outcome) };
    for refused in [last(Outcome::Unrecognised), about_the_connection(Outcome::Misconfigured)] {
        let mut row = uncertain();
        live(&mut row, &refused, &context(&settings));
        let memory = row.memory.as_ref().expect("it is remembered");
        assert!(matches!(memory.state, State::NeedsReconnect { .. }), "{:?}", memory.state);
        assert_eq!(memory.next_try_at, Some(backoff::NEVER));
    }
    // What did not get as far as the token leaves it in doubt, and the try to be made.
    for passing in [last(Outcome::Transient), about_the_connection(Outcome::RateLimited)] {
        let mut row = uncertain();
        live(&mut row, &passing, &context(&settings));
        let memory = row.memory.as_ref().expect("it is remembered");
        assert!(matches!(memory.state, State::Uncertain { is_last: false, .. }), "{:?}", memory.state);
        assert!(memory.next_try_at.is_some_and(|at| at >= now() + SignedDuration::from_mins(45)), "{memory:?}");
    }
}

#[test]
fn of_two_runs_at_one_time_the_first_counts() {
    let settings = settings();
    let mut row = row(0);
    let run = Context { counting: Counting::OnceSince(now()), ..context(&settings) };
    for (minute, attempts) in [(0, 1), (3, 1), (5, 1)] {
        let run = Context { now: now() + SignedDuration::from_mins(minute), ..run };
        live(&mut row, &concluded(Outcome::Transient), &run);
        assert_eq!(row.attempts, attempts);
    }
    let tomorrow = now() + hours(24);
    let run = Context { now: tomorrow, counting: Counting::OnceSince(tomorrow), ..run };
    live(&mut row, &concluded(Outcome::Transient), &run);
    assert_eq!(row.attempts, 2);
}

#[test]
fn success_after_a_warning_lowers_the_flag_and_says_so() {
    let settings = settings();
    let mut row = row(2);
    live(&mut row, &concluded(Outcome::Transient), &context(&settings));
    let decision = live(&mut row, &success(), &context(&settings));
    assert_eq!((decision.flag, decision.recovers), (Some(false), true));
    assert_eq!(kinds(&decision), [NoticeKind::Recovered]);
    assert_eq!(row.attempts, 0);
}

#[test]
fn success_after_an_unwarned_failure_touches_no_flag() {
    let settings = settings();
    let mut row = row(0);
    live(&mut row, &concluded(Outcome::Transient), &context(&settings));
    let decision = live(&mut row, &success(), &context(&settings));
    assert_eq!((decision.flag, decision.recovers, kinds(&decision)), (None, true, vec![]));
}

#[test]
fn a_refusal_warns_at_once_and_is_tried_again_tomorrow() {
    let settings = settings();
    let mut row = row(0);
    let decision = live(&mut row, &concluded(Outcome::NeedsReconnect), &context(&settings));
    assert_eq!((decision.flag, kinds(&decision)), (Some(true), vec![NoticeKind::NeedsReconnect]));
    assert_eq!(row.memory.as_ref().unwrap().next_try_at, Some(now() + hours(24)));
    assert_eq!(row.attempts, 1);
}

#[test]
fn less_than_72_hours_left_warns_at_the_first_failure() {
    let settings = settings();
    let late = Connection { expires_at: Some(now() + hours(71)), ..row(0) };
    assert!(decide(&late, &concluded(Outcome::Transient), &context(&settings)).warns);
}

#[test]
fn retries_come_nearer_and_back_off_but_never_skip_a_run() {
    let settings = settings();
    let soon = Context { next_run_at: Some(now() + hours(2)), ..context(&settings) };
    let mut row = row(0);
    for _ in 0..9 {
        live(&mut row, &concluded(Outcome::Transient), &soon);
        let next = row.memory.as_ref().unwrap().next_try_at.unwrap();
        assert!(next > now() && next <= now() + hours(2), "{next}");
    }
    assert_eq!(row.memory.unwrap().next_try_at, Some(now() + hours(2)));
}

#[test]
fn what_circuit_or_brake_hold_is_not_counted_not_remembered_not_told() {
    let settings = settings();
    let held = Context { is_held: true, ..context(&settings) };
    for outcome in [Outcome::Transient, Outcome::NeedsReconnect, Outcome::Unrecognised] {
        let decision = decide(&row(2), &concluded(outcome), &held);
        assert_eq!((decision.outcome, decision.counted), (Outcome::Transient, Some(Counted::Deferred)));
        assert_eq!((decision.write, decision.memory, decision.flag), (None, None, None));
        assert!(decision.notices.is_empty());
    }
}

#[test]
fn what_waits_through_no_fault_of_the_customer_writes_nothing() {
    let settings = settings();
    for outcome in [Outcome::TooYoung, Outcome::RateLimited, Outcome::Misconfigured] {
        let decision = decide(&row(2), &concluded(outcome), &context(&settings));
        assert_eq!((decision.counted, decision.write, decision.flag), (Some(Counted::Deferred), None, None));
        assert!(decision.memory.unwrap().next_try_at.is_some_and(|at| at > now()), "{outcome}");
    }
}

#[test]
fn a_limit_on_a_connection_doubles_from_one_hour_to_six_unless_a_time_is_told() {
    let settings = settings();
    let mut row = row(0);
    let mut waits = Vec::new();
    for _ in 0..5 {
        live(&mut row, &concluded(Outcome::RateLimited), &context(&settings));
        waits.push(row.memory.as_ref().unwrap().next_try_at.unwrap().duration_since(now()).as_hours());
    }
    assert_eq!(waits, [1, 2, 4, 6, 6]);
    let told = Conclusion { retry_after: Some(hours(3)), ..concluded(Outcome::RateLimited) };
    live(&mut row, &told, &context(&settings));
    assert_eq!(row.memory.unwrap().next_try_at, Some(now() + hours(3)));
}

#[test]
fn what_is_said_of_the_app_is_not_remembered_of_each_connection() {
    let settings = settings();
    let said = Conclusion { scope: Some(Scope::App), ..concluded(Outcome::Misconfigured) };
    assert_eq!(decide(&row(0), &said, &context(&settings)).memory, None);
}

fn stuck(expires_in: SignedDuration) -> Conclusion {
    Conclusion {
        token: Some(Secret::new("EAA-same")),
        expires_at: Some(now() + expires_in),
        message: None,
        ..concluded(Outcome::NotExtended)
    }
}

#[test]
fn not_extended_is_told_at_14_7_and_3_days_and_counts_nothing() {
    let settings = settings();
    let mut row = connection("EAA-same", Some(now() + hours(14 * 24 - 1)));
    let mut told = Vec::new();
    for days in (0..14).rev() {
        let left = hours(24 * days + 12);
        row.expires_at = Some(now() + left);
        let decision = live(&mut row, &stuck(left), &context(&settings));
        told.extend(decision.notices.iter().map(|notice| (days, notice.days, decision.flag)));
        assert_eq!(decision.counted, Some(Counted::Deferred));
    }
    assert_eq!(
        told,
        [(13, Some(14), Some(true)), (6, Some(7), None), (2, Some(3), None)],
        "one notice each, and the flag from the first"
    );
    assert_eq!(row.attempts, 0);
}

#[test]
fn a_token_without_a_date_is_stored_and_the_failure_counted() {
    let settings = settings();
    let undated = Conclusion { token: Some(Secret::new("IG-new")), message: None, ..concluded(Outcome::Unrecognised) };
    let mut row = row(0);
    let decision = live(&mut row, &undated, &context(&settings));
    let write = decision.write.unwrap();
    assert_eq!((write.token, write.expires_at), (Some(Secret::new("IG-new")), None));
    assert_eq!(write.attempts, Attempts::AddOne);
    assert!(row.memory_of_this_generation().is_some(), "the memory speaks of the token that is stored now");
    let held = Context { is_held: true, ..context(&settings) };
    assert!(decide(&row, &undated, &held).write.unwrap().token.is_some(), "a hold loses no token");
}

#[test]
fn the_error_text_is_the_providers_without_secrets() {
    let settings = settings();
    let secret = [Secret::new("app-secret-0123456789")];
    let context = Context { secrets: &secret, ..context(&settings) };
    let told = Conclusion {
        message: Some(format!("bad token IG-old\n secret app-secret-0123456789 {}", "x ".repeat(300))),
        ..concluded(Outcome::Transient)
    };
    let ErrorText::Set(text) = decide(&row(0), &told, &context).write.unwrap().error else { panic!("no text") };
    assert!(!text.contains("IG-old") && !text.contains("app-secret"), "{text}");
    assert!(text.chars().count() <= 240 && !text.chars().any(char::is_control), "{text}");
}

mod time_and_the_app {
    use super::*;

    fn failing(attempts: i64, warned: bool) -> (Connection, Memory) {
        let settings = settings();
        let mut row = row(if warned { 2 } else { attempts });
        live(&mut row, &concluded(Outcome::Transient), &context(&settings));
        let memory = row.memory.clone().unwrap();
        (row, memory)
    }

    #[test]
    fn nothing_follows_while_nothing_changes() {
        let settings = settings();
        let (row, memory) = failing(0, true);
        assert_eq!(reconcile(&memory, Some(&row), &context(&settings)), None);
    }

    #[test]
    fn a_token_that_the_app_put_there_closes_the_incident() {
        let settings = settings();
        let (mut row, memory) = failing(0, true);
        row.token = Secret::new("IG-reconnected");
        let decision = reconcile(&memory, Some(&row), &context(&settings)).unwrap();
        let write = decision.write.unwrap();
        assert_eq!((write.attempts, write.error, write.token), (Attempts::Zero, ErrorText::Clear, None));
        assert_eq!((decision.flag, decision.recovers), (Some(false), true));
        assert_eq!(decision.memory.unwrap().fresh_since, Some(now()), "it is known to be young");
    }

    #[test]
    fn a_token_that_the_app_took_away_writes_nothing_into_the_row() {
        let settings = settings();
        let (mut row, memory) = failing(0, true);
        row.token = Secret::new("");
        let decision = reconcile(&memory, Some(&row), &context(&settings)).unwrap();
        assert_eq!((decision.write, decision.flag), (None, Some(false)));
    }

    #[test]
    fn a_row_that_is_gone_is_forgotten_and_lowers_its_flag() {
        let settings = settings();
        let (_, memory) = failing(0, true);
        let decision = reconcile(&memory, None, &context(&settings)).unwrap();
        assert_eq!((decision.memory, decision.write, decision.flag), (None, None, Some(false)));
        assert!(decision.notices.is_empty());
    }

    #[test]
    fn little_life_left_warns_while_nothing_is_tried() {
        let settings = settings();
        let (row, memory) = failing(0, false);
        let later = Context { now: row.expires_at.unwrap() - hours(71), ..context(&settings) };
        let decision = reconcile(&memory, Some(&row), &later).unwrap();
        assert!(decision.warns && decision.flag == Some(true));
        let held = Context { is_held: true, ..later };
        assert_eq!(reconcile(&memory, Some(&row), &held), None);
    }

    #[test]
    fn going_dark_is_said_once() {
        let settings = settings();
        let (row, memory) = failing(0, true);
        let later = Context { now: row.expires_at.unwrap(), ..context(&settings) };
        let decision = reconcile(&memory, Some(&row), &later).unwrap();
        assert_eq!(kinds(&decision), [NoticeKind::Dark]);
        assert_eq!(reconcile(&decision.memory.unwrap(), Some(&row), &later), None);
    }

    #[test]
    fn a_fresh_generation_is_remembered_for_a_day() {
        let settings = settings();
        let row = row(0);
        let mut memory = Memory::of(row.token.fingerprint(), State::Healthy, now());
        memory.fresh_since = Some(now());
        assert_eq!(reconcile(&memory, Some(&row), &context(&settings)), None);
        let later = Context { now: now() + hours(24), ..context(&settings) };
        assert_eq!(reconcile(&memory, Some(&row), &later).unwrap().memory, None);
    }
}

mod data_access {
    use super::*;

    fn inspection(end: Option<Timestamp>) -> Conclusion {
        Conclusion {
            expires_at: Some(now() + hours(50 * 24)),
            data_access_ends_at: end,
            ..Conclusion::unsent(Outcome::Refreshed, "inspected")
        }
    }

    fn facebook() -> Connection {
        connection("EAA-1", Some(now() + hours(50 * 24)))
    }

    #[test]
    fn a_refreshed_facebook_token_is_inspected_later() {
        let settings = settings();
        let memory = decide(&facebook(), &success(), &context(&settings)).memory.unwrap();
        assert_eq!((memory.state, memory.next_try_at), (State::Healthy, Some(now() + INSPECT_AFTER)));
    }

    #[test]
    fn its_end_is_told_like_an_expiry_and_a_login_closes_it() {
        let settings = settings();
        let mut row = facebook();
        let decision = live(&mut row, &inspection(Some(now() + hours(13 * 24))), &context(&settings));
        assert_eq!((decision.flag, decision.counted), (Some(true), None));
        assert_eq!(decision.notices[0].days, Some(14));
        assert_eq!(decision.notices[0].expires_at, Some(now() + hours(13 * 24)));
        let decision = live(&mut row, &inspection(Some(now() + hours(90 * 24))), &context(&settings));
        assert_eq!((decision.flag, decision.recovers, decision.memory), (Some(false), true, None));
    }

    #[test]
    fn neither_a_refresh_nor_the_end_itself_is_a_recovery() {
        let settings = settings();
        let context = context(&settings);
        let end = now() + hours(6 * 24);
        let mut row = facebook();
        live(&mut row, &inspection(Some(end)), &context);
        let told =
            row.memory.clone().and_then(|memory| memory.incident).map(|incident| (incident.id, incident.told_days));
        live(&mut row, &concluded(Outcome::NeedsReconnect), &context);
        let refreshed = live(&mut row, &success(), &context);
        assert!(!refreshed.recovers && refreshed.flag.is_none() && refreshed.notices.is_empty());
        let memory = row.memory.clone().expect("remembered");
        assert_eq!((memory.state, memory.data_access_ends_at), (State::NotExtended, Some(end)));
        assert_eq!(memory.incident.map(|incident| (incident.id, incident.told_days)), told);

        let later = Context { now: end + hours(24), ..context };
        let ended = live(&mut row, &inspection(Some(end)), &later);
        assert!(!ended.recovers && row.memory.as_ref().is_some_and(|memory| memory.incident.is_some()));
        let login = live(&mut row, &inspection(Some(end + hours(90 * 24))), &later);
        assert!(login.recovers && row.memory.is_none());
    }

    #[test]
    fn a_login_that_nobody_has_seen_yet_opens_it_again() {
        let settings = settings();
        let context = context(&settings);
        let mut row = facebook();
        live(&mut row, &inspection(Some(now() + hours(6 * 24))), &context);
        row.token = Secret::new("EAA-of-the-login");
        let refreshed = live(&mut row, &success(), &context);
        assert!(refreshed.recovers);
        assert!(row.memory.is_none_or(|memory| memory.incident.is_none()));
    }

    #[test]
    fn who_was_never_told_is_not_told_of_an_end_that_is_past() {
        let settings = settings();
        let decision = decide(&facebook(), &inspection(Some(now() - hours(24))), &context(&settings));
        assert!(decision.memory.is_none() && decision.notices.is_empty());
    }

    #[test]
    fn an_end_before_the_next_refresh_is_looked_at_14_days_ahead() {
        let settings = settings();
        let end = now() + hours(30 * 24);
        let memory = decide(&facebook(), &inspection(Some(end)), &context(&settings)).memory.unwrap();
        assert_eq!(memory.next_try_at, Some(end - due::LOOK_AHEAD));
    }

    #[test]
    fn an_end_after_the_token_is_none_of_our_business_yet() {
        let settings = settings();
        assert_eq!(decide(&facebook(), &inspection(Some(now() + hours(80 * 24))), &context(&settings)).memory, None);
        assert_eq!(decide(&facebook(), &inspection(None), &context(&settings)).memory, None);
    }
}

#[test]
fn an_intent_that_was_not_sent_leaves_what_was_there_before() {
    let settings = settings();
    let context = context(&settings);
    let before = row(0);
    let mut row = before.clone();
    row.memory = intent(&row, false, &context).memory;
    assert_eq!(take_back(&before, &row, &context).memory, None);
}

#[test]
fn an_incident_that_was_opened_over_an_intent_lives_until_the_next_try_closes_it() {
    let settings = settings();
    let context = context(&settings);
    let before = Connection { expires_at: Some(now() + hours(48)), ..row(0) };
    let mut row = before.clone();
    row.memory = intent(&row, false, &context).memory;
    // Somebody looked while nobody held it, and warned the customer.
    let looked = reconcile(row.memory.as_ref().expect("an intent"), Some(&row), &context).expect("it is told");
    assert!(looked.warns);
    row.memory = looked.memory;

    let back = take_back(&before, &row, &context);
    assert!(!back.recovers && back.flag.is_none());
    row.memory = back.memory;
    let memory = row.memory.as_ref().expect("the incident is remembered");
    assert_eq!((memory.state.name(), memory.next_try_at), ("failing", Some(now())), "it is due at once");
    let done = decide(&row, &success(), &context);
    assert!(done.recovers && done.flag == Some(false));
}

#[test]
fn another_refresh_token_under_the_same_access_token_ends_what_was_wrong() {
    let settings = settings();
    let context = context(&settings);
    let mut row = Connection { refresh_token: Some(Secret::new("r-0")), grant: Grant::Oauth2, ..row(0) };
    live(&mut row, &Conclusion { sends_once: true, ..concluded(Outcome::NeedsReconnect) }, &context);
    assert!(reconcile(row.memory.as_ref().expect("remembered"), Some(&row), &context).is_none());
    row.refresh_token = Some(Secret::new("r-1"));
    assert!(row.memory_of_this_generation().is_none());
    let replaced = reconcile(row.memory.as_ref().expect("remembered"), Some(&row), &context).expect("it is seen");
    assert!(replaced.recovers && replaced.flag == Some(false));
}

#[test]
fn another_access_token_beside_a_refresh_token_that_may_be_spent_changes_nothing_of_that() {
    let settings = settings();
    let context = context(&settings);
    let mut row = Connection { refresh_token: Some(Secret::new("r-0")), grant: Grant::Oauth2, ..row(0) };
    row.memory = intent(&row, false, &context).memory;
    (row.token, row.expires_at) = (Secret::new("by the app"), Some(now() + hours(40 * 24)));
    assert!(row.memory_of_this_generation().is_none() && row.memory_of_this_refresh_token().is_some());
    let moved = reconcile(row.memory.as_ref().expect("remembered"), Some(&row), &context).expect("it is seen");
    assert!(!moved.recovers && moved.notices.is_empty());
    row.memory = moved.memory;
    let memory = row.memory_of_this_generation().expect("it speaks of the new pair");
    assert!(matches!(memory.state, State::Uncertain { is_last: false, .. }));
    assert_eq!(memory.next_try_at, Some(now() + hours(39 * 24)), "the last try is made in the last day");
    assert!(reconcile(memory, Some(&row), &context).is_some_and(|opened| opened.memory.is_some()));
}

#[test]
fn an_answer_that_waits_in_a_journal_needs_no_last_try_and_no_customer() {
    let settings = settings();
    let context = context(&settings);
    let mut row = Connection { refresh_token: Some(Secret::new("r-0")), grant: Grant::Oauth2, ..row(0) };
    let kept = Conclusion { sends_once: true, is_answer_kept: true, ..concluded(Outcome::Unrecognised) };
    let decision = live(&mut row, &kept, &context);
    assert!(!decision.warns && decision.write.is_some_and(|write| write.attempts == Attempts::AddOne));
    let memory = row.memory.clone().expect("remembered");
    assert!(matches!(memory.state, State::Uncertain { is_last: true, .. }));
    assert_eq!(reconcile(&memory, Some(&row), &context), None, "nothing becomes of it by itself");
    let late = Context { now: now() + hours(4 * 24), ..context };
    let warned = reconcile(&memory, Some(&row), &late).expect("the end is near");
    assert!(warned.warns, "what cannot be stored for days ends all the same");
}

#[test]
fn what_is_refused_stays_refused_when_the_daily_look_meets_a_limit() {
    let settings = settings();
    let context = context(&settings);
    let mut row = row(0);
    live(&mut row, &concluded(Outcome::NeedsReconnect), &context);
    let limited = Conclusion { scope: Some(Scope::Connection), ..concluded(Outcome::RateLimited) };
    live(&mut row, &limited, &context);
    let memory = row.memory.expect("remembered");
    assert_eq!((memory.state.name(), memory.next_try_at), ("needs_reconnect", Some(context.tomorrow)));
}

#[test]
fn what_a_brake_holds_comes_up_again_in_an_hour_or_in_a_quarter_of_what_is_left() {
    let settings = settings();
    let calm = context(&settings);
    let held = Context { is_held: true, ..calm };
    let next = |left: i64| {
        let mut row = Connection { expires_at: Some(now() + hours(left)), ..row(0) };
        live(&mut row, &concluded(Outcome::NeedsReconnect), &calm);
        row.memory.as_mut().expect("remembered").next_try_at = Some(now());
        let decision = live(&mut row, &Conclusion { is_held: true, ..concluded(Outcome::NeedsReconnect) }, &held);
        assert_eq!(decision.counted, Some(Counted::Deferred));
        row.memory.and_then(|memory| memory.next_try_at).map(|at| at.duration_since(now()).as_mins())
    };
    assert_eq!((next(100), next(2)), (Some(60), Some(30)));
}

#[test]
fn a_token_of_hours_whose_life_is_not_known_does_not_warn_with_its_first_failure() {
    let settings = settings();
    let context = context(&settings);
    let left = |minutes: i64, refresh_token: Option<&str>| Connection {
        refresh_token: refresh_token.map(Secret::new),
        grant: Grant::Oauth2,
        expires_at: Some(now() + SignedDuration::from_mins(minutes)),
        refreshed_at: None,
        ..row(0)
    };
    let warns = |row: &Connection| decide(row, &concluded(Outcome::Transient), &context).warns;
    assert!(!warns(&left(14, Some("r-0"))));
    assert!(!warns(&left(23 * 60, Some("r-0"))));
    assert!(warns(&left(5, Some("r-0"))), "little is left of an hour too");
    assert!(warns(&left(14, None)), "without a refresh token it ends with its expiry");
}
