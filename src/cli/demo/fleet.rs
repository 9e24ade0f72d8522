//! The invented customers of the demo: some hundred connections of every kind.

use jiff::{SignedDuration, Timestamp};

/// One invented connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invented {
    pub(super) id: i64,
    pub(super) user_id: i64,
    pub(super) token: Option<String>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) attempts: i64,
}

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// The fleet as it stands at `now`. The same at every call, but for the dates.
pub(super) fn invent(now: Timestamp) -> Vec<Invented> {
    let mut fleet = Vec::new();
    let mut add = |token: Option<String>, seconds: Option<i64>, attempts: i64| {
        let id = i64::try_from(fleet.len()).unwrap_or(0) + 1;
        let expires_at = seconds.map(|seconds| at(now, seconds));
        // Every tenth customer has two connections.
        let user_id = if id % 10 == 0 { id - 1 } else { id };
        fleet.push(Invented { id, user_id, token, expires_at, attempts });
    };
    // Due, and well: two in three by Instagram Login, as with most apps.
    for n in 0..150_i64 {
        let family = ["IG", "IG", "EAA", "EAA", "TH", "IG"][usize::try_from(n % 6).unwrap_or(0)];
        add(Some(format!("{family}-ok-{n:04}")), Some(HOUR + n * 4000), 0);
    }
    // Due, and of every other kind.
    for n in 0..4 {
        add(Some(format!("IG-flaky-{n:04}")), Some(2 * DAY + n * HOUR), 0);
    }
    add(Some("EAA-dead-460-0001".to_owned()), Some(3 * DAY), 0);
    add(Some("EAA-dead-458-0002".to_owned()), Some(4 * DAY), 0);
    add(Some("IG-dead-463-0003".to_owned()), Some(5 * DAY), 0);
    for n in 0..3 {
        let end = 2 * DAY + n * 2 * DAY;
        add(Some(format!("EAA-stuck-exp{}-{n:04}", at(now, end).as_second())), Some(end), 0);
    }
    add(Some("IG-html500-0001".to_owned()), Some(5 * DAY), 2);
    add(Some("EAA-html500-0002".to_owned()), Some(6 * DAY), 0);
    add(Some("EAA-notoken-0001".to_owned()), Some(6 * DAY), 0);
    add(Some("IG-young-0001".to_owned()), Some(6 * DAY), 0);
    add(Some("EAA-slow-2000-0001".to_owned()), Some(6 * DAY), 0);
    add(Some("EAA-rotate-0001".to_owned()), Some(6 * DAY), 1);
    // The limit holds the whole app: what expires after it waits.
    add(Some("TH-limited-0001".to_owned()), Some(6 * DAY + 20 * HOUR), 0);
    for n in 0..3 {
        add(Some(format!("TH-ok-late-{n:04}")), Some(6 * DAY + 21 * HOUR + n), 0);
    }
    // Without a known date.
    add(Some("EAA-ok-undated".to_owned()), None, 0);
    add(Some("IG-ok-undated".to_owned()), None, 0);
    add(Some("EAA-ok-exp0-never".to_owned()), None, 0);
    // Not due: well for weeks, expired already, or without a token.
    for n in 0..80 {
        add(Some(format!("IG-ok-far-{n:04}")), Some(10 * DAY + n * 12 * HOUR), 0);
    }
    for n in 0..5 {
        add(Some(format!("EAA-ok-expired-{n:04}")), Some(-(DAY + n * DAY)), 0);
    }
    for _ in 0..3 {
        add(None, None, 0);
    }
    fleet
}

fn at(now: Timestamp, seconds: i64) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fleet_is_some_hundred_and_of_every_kind() {
        let fleet = invent("2026-11-23T03:00:00Z".parse().unwrap());
        assert!((200..400).contains(&fleet.len()), "{}", fleet.len());
        for kind in
            ["ok", "dead-460", "stuck", "flaky", "html500", "limited", "young", "slow-2000", "notoken", "rotate"]
        {
            let has =
                fleet.iter().any(|one| one.token.as_ref().is_some_and(|token| token.contains(&format!("-{kind}-"))));
            assert!(has, "no `{kind}` among them");
        }
        assert!(fleet.iter().any(|one| one.token.is_none()));
        assert!(fleet.iter().any(|one| one.token.is_some() && one.expires_at.is_none()));
    }
}
