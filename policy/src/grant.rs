//! Which grant renews a token.

use serde::{Deserialize, Serialize};

/// The way in which a token is renewed, told by the token's own beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// `fb_exchange_token` at graph.facebook.com.
    /// <https://developers.facebook.com/docs/facebook-login/guides/access-tokens/get-long-lived>
    Facebook,
    /// `ig_refresh_token` at graph.instagram.com.
    /// <https://developers.facebook.com/docs/instagram-platform/reference/refresh_access_token>
    Instagram,
    /// `th_refresh_token` at graph.threads.net.
    /// <https://developers.facebook.com/docs/threads/get-started/long-lived-tokens>
    Threads,
    /// `refresh_token` of RFC 6749, section 6, at the token endpoint of a configured provider.
    Oauth2,
}

impl Grant {
    /// The three grants of Meta.
    pub const META: [Self; 3] = [Self::Facebook, Self::Instagram, Self::Threads];

    /// The grant of a token at Meta: `IG…` is Instagram Login, `TH…` is Threads, all else Facebook Login.
    pub fn of_meta_token(token: &str) -> Self {
        match token.get(..2) {
            Some("IG") => Self::Instagram,
            Some("TH") => Self::Threads,
            _ => Self::Facebook,
        }
    }

    /// The name that stands in the configuration and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Facebook => "facebook",
            Self::Instagram => "instagram",
            Self::Threads => "threads",
            Self::Oauth2 => "oauth2",
        }
    }

    /// Whether the provider refuses tokens under 24 hours of age.
    pub const fn refuses_young_tokens(self) -> bool {
        matches!(self, Self::Instagram | Self::Threads)
    }

    /// Whether `debug_token` can tell what this token's expiry is.
    pub const fn can_be_inspected(self) -> bool {
        matches!(self, Self::Facebook)
    }
}

/// What happens to the old token when a new one is issued, and so what a lost answer costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The token's life is extended; asking twice harms nothing (Meta).
    Extend,
    /// The old refresh token works for a while: asking again soon harms nothing.
    Grace,
    /// The old refresh token is dead at once, and using it again kills the whole family (RFC 9700, 4.14).
    Strict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_decides() {
        assert_eq!(Grant::of_meta_token("IGAA1"), Grant::Instagram);
        assert_eq!(Grant::of_meta_token("IG-ok-1"), Grant::Instagram);
        assert_eq!(Grant::of_meta_token("THAA1"), Grant::Threads);
        assert_eq!(Grant::of_meta_token("EAA1"), Grant::Facebook);
        assert_eq!(Grant::of_meta_token("ig-lower"), Grant::Facebook);
        assert_eq!(Grant::of_meta_token("I"), Grant::Facebook);
        assert_eq!(Grant::of_meta_token("🔑"), Grant::Facebook);
    }
}
