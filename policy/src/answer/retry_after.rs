//! How long a provider asks to wait, kept within bounds that no header can leave.
//!
//! <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>

use jiff::{SignedDuration, Timestamp, fmt::rfc2822};

/// The shortest wait that is believed.
pub const WAIT_MIN: SignedDuration = SignedDuration::from_secs(1);
/// The longest wait that is believed.
pub const WAIT_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Reads the value of `Retry-After`: seconds or an HTTP date. `None` if it is neither.
pub fn parse(value: &str, now: Timestamp) -> Option<SignedDuration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return from_seconds(seconds);
    }
    let at = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(value).ok()?;
    Some(clamp(at.duration_since(now)))
}

/// A number of seconds within the bounds; `None` if it is not a number.
pub fn from_seconds(seconds: f64) -> Option<SignedDuration> {
    if seconds.is_nan() {
        return None;
    }
    let millis = seconds.clamp(WAIT_MIN.as_secs_f64(), WAIT_MAX.as_secs_f64()) * 1000.0;
    // Rounded up: a call that comes too early prolongs the block.
    Some(SignedDuration::from_millis(millis.ceil() as i64))
}

/// A wait within the bounds.
pub fn clamp(wait: SignedDuration) -> SignedDuration {
    wait.clamp(WAIT_MIN, WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_s(value: &str) -> Option<i64> {
        let now: Timestamp = "2026-11-23T18:00:00Z".parse().expect("a date");
        parse(value, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_dates_are_read() {
        assert_eq!(wait_s("120"), Some(120));
        assert_eq!(wait_s(" 30 "), Some(30));
        assert_eq!(wait_s("1.5"), Some(1));
        assert_eq!(wait_s("Mon, 23 Nov 2026 18:02:00 GMT"), Some(120));
    }

    #[test]
    fn absurd_values_stay_within_bounds() {
        assert_eq!(wait_s("0"), Some(1));
        assert_eq!(wait_s("-5"), Some(1));
        assert_eq!(wait_s("99999999999999999999"), Some(86_400));
        assert_eq!(wait_s("inf"), Some(86_400));
        assert_eq!(wait_s("Mon, 23 Nov 2020 18:02:00 GMT"), Some(1));
        assert_eq!(wait_s("Thu, 31 Dec 9998 23:59:59 GMT"), Some(86_400));
    }

    #[test]
    fn what_is_no_wait_is_none() {
        for value in ["", "soon", "NaN", "Mon, 99 Foo 2026", "12 seconds", "\u{0}"] {
            assert_eq!(wait_s(value), None, "{value:?}");
        }
    }
}
