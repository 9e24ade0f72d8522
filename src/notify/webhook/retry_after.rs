//! Reads how long a receiver asks to be left alone.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderMap, RETRY_AFTER};

const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Seconds or a date ([RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)), at most a day;
/// zero where there is none.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Duration {
    let Some(text) = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim) else {
        return Duration::ZERO;
    };
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => jiff::fmt::rfc2822::parse(text)
            .map(|date| date.timestamp().duration_since(now))
            .ok()
            .and_then(|wait: SignedDuration| Duration::try_from(wait).ok())
            .unwrap_or_default(),
    };
    wait.min(RETRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-23T06:00:05Z".parse().unwrap()
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_clamped() {
        for (text, seconds) in [
            ("0", 0),
            ("90", 90),
            ("99999999", 86_400),
            ("Mon, 23 Nov 2026 06:01:05 GMT", 60),
            ("Mon, 23 Nov 2020 06:01:05 GMT", 0),
            ("Fri, 23 Nov 2040 06:01:05 GMT", 86_400),
            ("-5", 0),
            ("soon", 0),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now()), Duration::from_secs(seconds), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now()), Duration::ZERO);
    }
}
