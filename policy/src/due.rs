//! Which rows are sent: not those that cannot be, and not those that are too young.

use jiff::{SignedDuration, Timestamp};

use crate::answer::plausible;
use crate::connection::Connection;
use crate::grant::Grant;
use crate::planted::{self, Bug};
use crate::secret::Secret;
use crate::settings::Settings;

/// Instagram and Threads refuse to renew a token under this age.
/// <https://developers.facebook.com/docs/instagram-platform/reference/refresh_access_token>
pub const MINIMUM_AGE: SignedDuration = SignedDuration::from_hours(24);

/// Such tokens live 60 days: one that has more than this left was made less than 24 hours ago.
const LIFE_LEFT_OF_THE_YOUNG: SignedDuration = SignedDuration::from_hours(59 * 24);

/// A token whose last refresh did not move its expiry is looked at from this far ahead on.
pub const LOOK_AHEAD: SignedDuration = SignedDuration::from_hours(14 * 24);

/// So long after the expiry of its access token a connection with a refresh token is still sent: nothing tells when
/// the refresh token dies, most live for weeks or longer without use, and after downtime that lasted longer than
/// the access tokens it is all that is left.
pub const OVERDUE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Whether a token is due: `now < expires_at < now + window`, and no retry time in the future.
pub fn is_due(expires_at: Timestamp, next_try_at: Option<Timestamp>, now: Timestamp, window: SignedDuration) -> bool {
    now < expires_at && within(expires_at, now, window) && next_try_at.is_none_or(|at| at <= now)
}

/// The window of one connection, where its row tells how long the token lives: see [`Settings::for_life`].
pub fn settings_of(connection: &Connection, settings: Settings) -> Settings {
    match (connection.grant, connection.refreshed_at, connection.expires_at) {
        (Grant::Oauth2, Some(refreshed_at), Some(expires_at)) => {
            settings.for_life(expires_at.duration_since(refreshed_at))
        }
        _ => settings,
    }
}

/// The settings by which the customer of this connection is warned. Where nothing tells how long its token lives, but it
/// was made to be refreshed and has hours left, it is taken for one that lives hours: else its first failed try would
/// write to the customer.
pub fn settings_for_warning(connection: &Connection, settings: Settings, now: Timestamp) -> Settings {
    const SHORTEST: SignedDuration = SignedDuration::from_hours(1);
    const DAY: SignedDuration = SignedDuration::from_hours(24);
    let left = connection.expires_at.map(|at| at.duration_since(now)).filter(|left| *left < DAY);
    match (connection.grant, connection.refreshed_at, left) {
        (Grant::Oauth2, None, Some(left)) if connection.outlives_its_expiry() => settings.for_life(left.max(SHORTEST)),
        _ => settings_of(connection, settings),
    }
}

/// Whether `instant` lies before `now + span`; saturating, so that no date in a row can make it fail.
pub fn within(instant: Timestamp, now: Timestamp, span: SignedDuration) -> bool {
    instant.duration_since(now) < span
}

/// Why the token in this row cannot be sent at all, as a fixed word; `None` if it can.
pub fn unsendable(connection: &Connection) -> Option<&'static str> {
    if connection.token_bytes > crate::connection::TOKEN_BYTES_MAX {
        return Some("token_too_long");
    }
    let refresh_token = connection.refresh_token.as_ref().map(Secret::expose);
    match refresh_token {
        Some("") => Some("no_refresh_token"),
        Some(token) if token.len() > crate::connection::TOKEN_BYTES_MAX => Some("token_too_long"),
        Some(token) => plausible(token).err(),
        None => plausible(connection.token.expose()).err(),
    }
}

/// Until when the token is too young to be sent, by what Perene itself knows: it refreshed the token, or
/// saw it change, less than 24 hours ago, or the expiry lies more than 59 days ahead. A row seen for the
/// first time is sent: an app's own `updated_at` says nothing about the age of a token.
pub fn too_young_until(connection: &Connection, now: Timestamp) -> Option<Timestamp> {
    if !connection.grant.refuses_young_tokens() || planted::has(Bug::YoungSent) {
        return None;
    }
    let made_at = [
        connection.refreshed_at,
        connection.memory_of_this_generation().and_then(|memory| memory.fresh_since),
        connection.expires_at.filter(|at| !within(*at, now, LIFE_LEFT_OF_THE_YOUNG)).map(|_| now),
    ];
    made_at
        .into_iter()
        .flatten()
        // A date in the future is no age: a wrong clock must not hold a token back for ever.
        .filter(|at| *at <= now)
        .filter_map(|at| at.checked_add(MINIMUM_AGE).ok())
        .filter(|until| *until > now)
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{connection, hours, instant};

    #[test]
    fn due_is_an_open_interval() {
        let now = instant("2026-11-23T03:00:00Z");
        let window = SignedDuration::from_hours(7 * 24);
        assert!(!is_due(now, None, now, window));
        assert!(is_due(now + hours(1), None, now, window));
        assert!(is_due(now + hours(7 * 24 - 1), None, now, window));
        assert!(!is_due(now + hours(7 * 24), None, now, window));
        assert!(!is_due(now + hours(1), Some(now + hours(1)), now, window));
        assert!(is_due(now + hours(1), Some(now), now, window));
        assert!(!is_due(Timestamp::MAX, None, Timestamp::MIN, window));
    }

    #[test]
    fn young_is_what_was_refreshed_less_than_a_day_ago() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut row = connection("IG-ok-1", Some(now + hours(48)));
        assert_eq!(row.grant, Grant::Instagram);
        assert_eq!(too_young_until(&row, now), None);
        row.refreshed_at = Some(now - hours(23));
        assert_eq!(too_young_until(&row, now), Some(now + hours(1)));
        row.refreshed_at = Some(now - hours(24));
        assert_eq!(too_young_until(&row, now), None);
        row.refreshed_at = Some(now + hours(5));
        assert_eq!(too_young_until(&row, now), None);
    }

    #[test]
    fn young_is_what_has_more_than_59_days_left() {
        let now = instant("2026-11-23T03:00:00Z");
        let row = connection("TH-ok-1", Some(now + hours(59 * 24 + 1)));
        assert_eq!(too_young_until(&row, now), Some(now + hours(24)));
        let row = connection("EAA-ok-1", Some(now + hours(59 * 24 + 1)));
        assert_eq!(too_young_until(&row, now), None);
    }

    #[test]
    fn young_is_what_changed_under_our_eyes() {
        let now = instant("2026-11-23T03:00:00Z");
        let mut row = connection("IG-ok-1", Some(now + hours(48)));
        let mut memory = crate::Memory::of(row.generation(), crate::State::Healthy, now);
        memory.fresh_since = Some(now - hours(2));
        row.memory = Some(memory.clone());
        assert_eq!(too_young_until(&row, now), Some(now + hours(22)));
        memory.generation = crate::Fingerprint::of("another");
        row.memory = Some(memory);
        assert_eq!(too_young_until(&row, now), None);
    }
}
