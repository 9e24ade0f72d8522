//! What must hold for any bytes, any status and any headers.

use jiff::{SignedDuration, Timestamp};
use perene_policy::Outcome;
use perene_policy::answer::{
    Answer, Endpoint, Expires, Verdict, customer_action, is_error_shape, judge, operator_action, plausible,
};
use perene_policy::redact::{CHARS_MAX, REDACTED, for_row};
use proptest::prelude::*;

const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

fn endpoint() -> impl Strategy<Value = Endpoint> {
    prop::sample::select(Endpoint::ALL.to_vec())
}

/// Values that providers never send and attackers do.
fn odd_value() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "0",
            "-1",
            "1e18",
            "1e999",
            "\"\"",
            "\"baz\"",
            "\"null\"",
            "\"5184000\"",
            "5183944",
            "{}",
            "[]",
            "[{}]",
            "\"a b\"",
            "\"\\u0000\"",
            "\"EAAx\"",
            "\"190\"",
            "190",
            "4",
            "2",
            "463",
            "200",
            "-3",
            "9223372036854775808",
            "\"invalid_grant\"",
            "\"(#4) m\"",
            "\"(#)\"",
            "\"\\ud83d\\udd11\"",
            "[[[[]]]]",
            "{\"code\":190}",
            "{\"message\":\"Session has expired\",\"code\":\"102\",\"error_subcode\":463}",
            "{\"access_token\":\"EAAy\",\"expires_in\":7}",
            "[{\"access_token\":\"IGy\"}]",
        ])
        .prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        "[a-zA-Z0-9 %|]{0,40}".prop_map(|text| format!("\"{text}\"")),
    ]
}

/// JSON built from the keys that the readers look for, also twice and at the wrong place.
fn odd_json() -> impl Strategy<Value = Vec<u8>> {
    let key = prop::sample::select(vec![
        "access_token",
        "refresh_token",
        "expires_in",
        "expires",
        "error",
        "errors",
        "error_description",
        "error_code",
        "error_message",
        "error_type",
        "code",
        "error_subcode",
        "message",
        "type",
        "data",
        "meta",
        "is_valid",
        "is_transient",
        "expires_at",
        "issued_at",
        "status",
        "ok",
        "retry_after",
    ]);
    prop::collection::vec((key, odd_value()), 0..7).prop_map(|pairs| {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", pairs.join(",")).into_bytes()
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => odd_json(),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => "(access_token|error|expires|x)=[a-z%0-9+]{0,20}(&(expires_in|error_description)=[a-z0-9%-]{0,9})?".prop_map(String::into_bytes),
        1 => (odd_json(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut body, at, byte)| {
            let at = at.index(body.len());
            body[at] = byte;
            body
        }),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop::sample::select(vec![
        "Retry-After",
        "x-app-usage",
        "X-Page-Usage",
        "x-business-use-case-usage",
        "x-ad-account-usage",
        "WWW-Authenticate",
    ]);
    let value = prop_oneof![
        any::<String>(),
        any::<f64>().prop_map(|number| number.to_string()),
        odd_value(),
        any::<f64>().prop_map(|number| format!(
            "{{\"call_count\":{number},\"acc_id_util_pct\":100,\"reset_time_duration\":{number}}}"
        )),
        any::<i64>().prop_map(|number| format!("{{\"1\":[{{\"estimated_time_to_regain_access\":{number}}}]}}")),
        Just("Wed, 21 Oct 2015 07:28:00 GMT".to_owned()),
    ];
    prop::collection::vec((name.prop_map(str::to_owned), value), 0..4)
}

fn answer() -> impl Strategy<Value = Answer> {
    let status = prop_oneof![3 => Just(200), 1 => Just(400), 1 => any::<u16>()];
    (status, headers(), body(), prop::bool::weighted(0.05)).prop_map(|(status, headers, body, truncated)| Answer {
        status,
        headers,
        body,
        truncated,
    })
}

fn in_bounds(wait: Option<SignedDuration>) -> bool {
    wait.is_none_or(|wait| wait >= SignedDuration::from_secs(1) && wait <= SignedDuration::from_hours(24))
}

fn check(endpoint: Endpoint, answer: &Answer, verdict: &Verdict) -> Result<(), TestCaseError> {
    let refreshed = verdict.outcome == Outcome::Refreshed;
    if endpoint == Endpoint::DebugToken {
        prop_assert!(verdict.granted.is_none());
        prop_assert!(!refreshed || verdict.inspected.as_ref().is_some_and(|inspected| inspected.valid));
    } else {
        prop_assert_eq!(refreshed, verdict.granted.is_some());
    }
    prop_assert!(!refreshed || ((200..300).contains(&answer.status) && !answer.truncated));
    if let Some(granted) = &verdict.granted {
        prop_assert_eq!(plausible(granted.token.expose()), Ok(()));
        prop_assert!(granted.refresh_token.as_ref().is_none_or(|token| plausible(token.expose()).is_ok()));
        if let Expires::In(life) = granted.expires {
            prop_assert!(life > SignedDuration::ZERO && life <= YEAR);
        }
    }
    prop_assert!(in_bounds(verdict.retry_after) && in_bounds(verdict.usage.regain));
    for percent in [verdict.usage.app_percent, verdict.usage.connection_percent].into_iter().flatten() {
        prop_assert!(percent >= 0.0 && percent.is_finite());
    }
    prop_assert!(verdict.message.as_ref().is_none_or(|text| !text.is_empty() && !text.contains(char::is_control)));
    prop_assert_eq!(customer_action(verdict).is_some(), verdict.outcome == Outcome::NeedsReconnect);
    let _ = (operator_action(verdict), is_error_shape(&answer.body));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_answer_is_judged_and_nothing_doubtful_is_a_success(
        endpoint in endpoint(), answer in answer(), now in -1_000_000_000i64..4_000_000_000,
    ) {
        let now = Timestamp::from_second(now).expect("an instant");
        check(endpoint, &answer, &judge(endpoint, &answer, now))?;
    }

    #[test]
    fn a_row_never_shows_a_secret(
        before in any::<String>(), between in ".{0,200}", secrets in prop::collection::vec("[a-zA-Z0-9|%+/=_. é-]{6,40}", 1..3),
        spelling in 0..5,
    ) {
        // What stands in the replacement itself is no secret that could be kept.
        prop_assume!(secrets.iter().all(|secret| !REDACTED.contains(&secret.to_lowercase()) && secret.trim().len() > 5));
        let spelt: Vec<_> = secrets.iter().map(|secret| spell(secret, spelling)).collect();
        let message = format!("{before}{}{between}{}", spelt[0], spelt[spelt.len() - 1]);
        let known: Vec<_> = secrets.iter().map(String::as_str).collect();
        let row = for_row(&message, &known);
        prop_assert!(row.chars().count() <= CHARS_MAX);
        prop_assert!(!row.contains(char::is_control));
        for secret in &secrets {
            for spelling in 0..5 {
                prop_assert!(!row.contains(&spell(secret, spelling)), "`{}` in `{}`", spell(secret, spelling), row);
            }
        }
    }

    #[test]
    fn a_replacement_is_never_cut(length in 200usize..260) {
        let row = for_row(&format!("{} secret-of-mine and more", "x ".repeat(length / 2)), &["secret-of-mine"]);
        let rest = row.replace(REDACTED, "");
        prop_assert!(!rest.contains('[') && !rest.contains("secret"));
    }
}

/// The spellings in which a provider may echo what was sent.
fn spell(text: &str, spelling: i32) -> String {
    let escaped = |keep: fn(u8) -> bool, upper: bool| {
        text.bytes()
            .map(|byte| match byte {
                byte if keep(byte) => char::from(byte).to_string(),
                byte if upper => format!("%{byte:02X}"),
                byte => format!("%{byte:02x}"),
            })
            .collect::<String>()
    };
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match spelling {
        1 => escaped(unreserved, true),
        2 => escaped(unreserved, false),
        3 => escaped(unreserved, true).replace("%20", "+"),
        4 => escaped(|_| false, true),
        _ => text.to_owned(),
    }
}
