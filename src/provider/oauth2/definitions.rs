//! What is known of OAuth 2.0 providers by name, as data: a provider in the configuration that bears one of
//! these names needs no more than its id and its secret.
//!
//! Where the documentation leaves open what becomes of the old refresh token, the class is
//! [`Class::Strict`]: it loses nothing, and costs no more than quick further tries. [`Definition::unsure`]
//! says so.

use perene_policy::Class;

use super::ClientAuth;

/// What is known of a provider.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// The NAME in `[providers.NAME]`.
    pub name: &'static str,
    /// The token endpoint.
    pub token_url: &'static str,
    /// How the client proves itself.
    pub client_auth: ClientAuth,
    /// What the form calls the client's id.
    pub client_id_field: &'static str,
    /// Headers that the provider asks for beside the usual ones.
    pub headers: &'static [(&'static str, &'static str)],
    /// What becomes of the old refresh token.
    pub class: Class,
    /// How long an access token usually lives, in seconds: documented, or the default of a setting.
    pub usual_life_s: u32,
    /// Where all this is documented.
    pub documentation: &'static str,
    /// What is peculiar about it.
    pub notes: &'static str,
    /// What of the above is not documented; empty if all is.
    pub unsure: &'static str,
}

const HOUR_S: u32 = 3600;
const DAY_S: u32 = 24 * HOUR_S;

/// A definition of what most have in common.
const fn usual(name: &'static str, token_url: &'static str, documentation: &'static str) -> Definition {
    Definition {
        name,
        token_url,
        client_auth: ClientAuth::Body,
        client_id_field: "client_id",
        headers: &[],
        class: Class::Strict,
        usual_life_s: HOUR_S,
        documentation,
        notes: "",
        unsure: "",
    }
}

/// All of them, by name.
pub const DEFINITIONS: &[Definition] = &[
    Definition {
        class: Class::Extend,
        notes: "the answer brings no refresh token: the old one stays; it dies after six months without use, and after 7 days while the app's consent screen is in testing",
        ..usual(
            "google",
            "https://oauth2.googleapis.com/token",
            "https://developers.google.com/identity/protocols/oauth2/web-server#offline",
        )
    },
    Definition {
        class: Class::Extend,
        usual_life_s: HOUR_S / 2,
        notes: "the path holds the version of the API; version 1 is taken out of use from 2027-02-16",
        unsure: "that the refresh token stays the same is known from practice",
        ..usual(
            "hubspot",
            "https://api.hubapi.com/oauth/2026-03/token",
            "https://developers.hubspot.com/docs/api-reference/2026-03/authentication/oauth-tokens/refresh-oauth-token",
        )
    },
    Definition {
        class: Class::Extend,
        usual_life_s: 60 * DAY_S,
        notes: "only approved partners get refresh tokens; they die 365 days after the login, however often they are used",
        unsure: "that the old refresh token goes on is read out of its life, which a refresh does not change",
        ..usual(
            "linkedin",
            "https://www.linkedin.com/oauth/v2/accessToken",
            "https://learn.microsoft.com/en-us/linkedin/shared/authentication/programmatic-refresh-tokens",
        )
    },
    Definition {
        class: Class::Extend,
        notes: "an app for one tenant sets `token_url` with its tenant in the place of `common`; each answer brings a new refresh token, and the old one is not revoked; tokens of single-page apps die after 24 hours",
        unsure: "the life of an access token varies at random between 60 and 90 minutes",
        ..usual(
            "microsoft",
            "https://login.microsoftonline.com/common/oauth2/v2.0/token",
            "https://learn.microsoft.com/en-us/entra/identity-platform/refresh-tokens",
        )
    },
    Definition {
        client_auth: ClientAuth::Basic,
        usual_life_s: 30 * DAY_S,
        notes: "continuous refresh: each answer brings a new refresh token",
        unsure: "what becomes of the old refresh token, so it is never sent twice",
        ..usual(
            "pinterest",
            "https://api.pinterest.com/v5/oauth/token",
            "https://developers.pinterest.com/docs/getting-started/set-up-authentication-and-authorization/",
        )
    },
    Definition {
        usual_life_s: 2 * HOUR_S,
        notes: "the answer tells no `expires_in`: the life is the session timeout of the connected app or the org; a sandbox or a domain of one's own sets `token_url`; with rotation switched on, an old refresh token is dead at once",
        unsure: "whether rotation is switched on, and what the session timeout is: both are settings of the app",
        ..usual(
            "salesforce",
            "https://login.salesforce.com/services/oauth2/token",
            "https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_refresh_token_flow.htm&type=5",
        )
    },
    Definition {
        usual_life_s: 12 * HOUR_S,
        notes: "only with token rotation switched on; an error is a 200 with `ok: false`; the old refresh token is revoked",
        ..usual(
            "slack",
            "https://slack.com/api/oauth.v2.access",
            "https://docs.slack.dev/authentication/using-token-rotation",
        )
    },
    Definition {
        client_auth: ClientAuth::Basic,
        class: Class::Extend,
        notes: "an answer without a refresh token means that the old one stays",
        unsure: "apps that use PKCE get a new refresh token with each answer: they set `class = \"strict\"`",
        ..usual(
            "spotify",
            "https://accounts.spotify.com/api/token",
            "https://developer.spotify.com/documentation/web-api/tutorials/refreshing-tokens",
        )
    },
    Definition {
        client_id_field: "client_key",
        headers: &[("cache-control", "no-cache")],
        usual_life_s: 2 * HOUR_S,
        notes: "the id is called client key, in the form too; an error may be a 200; the old refresh token stops working with the new one's issue; it lives 180 days",
        ..usual(
            "tiktok",
            "https://open.tiktokapis.com/v2/oauth/token/",
            "https://developers.tiktok.com/docs/en/oauth-refresh-a-user-access-token",
        )
    },
    Definition {
        client_auth: ClientAuth::Basic,
        usual_life_s: 2 * HOUR_S,
        notes: "refresh tokens are issued with the scope `offline.access` only; Basic is for confidential clients, which is what has a secret",
        unsure: "that a refresh token is good for one use, and that reuse kills the whole family, is what integrators report",
        ..usual(
            "x",
            "https://api.x.com/2/oauth2/token",
            "https://docs.x.com/fundamentals/authentication/oauth-2-0/authorization-code",
        )
    },
];

/// The definition of that name.
pub fn of(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.name == name)
}

/// All names, in alphabetical order.
pub fn names() -> impl Iterator<Item = &'static str> {
    DEFINITIONS.iter().map(|definition| definition.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_are_there_in_order_and_each_says_where_it_is_documented() {
        let known: Vec<&str> = names().collect();
        assert_eq!(
            known,
            [
                "google",
                "hubspot",
                "linkedin",
                "microsoft",
                "pinterest",
                "salesforce",
                "slack",
                "spotify",
                "tiktok",
                "x"
            ]
        );
        for definition in DEFINITIONS {
            let name = definition.name;
            for url in [definition.token_url, definition.documentation] {
                let url = url::Url::parse(url).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(url.scheme(), "https", "{name}");
                assert!(url.username().is_empty() && url.host_str().is_some_and(|host| host.contains('.')), "{name}");
            }
            assert!((60..=365 * DAY_S).contains(&definition.usual_life_s), "{name}");
            assert!(!definition.notes.is_empty(), "{name}");
            assert_eq!(of(name), Some(definition));
        }
        assert_eq!(of("Google"), None);
    }

    #[test]
    fn what_is_documented_as_rotating_is_never_sent_twice() {
        for name in ["slack", "tiktok", "x", "salesforce", "pinterest"] {
            assert_eq!(of(name).map(|definition| definition.class), Some(Class::Strict), "{name}");
        }
    }
}
