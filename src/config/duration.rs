//! Durations as people write them: `7d`, `72h`, `30m`, `10s`, `1d12h`.

use jiff::{SignedDuration, Span, SpanRelativeTo};

/// Reads a duration. A day is 24 hours, a week seven days; months and years are refused, and so is what is
/// negative. The error is a fragment that quotes the text.
pub fn parse(text: &str) -> Result<SignedDuration, String> {
    let wrong =
        || format!("must be a duration such as `7d`, `72h`, `30m` or `1d12h`, not `{}`", super::error::shown(text));
    let span: Span = text.trim().parse().map_err(|_| wrong())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    if duration.is_negative() { Err(wrong()) } else { Ok(duration) }
}

/// The same within bounds, both included.
pub(super) fn within(text: &str, least: &str, most: &str) -> Result<SignedDuration, String> {
    let duration = parse(text)?;
    if parse(least)? <= duration && duration <= parse(most)? {
        Ok(duration)
    } else {
        Err(format!("must be from `{least}` to `{most}`, not `{}`", super::error::shown(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_durations_in_many_ways() {
        for (text, seconds) in [
            ("7d", 604_800),
            ("72h", 259_200),
            ("30m", 1800),
            ("10s", 10),
            ("1d12h", 129_600),
            ("0s", 0),
            ("10 min", 600),
        ] {
            assert_eq!(parse(text), Ok(SignedDuration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("50ms"), Ok(SignedDuration::from_millis(50)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "7", "-7d", "7d ago", "seven days", "1 month", "1y", "7d7", "99999999999999999999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bounds_are_said() {
        assert_eq!(within("0s", "1s", "365d"), Err("must be from `1s` to `365d`, not `0s`".to_owned()));
        assert!(within("365d", "1s", "365d").is_ok());
        assert!(within("366d", "1s", "365d").is_err());
    }
}
