//! Meta's refusals, word by word as they were seen.
//! <https://developers.facebook.com/docs/graph-api/guides/error-handling>

use std::borrow::Cow;

use jiff::{Timestamp, tz};

use super::call::{self, Request};

/// An error object and the status it comes with.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: Cow<'static, str>,
    /// `type` in the body: nearly worthless, but always there.
    pub(super) kind: &'static str,
    pub(super) code: Option<u16>,
    pub(super) subcode: Option<u16>,
    pub(super) is_transient: Option<bool>,
}

const OAUTH: &str = "OAuthException";

impl Refusal {
    fn new(code: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status: 400, message: message.into(), kind: OAUTH, code: Some(code), subcode: None, is_transient: None }
    }

    /// The string is of another family, or damaged.
    pub(super) fn cannot_parse() -> Self {
        Self::new(190, "Invalid OAuth access token - Cannot parse access token")
    }

    pub(super) fn missing_client_id() -> Self {
        Self::new(101, "Missing client_id parameter.")
    }

    pub(super) fn wrong_client_id() -> Self {
        Self::new(101, "Error validating application. Invalid application ID.")
    }

    /// Also for a missing secret, whose real body is not known.
    pub(super) fn wrong_client_secret() -> Self {
        Self::new(1, "Error validating client secret.")
    }

    pub(super) fn missing_exchange_token() -> Self {
        Self::new(1, "fb_exchange_token parameter not specified")
    }

    pub(super) fn missing_access_token() -> Self {
        Self::new(104, "An access token is required to request this resource.")
    }

    pub(super) fn not_an_app_token() -> Self {
        Self::new(
            100,
            "(#100) You must provide an app access token, or a user access token that is an owner or developer of \
             the app",
        )
    }

    pub(super) fn wrong_app_token() -> Self {
        Self::new(190, "Invalid OAuth access token signature.")
    }

    pub(super) fn missing_input_token() -> Self {
        Self::new(100, "(#100) The parameter input_token is required")
    }

    /// What `limited` answers: the whole app has made too many calls.
    pub(super) fn too_many_calls() -> Self {
        let refusal = Self::new(4, "(#4) Application request limit reached");
        Self { status: 403, is_transient: Some(true), ..refusal }
    }

    /// What `flaky` answers once.
    pub(super) fn unexpected_error() -> Self {
        let refusal = Self::new(2, "An unexpected error has occurred. Please retry your request later.");
        Self { status: 500, is_transient: Some(true), ..refusal }
    }

    /// What `young` answers. Invented, as no real body for a refresh within the first 24 hours is known: an
    /// error that gives no code, and names the age in its message alone.
    pub(super) fn too_young() -> Self {
        let refusal = Self::new(0, "The access token must be at least 24 hours old to be refreshed.");
        Self { kind: "IGApiException", code: None, ..refusal }
    }

    /// The answer of a path that is no endpoint, or that was asked in the wrong way.
    pub(super) fn of_path(request: &Request) -> Self {
        let path = call::unversioned(&request.path);
        match (path, request.method.as_str()) {
            // A grant that is none, or none at all, is taken for the exchange of a login's code.
            ("/oauth/access_token", "GET" | "POST") => Self::new(191, "Missing redirect_uri parameter."),
            ("/refresh_access_token", "GET") => Self::new(100, "Invalid parameter: grant_type"),
            ("/oauth/access_token" | "/refresh_access_token" | "/debug_token", method) => {
                let refusal =
                    Self::new(100, format!("Unsupported request - method type: {}", shown(method).to_lowercase()));
                let kind = if path == "/refresh_access_token" { "IGApiException" } else { "GraphMethodException" };
                Self { kind, ..refusal }
            }
            (path, _) => Self::new(2500, format!("Unknown path components: {}", shown(path))),
        }
    }
}

/// What a caller sent, short enough to be sent back.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Why a token is no longer accepted: an error of code 190, wherever it is told.
#[derive(Debug, Clone)]
pub(super) struct Death {
    subcode: Option<u16>,
    expired_at_s: Option<i64>,
    never_issued: bool,
}

impl Death {
    pub(super) const fn of_subcode(subcode: Option<u16>) -> Self {
        Self { subcode, expired_at_s: None, never_issued: false }
    }

    pub(super) const fn expired(at_s: i64) -> Self {
        Self { subcode: Some(463), expired_at_s: Some(at_s), never_issued: false }
    }

    pub(super) const fn never_issued() -> Self {
        Self { subcode: None, expired_at_s: None, never_issued: true }
    }

    pub(super) fn refusal(&self, now: Timestamp) -> Refusal {
        Refusal { subcode: self.subcode, ..Refusal::new(190, self.message(now)) }
    }

    pub(super) const fn subcode(&self) -> Option<u16> {
        self.subcode
    }

    /// When the token ended, if that is why it is dead.
    pub(super) const fn expired_at_s(&self) -> Option<i64> {
        self.expired_at_s
    }

    /// The words for each subcode. <https://developers.facebook.com/docs/facebook-login/guides/access-tokens/debugging>
    pub(super) fn message(&self, now: Timestamp) -> Cow<'static, str> {
        if let Some(at_s) = self.expired_at_s {
            let at = Timestamp::from_second(at_s).unwrap_or(Timestamp::UNIX_EPOCH);
            return format!(
                "Error validating access token: Session has expired on {}. The current time is {}.",
                spoken(at),
                spoken(now)
            )
            .into();
        }
        let Some(subcode) = self.subcode else {
            return if self.never_issued {
                "The access token could not be decrypted"
            } else {
                "Invalid OAuth access token."
            }
            .into();
        };
        match subcode {
            452 => {
                "Error validating access token: Session does not match current stored session. This may be because \
                    the user changed the password since the time the session was created or Facebook has changed the \
                    session for security reasons."
            }
            458 => "Error validating access token: The user has not authorized application 100000000000000.",
            459 => {
                "Error validating access token: You cannot access the app till you log in to www.facebook.com and \
                    follow the instructions given."
            }
            460 => {
                "Error validating access token: The session has been invalidated because the user changed their \
                    password or Facebook has changed the session for security reasons."
            }
            464 => {
                "Error validating access token: Sessions for the user are not allowed because the user is not a \
                    confirmed user."
            }
            466 => "Error validating access token: The session was invalidated explicitly using an API call.",
            467 => "Error validating access token: The session is invalid because the user logged out.",
            490 => "Error validating access token: The user is enrolled in a blocking, logged-in checkpoint",
            492 => "The user must be an administrator of the page in order to impersonate it.",
            _ => "Error validating access token: The session is no longer valid.",
        }
        .into()
    }
}

/// An instant as Meta's messages have it: `Wednesday, 14-Feb-18 18:00:00 PST`.
fn spoken(at: Timestamp) -> String {
    let at = tz::offset(-8).to_datetime(at);
    // Not `%y`, which knows the years 1969 to 2068 only and is an error outside of them.
    format!("{}{:02} {} PST", at.strftime("%A, %d-%b-"), at.year().rem_euclid(100), at.strftime("%H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_session_says_when_as_meta_does() {
        let now = "2018-02-15T21:46:35Z".parse::<Timestamp>().unwrap();
        assert_eq!(
            Death::expired(1_518_660_000).message(now),
            "Error validating access token: Session has expired on Wednesday, 14-Feb-18 18:00:00 PST. \
             The current time is Thursday, 15-Feb-18 13:46:35 PST."
        );
    }

    #[test]
    fn every_year_can_be_spoken() {
        for (year, spoken_year) in [("-009998", "02"), ("1968", "68"), ("2069", "69"), ("9998", "98")] {
            let at = format!("{year}-06-01T08:00:00Z").parse::<Timestamp>().unwrap();
            assert!(spoken(at).ends_with(&format!("-Jun-{spoken_year} 00:00:00 PST")), "{}", spoken(at));
        }
    }
}
