//! Section `schedule`: when the daily run starts.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use perene_policy::schedule as policy;

use super::error::shown;
use super::found::Found;

/// Section `schedule`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Key `schedule.cron`, default `0 3 * * *`. A pattern that matches some moment.
    pub cron: String,
    /// Key `schedule.time_zone`, default the system's.
    pub time_zone: TimeZone,
    /// The zone's IANA name, or what stands for it where the system's has none.
    pub time_zone_name: String,
}

pub(super) fn read(found: &Found<'_>) -> Option<Schedule> {
    let cron = found.read("schedule.cron", cron);
    let zone = match found.value("schedule.time_zone") {
        Some(_) => found.read("schedule.time_zone", zone),
        None => Some(TimeZone::try_system().unwrap_or(TimeZone::UTC)),
    };
    let (cron, time_zone) = (cron?, zone?);
    let time_zone_name = time_zone.iana_name().unwrap_or("the system's zone").to_owned();
    Some(Schedule { cron, time_zone, time_zone_name })
}

fn cron(text: &str) -> Result<String, String> {
    let text = text.trim();
    // Any moment serves as a start: what never comes after it never comes.
    policy::Schedule::parse(text, TimeZone::UTC, Timestamp::UNIX_EPOCH).map_err(|error| {
        format!("must be a cron expression such as `0 3 * * *`, not `{}`: {}", shown(text), shown(&error.to_string()))
    })?;
    Ok(text.to_owned())
}

fn zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text)
        .map_err(|_| format!("must be an IANA time zone such as `America/Sao_Paulo` or `UTC`, not `{}`", shown(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_must_match_some_day() {
        for good in ["0 3 * * *", "*/5 * * * *", "0 0 29 2 *", "0 3 * * MON-FRI", "@daily", "30 4 * * 0"] {
            assert!(cron(good).is_ok(), "{good}: {:?}", cron(good));
        }
        for bad in ["", "0 3 * *", "61 * * * *", "0 24 * * *", "daily", "0 0 30 2 *", "0 0 31 4 *"] {
            assert!(cron(bad).is_err(), "{bad}");
        }
        assert_eq!(
            cron("0 0 30 2 *").unwrap_err(),
            "must be a cron expression such as `0 3 * * *`, not `0 0 30 2 *`: no date fits it"
        );
    }

    #[test]
    fn a_zone_must_be_known() {
        assert_eq!(zone("America/Sao_Paulo").unwrap().iana_name(), Some("America/Sao_Paulo"));
        assert_eq!(
            zone("America/Sao_Paolo").unwrap_err(),
            "must be an IANA time zone such as `America/Sao_Paulo` or `UTC`, not `America/Sao_Paolo`"
        );
    }
}
