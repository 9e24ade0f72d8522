//! How much of its limits an app has used, from the usage headers of the Graph API; nonsense in them is no usage.
//!
//! <https://developers.facebook.com/docs/graph-api/overview/rate-limiting>

use jiff::SignedDuration;
use serde_json::Value;

use super::{Answer, retry_after};

/// Percentages of limits: 0 to 100, above 100 while the provider refuses calls.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Of the whole app, from `X-App-Usage`.
    pub app_percent: Option<f32>,
    /// Of one account or Page, the highest of the other headers.
    pub connection_percent: Option<f32>,
    /// When calls are taken again: 1 second to 24 hours.
    pub regain: Option<SignedDuration>,
}

/// Reads the usage headers of an answer.
pub fn read(answer: &Answer) -> Usage {
    let mut usage = Usage::default();
    for (name, value) in &answer.headers {
        match name.to_ascii_lowercase().as_str() {
            "x-app-usage" => raise(&mut usage.app_percent, percent(value)),
            "x-page-usage" => raise(&mut usage.connection_percent, percent(value)),
            "x-business-use-case-usage" => business(&mut usage, value),
            "x-ad-account-usage" => ad_account(&mut usage, value),
            _ => {}
        }
    }
    usage
}

fn raise(highest: &mut Option<f32>, found: Option<f32>) {
    *highest = match (*highest, found) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    };
}

/// `{"call_count":28,"total_time":25,"total_cputime":25}`: the highest counts. Also a bare `17%`.
fn percent(value: &str) -> Option<f32> {
    match serde_json::from_str::<Value>(value) {
        Ok(Value::Object(fields)) => highest(&fields),
        Ok(Value::Number(number)) => believable(number.as_f64()?),
        _ => believable(value.trim().strip_suffix('%')?.trim().parse().ok()?),
    }
}

fn highest(fields: &serde_json::Map<String, Value>) -> Option<f32> {
    let mut found = None;
    for key in ["call_count", "total_time", "total_cputime", "acc_id_util_pct"] {
        raise(&mut found, fields.get(key).and_then(Value::as_f64).and_then(believable));
    }
    found
}

fn believable(percent: f64) -> Option<f32> {
    (0.0..=100_000.0).contains(&percent).then_some(percent as f32)
}

/// `{"17841…":[{"type":"instagram","call_count":95,…,"estimated_time_to_regain_access":19}]}`, the time in minutes.
fn business(usage: &mut Usage, value: &str) {
    let Ok(Value::Object(accounts)) = serde_json::from_str(value) else { return };
    for entry in accounts.values().filter_map(Value::as_array).flatten().filter_map(Value::as_object) {
        raise(&mut usage.connection_percent, highest(entry));
        let minutes = entry.get("estimated_time_to_regain_access").and_then(Value::as_f64);
        lengthen(&mut usage.regain, minutes.map(|minutes| minutes * 60.0));
    }
}

/// `{"acc_id_util_pct":9.67,"reset_time_duration":100}`, the time in seconds. It tells when the count begins anew, so
/// it is a time to wait only for an account that has used up its share.
fn ad_account(usage: &mut Usage, value: &str) {
    let Ok(Value::Object(fields)) = serde_json::from_str(value) else { return };
    let used = highest(&fields);
    raise(&mut usage.connection_percent, used);
    if used.is_some_and(|percent| percent >= 100.0) {
        lengthen(&mut usage.regain, fields.get("reset_time_duration").and_then(Value::as_f64));
    }
}

fn lengthen(longest: &mut Option<SignedDuration>, seconds: Option<f64>) {
    let found = seconds.filter(|seconds| *seconds > 0.0).and_then(retry_after::from_seconds);
    *longest = (*longest).max(found);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(name: &str, value: &str) -> Usage {
        let headers = vec![(name.to_owned(), value.to_owned())];
        read(&Answer { status: 200, headers, body: Vec::new(), truncated: false })
    }

    #[test]
    fn the_highest_share_counts() {
        let read = usage("X-App-Usage", r#"{"call_count":28,"total_time":25,"total_cputime":91.5}"#);
        assert_eq!(read, Usage { app_percent: Some(91.5), connection_percent: None, regain: None });
        assert_eq!(usage("x-page-usage", "17%").connection_percent, Some(17.0));
    }

    #[test]
    fn regain_is_in_minutes_for_business_and_in_seconds_for_ads() {
        let value =
            r#"{"1":[{"type":"instagram","call_count":100,"estimated_time_to_regain_access":19},{"call_count":3}]}"#;
        let read = usage("x-business-use-case-usage", value);
        assert_eq!(read.connection_percent, Some(100.0));
        assert_eq!(read.regain, Some(SignedDuration::from_mins(19)));
        let read = usage("x-ad-account-usage", r#"{"acc_id_util_pct":100,"reset_time_duration":100}"#);
        assert_eq!(read.regain, Some(SignedDuration::from_secs(100)));
        assert_eq!(usage("x-ad-account-usage", r#"{"acc_id_util_pct":9.67,"reset_time_duration":100}"#).regain, None);
    }

    #[test]
    fn regain_stays_within_bounds() {
        for (minutes, expected) in [("0", None), ("-4", None), ("1e300", Some(retry_after::WAIT_MAX))] {
            let value = format!(r#"{{"1":[{{"estimated_time_to_regain_access":{minutes}}}]}}"#);
            assert_eq!(usage("x-business-use-case-usage", &value).regain, expected, "{minutes}");
        }
    }

    #[test]
    fn nonsense_is_no_usage() {
        for name in ["x-app-usage", "x-page-usage", "x-business-use-case-usage", "x-ad-account-usage"] {
            for value in
                ["{invalid:json}", "", "%", "null", "[]", "{}", r#"{"1":5}"#, r#"{"1":[5,null]}"#, "NaN%", "-3%"]
            {
                assert_eq!(usage(name, value), Usage::default(), "{name}: {value}");
            }
        }
    }
}
