//! The sandbox as a whole: its app, its paths, its log, and that it is a function of what it is given.

use proptest::prelude::*;

use super::fixture::{at, error, exchange, inspection, json, meta, refresh};
use super::*;

#[test]
fn a_wrong_app_is_told_in_metas_words() {
    let meta = Sandbox::new(SandboxSettings {
        app_id: Some("1".into()),
        app_secret: Some("s".into()),
        ..SandboxSettings::default()
    });
    let with = |name: &str, value: &str| {
        let mut request = exchange("EAA-ok-1");
        request.form.iter_mut().filter(|(key, _)| key == name).for_each(|(_, old)| *old = value.into());
        let reply = meta.answer(&request, at(0));
        let message = json(&reply)["error"]["message"].as_str().unwrap_or_default().to_owned();
        (reply.status, json(&reply)["error"]["code"].as_u64(), message)
    };
    assert_eq!(with("client_id", ""), (400, Some(101), "Missing client_id parameter.".into()));
    let wrong_id = (400, Some(101), "Error validating application. Invalid application ID.".into());
    assert_eq!(with("client_id", "2"), wrong_id);
    let wrong_secret = (400, Some(1), "Error validating client secret.".to_owned());
    assert_eq!(with("client_secret", ""), wrong_secret);
    assert_eq!(with("client_secret", "t"), wrong_secret);
    let no_token = (400, Some(1), "fb_exchange_token parameter not specified".into());
    assert_eq!(with("fb_exchange_token", ""), no_token);
    assert_eq!(with("grant_type", ""), (400, Some(191), "Missing redirect_uri parameter.".into()));
    assert_eq!(with("client_id", "1"), (200, None, String::new()));
}

#[test]
fn client_credentials_give_the_app_token() {
    let form = [("grant_type", "client_credentials"), ("client_id", "1"), ("client_secret", "s")];
    let reply = meta().answer(&Request::post("/oauth/access_token", &form), at(0));
    assert_eq!(reply.body, br#"{"access_token":"1|s","token_type":"bearer"}"#);
}

#[test]
fn an_unknown_path_is_told_by_its_name() {
    for path in ["/v26.0/me", "/", "", "/__log"] {
        assert_eq!(error(&meta().answer(&Request::get(path, &[]), at(0)), 400), (Some(2500), None));
    }
    let reply = meta().answer(&Request::get("/v26.0/unknown", &[]), at(0));
    assert_eq!(json(&reply)["error"]["message"], "Unknown path components: /unknown");
}

#[test]
fn headers_are_those_of_meta() {
    let reply = meta().answer(&exchange("EAA-dead-460-1"), at(0));
    assert_eq!(reply.header("facebook-api-version"), Some("v26.0"));
    assert_eq!(reply.header("content-type"), Some("application/json; charset=UTF-8"));
    assert!(reply.header("x-fb-trace-id").is_some_and(|id| id.len() == 11));
    assert!(reply.header("www-authenticate").is_some_and(|text| text.contains("\"invalid_token\"")));
    assert_eq!(meta().answer(&refresh("IG-ok-1"), at(0)).header("facebook-api-version"), None);
}

#[test]
fn the_same_seed_and_calls_give_the_same_bytes() {
    let story = |seed| {
        let shares = Shares::parse("dead=20,flaky=20,stuck=20,rotate=10").unwrap();
        let meta = Sandbox::new(SandboxSettings { seed, shares, ..SandboxSettings::default() });
        let mut bytes = Vec::new();
        for call in 0..200 {
            let name = format!("EAAB{}", call % 40);
            for request in [exchange(&name), inspection(&name)] {
                let reply = meta.answer(&request, at(call));
                bytes.extend(reply.headers.into_iter().flat_map(|(name, value)| [name, value]));
                bytes.push(String::from_utf8(reply.body).unwrap());
            }
        }
        bytes.push(meta.log());
        bytes.concat()
    };
    assert_eq!(story(7), story(7));
    assert_ne!(story(7), story(8));
}

#[test]
fn the_order_of_other_tokens_calls_does_not_matter() {
    let answers = |order: [&str; 3]| {
        let meta = meta();
        let mut answers = order.map(|token| (token.to_owned(), meta.answer(&refresh(token), at(0)).body));
        answers.sort();
        answers
    };
    let names = ["EAA-flaky-1", "IG-dead-460-1", "TH-ok-1"];
    assert_eq!(answers(names), answers([names[2], names[0], names[1]]));
}

#[test]
fn latency_comes_on_top() {
    let latency = Duration::from_millis(50);
    let meta = Sandbox::new(SandboxSettings { latency, ..SandboxSettings::default() });
    assert_eq!(meta.answer(&refresh("EAA-ok-1"), at(0)).delay.as_millis(), 50);
    assert_eq!(meta.answer(&refresh("EAA-slow-200-1"), at(0)).delay.as_millis(), 250);
}

#[test]
fn log_and_counts_show_no_token() {
    let meta = meta();
    let tokens = ["EAA-ok-1", "IG-dead-458-1", "EAABplain"];
    tokens.iter().for_each(|token| drop(meta.answer(&refresh(token), at(0))));
    meta.answer(&inspection("EAA-ok-1~1"), at(0));
    meta.answer(&Request::get("/me", &[("access_token", "EAA-ok-1")]), at(0));
    let (log, stats) = (meta.log(), meta.stats());
    assert!(tokens.iter().all(|token| !log.contains(token) && !format!("{stats:?}").contains(token)));
    assert!(log.contains(Fingerprint::of("EAABplain").as_str()));
    assert!(log.contains(r#""endpoint":"ig_refresh","behaviour":"dead-458""#));
    assert_eq!((stats.calls, stats.tokens_seen, stats.by_status[&200]), (5, 3, 3));
    assert_eq!((stats.by_endpoint["exchange"], stats.by_endpoint["other"]), (2, 1));
    assert_eq!((stats.by_behaviour["ok"], stats.by_behaviour["dead"]), (3, 1));
}

fn word() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "EAA",
        "IG",
        "TH",
        "dead",
        "460",
        "463",
        "stuck",
        "flaky",
        "html500",
        "limited",
        "young",
        "slow",
        "4294967296",
        "notoken",
        "rotate",
        "exp0",
        "exp9999999999",
        "exp1",
        "~1",
        "~4294967295",
        "|",
        "",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => any::<String>()]
}

fn value() -> impl Strategy<Value = String> {
    let grants = prop::sample::select(vec![
        "fb_exchange_token",
        "ig_refresh_token",
        "th_refresh_token",
        "client_credentials",
        "1|s",
        "EAA-rotate-1",
    ]);
    prop_oneof![grants.prop_map(str::to_owned), prop::collection::vec(word(), 0..5).prop_map(|all| all.join("-"))]
}

fn parameters() -> impl Strategy<Value = Vec<(String, String)>> {
    let names = prop::sample::select(vec![
        "grant_type",
        "client_id",
        "client_secret",
        "fb_exchange_token",
        "access_token",
        "input_token",
    ]);
    prop::collection::vec((names.prop_map(str::to_owned), value()), 0..8)
}

fn path() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "/oauth/access_token",
        "/v26.0/oauth/access_token",
        "/refresh_access_token",
        "/v1.0/debug_token",
        "/v.",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => any::<String>()]
}

proptest! {
    #[test]
    fn no_request_panics(
        calls in prop::collection::vec(
            (
                prop::sample::select(vec!["GET", "POST", "PUT", "é"]), path(), parameters(), parameters(),
                prop::option::of(prop_oneof![Just("Bearer 1|s".to_owned()), any::<String>()]),
                prop_oneof![
                    0_i64..4_000_000_000,
                    Timestamp::MIN.as_second()..=Timestamp::MAX.as_second(),
                ],
            ),
            1..6,
        ),
        right_id in any::<bool>(),
    ) {
        let meta = Sandbox::new(SandboxSettings {
            shares: Shares::parse("dead=30,stuck=30").unwrap(),
            app_id: right_id.then(|| "1".to_owned()),
            untold_life: Duration::MAX,
            ..SandboxSettings::default()
        });
        for (method, path, query, form, authorization, second) in calls {
            let request = Request { method: method.to_owned(), path, query, form, authorization };
            let reply = meta.answer(&request, Timestamp::from_second(second).unwrap());
            prop_assert!((200..=500).contains(&reply.status));
            prop_assert!(reply.header("content-type").is_some());
            let is_json = serde_json::from_slice::<serde_json::Value>(&reply.body).is_ok();
            prop_assert!(is_json || reply.body.starts_with(b"<!DOCTYPE"));
        }
    }
}
