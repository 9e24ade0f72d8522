//! What becomes of an answer that was kept while its process or the database was away.

use jiff::Timestamp;

use crate::connection::Connection;
use crate::exchange::Conclusion;
use crate::secret::Secret;

/// An answer that was kept: what was sent, and what came.
#[derive(Debug, Clone, Copy)]
pub struct KeptAnswer<'a> {
    /// The access token that the row held.
    pub sent: &'a Secret,
    /// The refresh token that the row held beside it.
    pub sent_refresh: Option<&'a Secret>,
    /// The access token that was issued.
    pub token: &'a Secret,
    /// The refresh token that was issued with it; `None` keeps the row's.
    pub refresh_token: Option<&'a Secret>,
    /// The expiry to store; `None` keeps the row's.
    pub expires_at: Option<Timestamp>,
}

/// What is to be done with it.
#[derive(Debug, Clone)]
pub enum Replay {
    /// The row still holds what was sent: this is to be decided about, as if the answer had just come.
    Apply(Box<Conclusion>),
    /// The row holds what was issued.
    Stored,
    /// The row holds something else, or is gone: the app was faster, or a later answer was stored.
    Superseded,
}

/// Compares a kept answer with the row as it is now.
pub fn replay(kept: &KeptAnswer<'_>, row: Option<&Connection>, now: Timestamp) -> Replay {
    let Some(row) = row.filter(|row| !row.token.expose().is_empty()) else { return Replay::Superseded };
    let is_later = |new: Timestamp| row.expires_at.is_none_or(|stored| new > stored);
    let holds_issued =
        row.token == *kept.token && kept.refresh_token.is_none_or(|token| row.refresh_token.as_ref() == Some(token));
    // A provider that gives the same string again changes nothing but the date.
    if holds_issued && !(row.token == *kept.sent && kept.expires_at.is_some_and(is_later)) {
        return Replay::Stored;
    }
    if row.token != *kept.sent || row.refresh_token.as_ref() != kept.sent_refresh {
        return Replay::Superseded;
    }
    Replay::Apply(Box::new(Conclusion::replayed(
        row,
        kept.token.clone(),
        kept.refresh_token.cloned(),
        kept.expires_at,
        now,
    )))
}

/// Whether this answer is one to the generation that the row holds now: then that generation is spent, and must not
/// be sent again.
pub fn is_answered(kept: &KeptAnswer<'_>, row: &Connection) -> bool {
    row.token == *kept.sent && row.refresh_token.as_ref() == kept.sent_refresh
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;
    use crate::testing::{connection, hours, instant};

    fn now() -> Timestamp {
        instant("2026-11-23T03:00:00Z")
    }

    fn pair(token: &str, refresh: &str, left: i64) -> Connection {
        Connection {
            refresh_token: Some(Secret::new(refresh)),
            grant: crate::Grant::Oauth2,
            ..connection(token, Some(now() + hours(left)))
        }
    }

    fn of(row: Option<&Connection>) -> Replay {
        let [sent, sent_refresh, token, refresh] = ["a0", "r0", "a1", "r1"].map(Secret::new);
        let kept = KeptAnswer {
            sent: &sent,
            sent_refresh: Some(&sent_refresh),
            token: &token,
            refresh_token: Some(&refresh),
            expires_at: Some(now() + hours(2)),
        };
        replay(&kept, row, now())
    }

    #[test]
    fn what_the_row_still_holds_is_replaced() {
        let Replay::Apply(conclusion) = of(Some(&pair("a0", "r0", 1))) else { panic!("it applies") };
        assert_eq!(conclusion.outcome, Outcome::Refreshed);
        assert_eq!(conclusion.token, Some(Secret::new("a1")));
        assert_eq!(conclusion.refresh_token, Some(Secret::new("r1")));
        assert_eq!(conclusion.expires_at, Some(now() + hours(2)));
    }

    #[test]
    fn what_the_app_has_put_there_meanwhile_stays() {
        for row in [pair("b0", "r0", 1), pair("a0", "s0", 1), pair("b0", "s0", 1), pair("", "r0", 1)] {
            assert!(matches!(of(Some(&row)), Replay::Superseded), "{row:?}");
        }
        assert!(matches!(of(None), Replay::Superseded));
    }

    #[test]
    fn what_is_stored_is_stored_once() {
        assert!(matches!(of(Some(&pair("a1", "r1", 2))), Replay::Stored));
    }

    #[test]
    fn the_same_string_moves_the_date_forward_and_never_back() {
        let token = Secret::new("IG-1");
        let kept = |left: i64| KeptAnswer {
            sent: &token,
            sent_refresh: None,
            token: &token,
            refresh_token: None,
            expires_at: Some(now() + hours(left)),
        };
        let row = connection("IG-1", Some(now() + hours(48)));
        assert!(matches!(replay(&kept(60 * 24), Some(&row), now()), Replay::Apply(_)));
        assert!(matches!(replay(&kept(47), Some(&row), now()), Replay::Stored));
        assert!(matches!(replay(&kept(48), Some(&row), now()), Replay::Stored));
    }

    #[test]
    fn an_answer_without_a_date_is_stored_and_looked_at() {
        let (sent, token) = (Secret::new("a0"), Secret::new("a1"));
        let kept = KeptAnswer { sent: &sent, sent_refresh: None, token: &token, refresh_token: None, expires_at: None };
        let row = connection("a0", Some(now() + hours(48)));
        let Replay::Apply(conclusion) = replay(&kept, Some(&row), now()) else { panic!("it applies") };
        assert_eq!((conclusion.outcome, conclusion.token), (Outcome::Unrecognised, Some(Secret::new("a1"))));
    }
}
