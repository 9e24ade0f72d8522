use super::*;
use crate::answer::{Answer, NoAnswer, NoAnswerKind, judge, judge_no_answer};
use crate::testing::{connection, hours, instant};

const TERMS: Terms = Terms {
    class: Class::Extend,
    window: SignedDuration::from_hours(7 * 24),
    insist: false,
    looks_after: true,
    usual_life: None,
    needs_refresh_token: false,
};

fn now() -> Timestamp {
    instant("2026-11-23T03:00:00Z")
}

fn answer(endpoint: Endpoint, status: u16, body: &str) -> Verdict {
    judge(endpoint, &Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec(), truncated: false }, now())
}

fn granted(endpoint: Endpoint, expires: &str) -> Verdict {
    answer(endpoint, 200, &format!(r#"{{"access_token":"EAA-new"{expires}}}"#))
}

fn refused(endpoint: Endpoint) -> Verdict {
    answer(
        endpoint,
        400,
        r#"{"error":{"message":"Error validating access token: The session has been invalidated because the user changed their password.","type":"OAuthException","code":190,"error_subcode":460}}"#,
    )
}

fn outage(endpoint: Endpoint) -> Verdict {
    answer(endpoint, 500, "<html>oops</html>")
}

fn debugged(rest: &str) -> Verdict {
    answer(Endpoint::DebugToken, 200, &format!(r#"{{"data":{{"app_id":"1","type":"USER",{rest}}}}}"#))
}

fn call(step: Step) -> Call {
    match step {
        Step::Call(call) => call,
        Step::Conclude(conclusion) => panic!("concluded: {conclusion:?}"),
    }
}

fn conclusion(step: Step) -> Conclusion {
    match step {
        Step::Conclude(conclusion) => conclusion,
        Step::Call(call) => panic!("calls {:?}", call.endpoint),
    }
}

/// Begins with a token that expires in `days`, and takes the verdicts in turn. Returns the endpoints called,
/// the waits in seconds, and the conclusion.
fn play(token: &str, days: Option<i64>, verdicts: Vec<Verdict>) -> (Vec<Endpoint>, Vec<i64>, Conclusion) {
    let row = connection(token, days.map(|days| now() + hours(24 * days)));
    let (mut exchange, mut step) = Exchange::begin(&row, TERMS, now());
    let (mut endpoints, mut waits) = (Vec::new(), Vec::new());
    for verdict in verdicts {
        let next = call(step);
        endpoints.push(next.endpoint);
        waits.push(next.after.as_secs());
        step = exchange.answered(verdict, now(), now());
    }
    (endpoints, waits, conclusion(step))
}

#[test]
fn each_grant_has_its_endpoint_and_its_token() {
    for (token, endpoint) in
        [("EAA-1", Endpoint::Exchange), ("IG-1", Endpoint::IgRefresh), ("TH-1", Endpoint::ThRefresh)]
    {
        let (_, step) = Exchange::begin(&connection(token, Some(now() + hours(48))), TERMS, now());
        let call = call(step);
        assert_eq!((call.endpoint, call.token.expose()), (endpoint, token));
        assert!(call.after.is_zero() && !call.is_retry);
    }
}

#[test]
fn the_new_life_is_counted_from_before_the_request() {
    let row = connection("IG-1", Some(now() + hours(48)));
    let (mut exchange, _) = Exchange::begin(&row, TERMS, now());
    let verdict = granted(Endpoint::IgRefresh, r#","expires_in":5183944"#);
    let done = conclusion(exchange.answered(verdict, now(), now() + hours(1)));
    assert_eq!(done.outcome, Outcome::Refreshed);
    assert_eq!(done.expires_at, Some(now() + SignedDuration::from_secs(5_183_944)));
    assert_eq!(done.token.unwrap().expose(), "EAA-new");
}

#[test]
fn an_expiry_that_did_not_move_is_no_refresh_inside_14_days() {
    let stuck = |days: i64, more_seconds: i64| {
        let life = days * 86_400 + more_seconds;
        play("EAA-1", Some(days), vec![granted(Endpoint::Exchange, &format!(r#","expires_in":{life}"#))]).2.outcome
    };
    assert_eq!(stuck(5, 0), Outcome::NotExtended);
    assert_eq!(stuck(5, 3600), Outcome::NotExtended);
    assert_eq!(stuck(5, 3601), Outcome::Refreshed);
    assert_eq!(stuck(20, 0), Outcome::Refreshed);
}

#[test]
fn a_token_without_a_date_is_dated_by_debug_token() {
    let at = now() + hours(60 * 24);
    let dated =
        debugged(&format!(r#""is_valid":true,"expires_at":{},"data_access_expires_at":1776000000"#, at.as_second()));
    for absent in ["", r#","expires_in":null"#, r#","expires_in":"""#] {
        let (endpoints, _, done) = play("EAA-1", Some(2), vec![granted(Endpoint::Exchange, absent), dated.clone()]);
        assert_eq!(endpoints, [Endpoint::Exchange, Endpoint::DebugToken]);
        assert_eq!((done.outcome, done.expires_at), (Outcome::Refreshed, Some(at)), "{absent}");
        assert_eq!(done.data_access_ends_at.map(Timestamp::as_second), Some(1_776_000_000));
    }
}

#[test]
fn a_token_whose_date_cannot_be_known_is_stored_all_the_same() {
    let undated = || granted(Endpoint::IgRefresh, "");
    let (_, _, done) = play("IG-1", Some(2), vec![undated()]);
    assert_eq!((done.outcome, done.reason, done.expires_at), (Outcome::Unrecognised, "expiry_unknown", None));
    assert_eq!(done.token.unwrap().expose(), "EAA-new");
    for wrong in ["0", "-5", "1e18", "31536001", "\"baz\""] {
        let verdict = granted(Endpoint::Exchange, &format!(r#","expires_in":{wrong}"#));
        let (endpoints, _, done) = play("EAA-1", Some(2), vec![verdict]);
        assert_eq!(endpoints.len(), 1, "{wrong}");
        assert_eq!((done.outcome, done.reason, done.expires_at), (Outcome::Unrecognised, "expiry_unbelievable", None));
        assert!(done.token.is_some(), "{wrong}");
    }
}

#[test]
fn a_token_issued_before_the_outage_is_not_lost_by_it() {
    let verdicts = vec![granted(Endpoint::Exchange, ""), outage(Endpoint::DebugToken), outage(Endpoint::DebugToken)];
    let (_, _, done) = play("EAA-1", Some(2), verdicts);
    assert_eq!(done.outcome, Outcome::Unrecognised);
    assert!(done.token.is_some());

    let (mut exchange, _) = Exchange::begin(&connection("EAA-1", Some(now() + hours(48))), TERMS, now());
    call(exchange.answered(granted(Endpoint::Exchange, ""), now(), now()));
    let retry = call(exchange.answered(outage(Endpoint::DebugToken), now(), now()));
    assert!(retry.is_retry);
    assert!(exchange.give_up(outage(Endpoint::DebugToken)).token.is_some());
}

#[test]
fn what_may_pass_in_seconds_is_tried_twice_more() {
    let outages = || vec![outage(Endpoint::IgRefresh); 3];
    let (endpoints, waits, done) = play("IG-1", Some(2), outages());
    assert_eq!((endpoints.len(), waits), (3, vec![0, 1, 3]));
    assert_eq!(done.outcome, Outcome::Transient);

    let mut verdicts = outages();
    verdicts[1] = granted(Endpoint::IgRefresh, r#","expires_in":5183944"#);
    verdicts.pop();
    assert_eq!(play("IG-1", Some(2), verdicts).2.outcome, Outcome::Refreshed);
}

#[test]
fn a_lost_answer_is_tried_again_but_never_with_a_strict_provider() {
    let lost = || judge_no_answer(&NoAnswer { kind: NoAnswerKind::Lost, text: "reset".to_owned() });
    assert_eq!(play("IG-1", Some(2), vec![lost(), lost(), lost()]).2.outcome, Outcome::Transient);
    let row = connection("x", Some(now() + hours(1)));
    let (mut exchange, _) = Exchange::begin(&row, Terms { class: Class::Strict, ..TERMS }, now());
    assert_eq!(conclusion(exchange.answered(lost(), now(), now())).outcome, Outcome::Transient);
}

#[test]
fn a_refusal_is_believed_after_a_second_look_a_second_later() {
    let invalid = debugged(r#""is_valid":false,"error":{"code":190,"message":"invalidated","subcode":460}"#);
    let (endpoints, waits, done) = play("EAA-1", Some(2), vec![refused(Endpoint::Exchange), invalid]);
    assert_eq!((endpoints, waits), (vec![Endpoint::Exchange, Endpoint::DebugToken], vec![0, 1]));
    assert_eq!(done.outcome, Outcome::NeedsReconnect);

    let twice = vec![refused(Endpoint::IgRefresh), refused(Endpoint::IgRefresh)];
    let (endpoints, waits, done) = play("IG-1", Some(2), twice);
    assert_eq!((endpoints, waits), (vec![Endpoint::IgRefresh; 2], vec![0, 1]));
    assert_eq!(done.outcome, Outcome::NeedsReconnect);
}

#[test]
fn a_refusal_that_is_not_repeated_is_not_believed() {
    let at = (now() + hours(48)).as_second();
    let valid = debugged(&format!(r#""is_valid":true,"expires_at":{at}"#));
    let (_, _, done) = play("EAA-1", Some(2), vec![refused(Endpoint::Exchange), valid]);
    assert_eq!((done.outcome, done.reason), (Outcome::Transient, "refusal_not_confirmed"));

    let healed = vec![refused(Endpoint::IgRefresh), granted(Endpoint::IgRefresh, r#","expires_in":5183944"#)];
    assert_eq!(play("IG-1", Some(2), healed).2.outcome, Outcome::Refreshed);

    let unclear = vec![refused(Endpoint::IgRefresh), outage(Endpoint::IgRefresh), outage(Endpoint::IgRefresh)];
    assert_eq!(play("IG-1", Some(2), unclear).2.outcome, Outcome::Transient);

    let late = vec![outage(Endpoint::IgRefresh), outage(Endpoint::IgRefresh), refused(Endpoint::IgRefresh)];
    assert_eq!(play("IG-1", Some(2), late).2.outcome, Outcome::Transient, "no call is left for a second look");
}

#[test]
fn debug_token_that_cannot_tell_is_followed_by_the_refresh_itself() {
    let verdicts = vec![refused(Endpoint::Exchange), outage(Endpoint::DebugToken), refused(Endpoint::Exchange)];
    let (endpoints, _, done) = play("EAA-1", Some(2), verdicts);
    assert_eq!(endpoints, [Endpoint::Exchange, Endpoint::DebugToken, Endpoint::Exchange]);
    assert_eq!(done.outcome, Outcome::NeedsReconnect);
}

#[test]
fn a_strict_provider_is_not_asked_twice_with_a_refused_token() {
    let mut row = connection("x", Some(now() + hours(1)));
    row.grant = Grant::Oauth2;
    let (mut exchange, _) = Exchange::begin(&row, Terms { class: Class::Strict, ..TERMS }, now());
    let refused = answer(Endpoint::Oauth2, 400, r#"{"error":"invalid_grant"}"#);
    assert_eq!(conclusion(exchange.answered(refused, now(), now())).outcome, Outcome::NeedsReconnect);
}

#[test]
fn a_facebook_token_without_a_date_is_inspected_and_sent_only_inside_the_window() {
    let valid = |days: i64| {
        let at = (now() + hours(24 * days)).as_second();
        debugged(&format!(r#""is_valid":true,"expires_at":{at}"#))
    };
    let (endpoints, _, done) = play("EAA-1", None, vec![valid(30)]);
    assert_eq!(endpoints, [Endpoint::DebugToken]);
    assert_eq!((done.was_sent, done.expires_at), (false, Some(now() + hours(720))));

    let (endpoints, _, done) =
        play("EAA-1", None, vec![valid(3), granted(Endpoint::Exchange, r#","expires_in":5183944"#)]);
    assert_eq!(endpoints, [Endpoint::DebugToken, Endpoint::Exchange]);
    assert_eq!((done.was_sent, done.outcome), (true, Outcome::Refreshed));

    let (_, _, done) = play("EAA-1", None, vec![debugged(r#""is_valid":true,"expires_at":0"#)]);
    assert!(done.never_expires && !done.was_sent);
}

#[test]
fn an_instagram_token_without_a_date_is_sent_straight_away() {
    let (endpoints, _, done) = play("IG-1", None, vec![granted(Endpoint::IgRefresh, r#","expires_in":5183944"#)]);
    assert_eq!(endpoints, [Endpoint::IgRefresh]);
    assert_eq!(done.outcome, Outcome::Refreshed);
}

#[test]
fn what_cannot_be_sent_is_not_sent() {
    for (token, reason) in [("EAA\0x", "token_with_nul"), ("EAA x", "token_with_blanks")] {
        let (_, step) = Exchange::begin(&connection(token, Some(now() + hours(1))), TERMS, now());
        let done = conclusion(step);
        assert_eq!((done.outcome, done.reason, done.was_sent), (Outcome::Unrecognised, reason, false));
    }
    let mut row = connection("EAA", Some(now() + hours(1)));
    row.token_bytes = 10_000_000;
    assert_eq!(conclusion(Exchange::begin(&row, TERMS, now()).1).reason, "token_too_long");
}

#[test]
fn a_young_instagram_token_waits_until_it_is_24_hours_old() {
    let mut row = connection("IG-1", Some(now() + hours(48)));
    row.refreshed_at = Some(now() - hours(20));
    let done = conclusion(Exchange::begin(&row, TERMS, now()).1);
    assert_eq!((done.outcome, done.retry_after), (Outcome::TooYoung, Some(hours(4))));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn any_verdict() -> impl Strategy<Value = u8> {
        0..9_u8
    }

    fn verdict(kind: u8, endpoint: Endpoint) -> Verdict {
        match kind {
            0 => granted(endpoint, r#","expires_in":5183944"#),
            1 => granted(endpoint, ""),
            2 => granted(endpoint, r#","expires_in":-1"#),
            3 => refused(endpoint),
            4 => outage(endpoint),
            5 => answer(endpoint, 403, r#"{"error":{"message":"limit","code":4}}"#),
            6 => answer(endpoint, 400, r#"{"error":{"message":"Error validating client secret.","code":1}}"#),
            7 => answer(endpoint, 200, r#"{"data":{"is_valid":true,"expires_at":0}}"#),
            _ => answer(endpoint, 200, "{}"),
        }
    }

    proptest! {
        #[test]
        fn it_ends_after_three_calls_and_loses_no_token(
            kinds in proptest::collection::vec(any_verdict(), 3),
            prefix in prop::sample::select(vec!["EAA", "IG", "TH"]),
            days in prop::option::of(-2..30_i64),
            strict in any::<bool>(),
        ) {
            let row = connection(&format!("{prefix}-1"), days.map(|days| now() + hours(24 * days)));
            let terms = Terms { class: if strict { Class::Strict } else { Class::Extend }, ..TERMS };
            let (mut exchange, mut step) = Exchange::begin(&row, terms, now());
            let mut was_granted = false;
            let mut sends = 0;
            for kind in kinds {
                let Step::Call(call) = &step else { break };
                sends += u8::from(call.endpoint != Endpoint::DebugToken);
                let verdict = verdict(kind, call.endpoint);
                was_granted |= verdict.granted.is_some();
                step = exchange.answered(verdict, now(), now());
            }
            let Step::Conclude(done) = step else { panic!("a fourth call") };
            prop_assert_eq!(done.token.is_some(), was_granted);
            prop_assert_eq!(done.was_sent, sends > 0);
            prop_assert!(done.outcome != Outcome::Refreshed || !done.was_sent || done.token.is_some());
            prop_assert!(!strict || sends <= 1 || !was_granted);
            if let (Outcome::Refreshed, Some(at), true) = (done.outcome, done.expires_at, done.was_sent) {
                let old = row.expires_at.unwrap_or(Timestamp::MIN);
                prop_assert!(at.duration_since(old) > NO_MOVE || old.duration_since(now()) >= due::LOOK_AHEAD);
            }
        }
    }
}
