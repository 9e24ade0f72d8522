//! What the providers know: every account, every generation that was issued, and when it really dies.

use jiff::{SignedDuration, Timestamp};
use perene_policy::{Class, Grant};

/// Stands in every token, so that one is found wherever it does not belong.
pub(super) const TOKEN_MARK: &str = "ZqT0k";

/// Stands in every secret of an app.
pub(super) const SECRET_MARK: &str = "ZqS3c";

/// How a provider treats an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its tokens are renewed.
    Well,
    /// Its tokens are refused until the customer logs in anew.
    Refused,
    /// Its tokens are answered with success, and their expiry does not move.
    Stuck,
}

/// One value of a token.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) expires_at: Timestamp,
    pub(super) issued_at: Timestamp,
    /// The customer's login made it, not a refresh.
    pub(super) is_of_login: bool,
    /// How often it was sent for a refresh, as far as the provider saw it.
    pub(super) sent: u32,
    /// Which replica sent it last, and when.
    pub(super) sent_by: Option<(usize, Timestamp)>,
    /// Its answer has come whole to a replica.
    pub(super) was_received: bool,
    /// Which generation was sent for it, once it has come.
    pub(super) came_for: Option<usize>,
}

impl Generation {
    pub(super) fn of_login(issued_at: Timestamp, expires_at: Timestamp) -> Self {
        Self { expires_at, issued_at, is_of_login: true, sent: 0, sent_by: None, was_received: true, came_for: None }
    }
}

/// A linked account at a provider.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) number: usize,
    /// The key of the app's row.
    pub(super) row: String,
    pub(super) source: usize,
    pub(super) grant: Grant,
    pub(super) class: Class,
    pub(super) standing: Standing,
    pub(super) standing_since: Timestamp,
    /// A refresh gives a new string, and not the same one with a later date.
    pub(super) rotates: bool,
    /// Its answers do not tell how long the token lives.
    pub(super) is_silent: bool,
    /// The end of data access is told: 90 days after the login.
    pub(super) has_data_access: bool,
    pub(super) login_at: Timestamp,
    pub(super) life: SignedDuration,
    pub(super) generations: Vec<Generation>,
    /// Until when every answer about it is 500.
    pub(super) breaks_until: Option<Timestamp>,
}

impl Account {
    pub(super) fn id(&self) -> String {
        self.row.clone()
    }

    pub(super) fn latest(&self) -> usize {
        self.generations.len() - 1
    }

    /// The access token of a generation.
    pub(super) fn token(&self, generation: usize) -> String {
        let begin = match self.grant {
            Grant::Facebook => "EAA",
            Grant::Instagram => "IGAA",
            Grant::Threads => "THAA",
            Grant::Oauth2 => "at-",
        };
        format!("{begin}{TOKEN_MARK}{}g{generation}", self.number)
    }

    /// The refresh token of a generation, where there is one.
    pub(super) fn refresh_token(&self, generation: usize) -> Option<String> {
        (self.grant == Grant::Oauth2).then(|| format!("rt-{TOKEN_MARK}{}g{generation}", self.number))
    }

    /// The customer logs in anew: all is well, and the app gets a generation that has nothing to do with those before.
    pub(super) fn log_in(&mut self, now: Timestamp) -> usize {
        (self.standing, self.standing_since, self.login_at) = (Standing::Well, now, now);
        self.breaks_until = None;
        self.issue(now, true)
    }

    pub(super) fn issue(&mut self, now: Timestamp, is_of_login: bool) -> usize {
        let expires_at = now + self.life;
        self.generations.push(Generation {
            expires_at,
            issued_at: now,
            is_of_login,
            sent: 0,
            sent_by: None,
            was_received: is_of_login,
            came_for: None,
        });
        self.latest()
    }

    /// Whether the provider would renew its token.
    pub(super) fn is_well(&self, now: Timestamp) -> bool {
        self.standing == Standing::Well && self.breaks_until.is_none_or(|until| until <= now)
    }

    /// Since when it is treated as it is.
    pub(super) fn well_since(&self) -> Timestamp {
        self.breaks_until.map_or(self.standing_since, |until| until.max(self.standing_since))
    }

    pub(super) fn refuse(&mut self, now: Timestamp) {
        if self.standing != Standing::Refused {
            (self.standing, self.standing_since) = (Standing::Refused, now);
        }
    }
}

/// Which account and generation a token is of.
pub(super) fn read(token: &str) -> Option<(usize, usize)> {
    let (_, rest) = token.split_once(TOKEN_MARK)?;
    let (number, generation) = rest.split_once('g')?;
    Some((number.parse().ok()?, generation.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_whose_it_is() {
        assert_eq!(read("IGAAZqT0k17g3"), Some((17, 3)));
        assert_eq!(read("undefined"), None);
    }
}
