//! What answers mean: the table. The first rule that fits decides; each names the source that it rests on.
//!
//! The order is the knowledge: a limit before everything that sounds like a dead token, `is_transient` before
//! every message, the app's own trouble before the customer's, and a dead token before an HTTP status, because a dead
//! token can arrive under 500 and an outage under 400. To teach Perene a new answer, add a row above the first row
//! that would take it, with a source, and a body that reaches it in `policy/tests/answers.rs`.

use super::shape::{Evidence, Shape};
use super::{Endpoint, phrases};
use crate::Outcome::{self, Misconfigured, NeedsReconnect, RateLimited, Refreshed, TooYoung, Transient, Unrecognised};
use crate::Scope;

/// One row of the table.
#[derive(Debug)]
pub struct Rule {
    /// Unique; shown by `perene explain`.
    pub name: &'static str,
    /// What the answer means.
    pub outcome: Outcome,
    /// A fixed word in snake case: what exactly is the matter.
    pub reason: &'static str,
    /// Whom the answer is about; `None` where it does not say.
    pub scope: Option<Scope>,
    /// The documentation, the report or the client library that this rests on.
    pub source: &'static str,
    /// What must hold.
    pub when: When,
}

/// What must hold for a rule: each part that is not empty. A list holds if one of its entries does.
#[derive(Debug)]
pub struct When {
    /// What kind of body came.
    pub bodies: &'static [Body],
    /// Which call was answered.
    pub endpoints: &'static [Endpoint],
    /// HTTP statuses, from and to.
    pub statuses: &'static [(u16, u16)],
    /// How the error was spelled.
    pub shapes: &'static [Shape],
    /// Codes, from and to.
    pub codes: &'static [(i64, i64)],
    /// Subcodes, from and to.
    pub subcodes: &'static [(i64, i64)],
    /// There is no code.
    pub codeless: bool,
    /// There is no subcode.
    pub subcodeless: bool,
    /// There is no message.
    pub silent: bool,
    /// `type` or `error_type`, in lower case.
    pub kinds: &'static [&'static str],
    /// Error words.
    pub words: &'static [&'static str],
    /// Fragments of the message, in lower case.
    pub phrases: &'static [&'static str],
    /// `is_transient`
    pub transient: Option<bool>,
    /// A fragment of the header `WWW-Authenticate`, in lower case.
    pub challenge: &'static str,
}

/// What kind of body came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// None: the request never left.
    NotSent,
    /// None: the answer was lost, the request may have been carried out.
    Lost,
    /// A plausible token with a believable life, under 2xx.
    Granted,
    /// A plausible token that says nothing of its life.
    GrantedSilent,
    /// A plausible token with a life that cannot be believed.
    GrantedOdd,
    /// `debug_token`: the token is valid, its expiry known or never.
    Valid,
    /// `debug_token`: the token is valid, without an expiry.
    ValidSilent,
    /// `debug_token`: the token is not valid, without a reason.
    Invalid,
    /// No byte but blanks.
    Empty,
    /// JSON `null`.
    Null,
    /// A page for people.
    Html,
    /// Neither JSON nor a page.
    Text,
    /// Cut off at 64 KiB.
    Truncated,
    /// An error, in any spelling.
    Error,
    /// A token stands there that can be none.
    Implausible,
    /// JSON with neither error nor token.
    Plain,
}

/// Everything that a rule can look at.
pub(super) struct Facts<'a> {
    pub(super) body: Body,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) status: u16,
    pub(super) error: Option<&'a Evidence>,
    /// The message in lower case, with straight apostrophes.
    pub(super) message: &'a str,
    /// The header `WWW-Authenticate` in lower case.
    pub(super) challenge: &'a str,
}

impl When {
    pub(super) fn holds(&self, facts: &Facts<'_>) -> bool {
        let error = facts.error;
        let within = |ranges: &[(i64, i64)], code: Option<i64>| {
            ranges.is_empty() || code.is_some_and(|code| ranges.iter().any(|(from, to)| (*from..=*to).contains(&code)))
        };
        let said =
            |fragments: &[&str]| fragments.is_empty() || fragments.iter().any(|part| facts.message.contains(part));
        let code = error.and_then(|error| error.code);
        let subcode = error.and_then(|error| error.subcode);
        (self.bodies.is_empty() || self.bodies.contains(&facts.body))
            && (self.endpoints.is_empty() || facts.endpoint.is_some_and(|endpoint| self.endpoints.contains(&endpoint)))
            && (self.statuses.is_empty()
                || self.statuses.iter().any(|(from, to)| (*from..=*to).contains(&facts.status)))
            && (self.shapes.is_empty() || error.is_some_and(|error| self.shapes.contains(&error.shape)))
            && within(self.codes, code)
            && within(self.subcodes, subcode)
            && (!self.codeless || code.is_none())
            && (!self.subcodeless || subcode.is_none())
            && (!self.silent || facts.message.is_empty())
            && (self.kinds.is_empty() || error.is_some_and(|error| self.kinds.contains(&error.kind.as_str())))
            && (self.words.is_empty()
                || error.is_some_and(|error| error.words.iter().any(|word| self.words.contains(&word.as_str()))))
            && self.transient.is_none_or(|transient| error.and_then(|error| error.transient) == Some(transient))
            && facts.challenge.contains(self.challenge)
            && said(self.phrases)
    }
}

const ANY: When = When {
    bodies: &[],
    endpoints: &[],
    statuses: &[],
    shapes: &[],
    codes: &[],
    subcodes: &[],
    codeless: false,
    subcodeless: false,
    silent: false,
    kinds: &[],
    words: &[],
    phrases: &[],
    transient: None,
    challenge: "",
};

/// Every condition on an error asks for [`Body::Error`].
const ERROR: When = When { bodies: &[Body::Error], ..ANY };

const UNREADABLE: &[Body] = &[Body::Empty, Body::Null, Body::Html, Body::Text, Body::Truncated];
const OUTAGES: &[(u16, u16)] = &[(408, 408), (425, 425), (500, 599)];

const APP: Option<Scope> = Some(Scope::App);
const CONNECTION: Option<Scope> = Some(Scope::Connection);
const NOBODY: Option<Scope> = None;

const GRAPH_ERRORS: &str = "https://developers.facebook.com/docs/graph-api/guides/error-handling";
const GRAPH_LIMITS: &str = "https://developers.facebook.com/docs/graph-api/overview/rate-limiting";
const DEBUGGING: &str =
    "https://developers.facebook.com/docs/facebook-login/access-tokens/debugging-and-error-handling";
const DEBUG_TOKEN: &str = "https://developers.facebook.com/docs/graph-api/reference/debug_token";
const LONG_LIVED: &str = "https://developers.facebook.com/docs/facebook-login/guides/access-tokens/get-long-lived";
const RFC_ERRORS: &str = "https://www.rfc-editor.org/rfc/rfc6749#section-5.2";
const RFC_TOKENS: &str = "https://www.rfc-editor.org/rfc/rfc6749#section-5.1";
const PHP_SDK: &str = "https://github.com/facebookarchive/php-graph-sdk FacebookResponseException";
const ANDROID_SDK: &str = "https://github.com/facebook/facebook-android-sdk FacebookRequestError";
const WOOCOMMERCE: &str = "https://github.com/facebook/facebook-for-woocommerce PostParseResponseValidationTest";
const WEBUTIL: &str = "https://github.com/snarfed/webutil test_util.py";
const AIRBYTE: &str = "https://github.com/airbytehq/airbyte source-facebook-marketing test_errors.py";
const KOALA: &str = "https://github.com/arsduo/koala graph_error_checker_spec.rb";
const SPRING: &str = "https://github.com/spring-projects/spring-social-facebook error-*.json";
const RESTFB: &str = "https://github.com/restfb/restfb FacebookExceptionGenerator";
const IG_ERRORS: &str =
    "https://developers.facebook.com/docs/instagram-platform/instagram-graph-api/reference/error-codes";

const fn rule(
    name: &'static str,
    outcome: Outcome,
    reason: &'static str,
    scope: Option<Scope>,
    source: &'static str,
    when: When,
) -> Rule {
    Rule { name, outcome, reason, scope, source, when }
}

/// The table.
pub static RULES: &[Rule] = &[
    // No answer.
    rule("not_sent", Transient, "not_sent", NOBODY, RESTFB, When { bodies: &[Body::NotSent], ..ANY }),
    rule("answer_lost", Transient, "answer_lost", NOBODY, RESTFB, When { bodies: &[Body::Lost], ..ANY }),
    // Successes. A plausible token under 2xx is a success whatever stands beside it: one dropped is one lost for ever.
    rule("token_granted", Refreshed, "granted", CONNECTION, RFC_TOKENS, When { bodies: &[Body::Granted], ..ANY }),
    rule(
        "token_without_expiry",
        Refreshed,
        "expiry_unknown",
        CONNECTION,
        LONG_LIVED,
        When { bodies: &[Body::GrantedSilent], ..ANY },
    ),
    rule(
        "token_with_odd_expiry",
        Refreshed,
        "expiry_unbelievable",
        CONNECTION,
        RFC_TOKENS,
        When { bodies: &[Body::GrantedOdd], ..ANY },
    ),
    rule("inspection_valid", Refreshed, "valid", CONNECTION, DEBUG_TOKEN, When { bodies: &[Body::Valid], ..ANY }),
    rule(
        "inspection_without_expiry",
        Refreshed,
        "expiry_unknown",
        CONNECTION,
        DEBUG_TOKEN,
        When { bodies: &[Body::ValidSilent], ..ANY },
    ),
    // Limits, also under a message that sounds otherwise and whatever `is_transient` says.
    rule(
        "action_block",
        RateLimited,
        "action_blocked",
        CONNECTION,
        IG_ERRORS,
        When { codes: &[(4, 4)], subcodes: &[(2_207_051, 2_207_051)], ..ERROR },
    ),
    rule("policy_block", RateLimited, "policy_block", CONNECTION, GRAPH_ERRORS, When { codes: &[(368, 368)], ..ERROR }),
    rule(
        "app_blocked_beside_limit",
        Misconfigured,
        "app_blocked",
        APP,
        "https://github.com/codingbadger/instant-tokens.com/issues/14",
        When { codes: &[(4, 4)], phrases: &["api access blocked", "api access deactivated"], ..ERROR },
    ),
    rule("app_limit", RateLimited, "app_limit", APP, GRAPH_LIMITS, When { codes: &[(4, 4)], ..ERROR }),
    rule(
        "account_limit",
        RateLimited,
        "account_limit",
        CONNECTION,
        GRAPH_LIMITS,
        When { codes: &[(9, 9), (17, 17), (32, 32), (341, 341), (613, 613), (80_000, 80_099)], ..ERROR },
    ),
    rule(
        "instagram_hourly_limit",
        RateLimited,
        "account_limit",
        CONNECTION,
        "https://github.com/stevenschobert/instafeed.js/issues/519",
        When { kinds: &["oauthratelimitexception"], ..ERROR },
    ),
    // The provider's own word that it will pass.
    rule(
        "marked_transient",
        Transient,
        "marked_transient",
        NOBODY,
        "https://github.com/snarfed/bridgy/issues/450",
        When { transient: Some(true), ..ERROR },
    ),
    rule(
        "status_429",
        RateLimited,
        "too_many_requests",
        APP,
        "https://www.rfc-editor.org/rfc/rfc6585#section-4",
        When { statuses: &[(429, 429)], ..ANY },
    ),
    // Nothing that can be read. A page from the edge is never a verdict on the token, at whatever status.
    rule(
        "challenge_beside_no_body",
        NeedsReconnect,
        "token_invalid",
        CONNECTION,
        "https://www.rfc-editor.org/rfc/rfc6750#section-3.1",
        When { bodies: UNREADABLE, statuses: &[(400, 401)], challenge: "invalid_token", ..ANY },
    ),
    rule(
        "text_limit",
        RateLimited,
        "too_many_requests",
        APP,
        GRAPH_LIMITS,
        When { bodies: &[Body::Text], phrases: phrases::THROTTLE, ..ANY },
    ),
    rule("body_cut", Transient, "body_cut", NOBODY, KOALA, When { bodies: &[Body::Truncated], ..ANY }),
    rule("body_empty", Transient, "body_empty", NOBODY, KOALA, When { bodies: &[Body::Empty, Body::Null], ..ANY }),
    rule("body_html", Transient, "body_not_json", NOBODY, SPRING, When { bodies: &[Body::Html], ..ANY }),
    rule("body_text", Transient, "body_not_json", NOBODY, KOALA, When { bodies: &[Body::Text], ..ANY }),
    // The app itself, under codes 200, 190, 101, 100, 10, 1 and others: every connection of it looks dead at once.
    rule(
        "app_blocked",
        Misconfigured,
        "app_blocked",
        APP,
        "https://github.com/codingbadger/instant-tokens.com/issues/14",
        When { phrases: &["api access blocked", "api access deactivated"], ..ERROR },
    ),
    rule(
        "app_secret",
        Misconfigured,
        "app_credentials",
        APP,
        "https://github.com/facebookarchive/php-graph-sdk/issues/538",
        When {
            phrases: &[
                "error validating client secret",
                "invalid client_secret",
                "invalid client secret",
                "client secret is invalid",
                "appsecret_proof",
                "app secret proof",
            ],
            ..ERROR
        },
    ),
    rule(
        "app_trouble",
        Misconfigured,
        "app_invalid",
        APP,
        "https://github.com/diowa/icare/issues/5",
        When { phrases: phrases::APP, ..ERROR },
    ),
    rule(
        "app_token_signature",
        Misconfigured,
        "app_credentials",
        APP,
        DEBUG_TOKEN,
        When {
            endpoints: &[Endpoint::DebugToken],
            shapes: &[Shape::Graph],
            phrases: &["access token signature", "cannot parse access token"],
            ..ERROR
        },
    ),
    rule(
        "token_signature",
        Misconfigured,
        "token_of_another_app",
        CONNECTION,
        DEBUG_TOKEN,
        When { phrases: &["access token signature"], ..ERROR },
    ),
    rule(
        "token_unreadable",
        Misconfigured,
        "token_damaged_or_wrong_host",
        CONNECTION,
        "https://github.com/Cap-go/capacitor-social-login/issues/404",
        When { phrases: &["cannot parse access token"], ..ERROR },
    ),
    rule(
        "threads_app_id",
        Misconfigured,
        "app_invalid",
        APP,
        "https://github.com/brightbeanxyz/brightbean-studio/issues/136",
        When { codes: &[(4_476_002, 4_476_002)], ..ERROR },
    ),
    // Limits and outages that say so in words; before the error words, so that neither is ever taken for a dead token.
    rule(
        "limit_words",
        RateLimited,
        "too_many_requests",
        APP,
        "https://www.rfc-editor.org/rfc/rfc8628#section-3.5",
        When { words: phrases::LIMIT_WORDS, ..ERROR },
    ),
    rule(
        "limit_phrases",
        RateLimited,
        "too_many_requests",
        CONNECTION,
        GRAPH_LIMITS,
        When { phrases: phrases::THROTTLE, ..ERROR },
    ),
    // No real body of it is known; whatever it is, it will speak of the age.
    rule(
        "too_young",
        TooYoung,
        "under_24_hours_of_age",
        CONNECTION,
        "https://developers.facebook.com/docs/instagram-platform/reference/refresh_access_token",
        When { endpoints: &[Endpoint::IgRefresh, Endpoint::ThRefresh], phrases: phrases::TOO_YOUNG, ..ERROR },
    ),
    rule("outage_phrases", Transient, "provider_trouble", NOBODY, AIRBYTE, When { phrases: phrases::OUTAGE, ..ERROR }),
    // Codes 1 and 2.
    rule(
        "service_unavailable",
        Transient,
        "provider_trouble",
        NOBODY,
        GRAPH_ERRORS,
        When { codes: &[(2, 2), (-3, -1)], ..ERROR },
    ),
    rule(
        "profile_not_linked",
        NeedsReconnect,
        "profile_not_linked",
        CONNECTION,
        AIRBYTE,
        When { codes: &[(1, 1)], subcodes: &[(2_853_001, 2_853_001)], ..ERROR },
    ),
    rule(
        "https_required",
        Misconfigured,
        "request_refused",
        APP,
        SPRING,
        When { phrases: &["must use https"], ..ERROR },
    ),
    rule(
        "parameter_missing",
        Misconfigured,
        "request_refused",
        APP,
        "https://github.com/Thuzi/facebook-node-sdk/issues/82",
        When { codes: &[(1, 1)], phrases: &["parameter not specified"], ..ERROR },
    ),
    rule(
        "threads_unknown_app",
        Misconfigured,
        "app_invalid",
        APP,
        "https://github.com/heysamtexas/django-oauth2-capture/issues/47",
        When {
            endpoints: &[Endpoint::Exchange],
            shapes: &[Shape::Threads],
            statuses: &[(400, 499)],
            codes: &[(1, 1)],
            ..ERROR
        },
    ),
    rule(
        "unknown_error",
        Transient,
        "provider_trouble",
        NOBODY,
        GRAPH_ERRORS,
        When { codes: &[(1, 1)], subcodeless: true, ..ERROR },
    ),
    rule(
        "unknown_error_99",
        Transient,
        "provider_trouble",
        NOBODY,
        AIRBYTE,
        When { codes: &[(1, 1)], subcodes: &[(99, 99)], ..ERROR },
    ),
    // Dead tokens by subcode, under whatever code: seen under 190, 102, 230 and 0.
    rule(
        "expired_463",
        NeedsReconnect,
        "token_expired",
        CONNECTION,
        DEBUGGING,
        When { subcodes: &[(463, 463)], ..ERROR },
    ),
    rule(
        "app_removed_458",
        NeedsReconnect,
        "app_removed",
        CONNECTION,
        DEBUGGING,
        When { subcodes: &[(458, 458)], ..ERROR },
    ),
    rule(
        "password_460",
        NeedsReconnect,
        "password_changed",
        CONNECTION,
        DEBUGGING,
        When { subcodes: &[(460, 460)], ..ERROR },
    ),
    rule(
        "checkpoint_459",
        NeedsReconnect,
        "checkpoint",
        CONNECTION,
        DEBUGGING,
        When { subcodes: &[(459, 459), (490, 490)], ..ERROR },
    ),
    rule(
        "unconfirmed_464",
        NeedsReconnect,
        "user_unconfirmed",
        CONNECTION,
        DEBUGGING,
        When { subcodes: &[(464, 464)], ..ERROR },
    ),
    rule(
        "page_role_492",
        NeedsReconnect,
        "page_role_lost",
        CONNECTION,
        DEBUGGING,
        When { subcodes: &[(492, 492)], ..ERROR },
    ),
    rule(
        "unused_493",
        NeedsReconnect,
        "unused_90_days",
        CONNECTION,
        "https://github.com/MrSwitch/hello.js/issues/548",
        When { subcodes: &[(493, 493)], ..ERROR },
    ),
    rule(
        "session_ended",
        NeedsReconnect,
        "session_ended",
        CONNECTION,
        WOOCOMMERCE,
        When { subcodes: &[(450, 457), (461, 462), (465, 467)], ..ERROR },
    ),
    rule(
        "instagram_restricted",
        NeedsReconnect,
        "checkpoint",
        CONNECTION,
        IG_ERRORS,
        When { codes: &[(25, 25)], subcodes: &[(2_207_050, 2_207_050)], ..ERROR },
    ),
    // Dead tokens by code.
    rule(
        "app_token_190",
        Misconfigured,
        "app_credentials",
        APP,
        DEBUG_TOKEN,
        When { endpoints: &[Endpoint::DebugToken], shapes: &[Shape::Graph], codes: &[(190, 190), (102, 102)], ..ERROR },
    ),
    rule(
        "app_token_wanted",
        Misconfigured,
        "app_credentials",
        APP,
        DEBUG_TOKEN,
        When { endpoints: &[Endpoint::DebugToken], phrases: &["must provide an app access token"], ..ERROR },
    ),
    rule(
        "page_token_wanted",
        Misconfigured,
        "request_refused",
        CONNECTION,
        GRAPH_ERRORS,
        When { phrases: &["page access token is required", "must be called with a page access token"], ..ERROR },
    ),
    rule(
        "message_window",
        Unrecognised,
        "not_about_the_token",
        NOBODY,
        GRAPH_ERRORS,
        When {
            codes: &[(10, 10)],
            phrases: &["outside of allowed window", "outside the allowed window", "outside of the allowed window"],
            ..ERROR
        },
    ),
    rule(
        "page_role_190",
        NeedsReconnect,
        "page_role_lost",
        CONNECTION,
        WEBUTIL,
        When { codes: &[(190, 190)], phrases: &["must be an administrator of the page"], ..ERROR },
    ),
    rule(
        "token_of_other_app_190",
        Misconfigured,
        "token_of_another_app",
        CONNECTION,
        DEBUG_TOKEN,
        When {
            phrases: &[
                "did not match the viewing app",
                "does not belong to app",
                "doesn't belong to app",
                "does not match the app",
            ],
            ..ERROR
        },
    ),
    rule(
        "scope_190",
        NeedsReconnect,
        "permission_missing",
        CONNECTION,
        AIRBYTE,
        When { codes: &[(190, 190)], phrases: phrases::SCOPE, ..ERROR },
    ),
    rule(
        "expired_190",
        NeedsReconnect,
        "token_expired",
        CONNECTION,
        DEBUGGING,
        When { codes: &[(190, 190), (102, 102)], phrases: phrases::EXPIRED, ..ERROR },
    ),
    rule(
        "session_codes",
        NeedsReconnect,
        "token_invalid",
        CONNECTION,
        ANDROID_SDK,
        When { codes: &[(190, 190), (102, 102), (412, 412), (450, 467), (490, 493)], ..ERROR },
    ),
    rule(
        "permission_codes",
        NeedsReconnect,
        "permission_missing",
        CONNECTION,
        PHP_SDK,
        When { codes: &[(10, 10), (200, 299)], ..ERROR },
    ),
    // RFC 6749 and the words of other providers.
    rule(
        "client_words",
        Misconfigured,
        "app_credentials",
        APP,
        RFC_ERRORS,
        When { words: phrases::APP_WORDS, ..ERROR },
    ),
    rule(
        "outage_words",
        Transient,
        "provider_trouble",
        NOBODY,
        "https://www.rfc-editor.org/rfc/rfc6749#section-4.1.2.1",
        When { words: phrases::OUTAGE_WORDS, ..ERROR },
    ),
    rule(
        "expired_words",
        NeedsReconnect,
        "token_expired",
        CONNECTION,
        RFC_ERRORS,
        When { words: phrases::DEAD_WORDS, phrases: phrases::EXPIRED, ..ERROR },
    ),
    rule(
        "dead_words",
        NeedsReconnect,
        "token_invalid",
        CONNECTION,
        RFC_ERRORS,
        When { words: phrases::DEAD_WORDS, ..ERROR },
    ),
    rule(
        "login_words",
        NeedsReconnect,
        "login_required",
        CONNECTION,
        "https://openid.net/specs/openid-connect-core-1_0.html#AuthError",
        When { words: phrases::LOGIN_WORDS, ..ERROR },
    ),
    rule(
        "scope_words",
        NeedsReconnect,
        "permission_missing",
        CONNECTION,
        "https://www.rfc-editor.org/rfc/rfc6750#section-3.1",
        When { words: phrases::SCOPE_WORDS, ..ERROR },
    ),
    // Code 100 stands for many things.
    rule(
        "object_33",
        Unrecognised,
        "object_missing_or_forbidden",
        NOBODY,
        AIRBYTE,
        When { codes: &[(100, 100)], subcodes: &[(33, 33)], ..ERROR },
    ),
    rule(
        "object_missing",
        Unrecognised,
        "object_missing_or_forbidden",
        NOBODY,
        AIRBYTE,
        When { codes: &[(100, 100)], phrases: &["cannot be loaded due to missing permission"], ..ERROR },
    ),
    rule(
        "duplicate",
        Unrecognised,
        "not_about_the_token",
        NOBODY,
        SPRING,
        When { phrases: &["duplicate of", "duplicate status"], ..ERROR },
    ),
    rule(
        "refresh_not_supported",
        NeedsReconnect,
        "token_kind_ended",
        CONNECTION,
        "https://github.com/in2code-de/instagram/issues/41",
        When {
            endpoints: &[Endpoint::IgRefresh, Endpoint::ThRefresh],
            codes: &[(100, 100)],
            phrases: &["unsupported request - method type", "unsupported get request"],
            ..ERROR
        },
    ),
    rule(
        "permission_100",
        NeedsReconnect,
        "permission_missing",
        CONNECTION,
        AIRBYTE,
        When { codes: &[(100, 100)], phrases: phrases::SCOPE, ..ERROR },
    ),
    rule(
        "permission_100_10",
        NeedsReconnect,
        "permission_missing",
        CONNECTION,
        "https://developers.facebook.com/docs/threads/get-started",
        When { codes: &[(100, 100)], subcodes: &[(10, 10)], ..ERROR },
    ),
    // Messages without a code, or with one that says nothing.
    rule(
        "request_phrases",
        Misconfigured,
        "request_refused",
        CONNECTION,
        KOALA,
        When { phrases: phrases::REQUEST, ..ERROR },
    ),
    rule(
        "permission_phrases",
        NeedsReconnect,
        "permission_missing",
        CONNECTION,
        SPRING,
        When { codeless: true, phrases: phrases::SCOPE, ..ERROR },
    ),
    rule(
        "expired_phrases",
        NeedsReconnect,
        "token_expired",
        CONNECTION,
        SPRING,
        When { phrases: phrases::EXPIRED, ..ERROR },
    ),
    rule("dead_phrases", NeedsReconnect, "token_invalid", CONNECTION, SPRING, When { phrases: phrases::DEAD, ..ERROR }),
    // Our request or our app, by code.
    rule(
        "app_codes",
        Misconfigured,
        "app_invalid",
        APP,
        GRAPH_ERRORS,
        When { codes: &[(3, 3), (5, 5), (101, 101), (191, 191), (2635, 2635)], ..ERROR },
    ),
    rule("status_5xx", Transient, "provider_trouble", NOBODY, GRAPH_ERRORS, When { statuses: OUTAGES, ..ANY }),
    rule(
        "request_codes",
        Misconfigured,
        "request_refused",
        CONNECTION,
        GRAPH_ERRORS,
        When { codes: &[(12, 12), (15, 15), (100, 100), (104, 104), (2500, 2500)], ..ERROR },
    ),
    rule(
        "request_words",
        Misconfigured,
        "request_refused",
        CONNECTION,
        RFC_ERRORS,
        When { words: phrases::REQUEST_WORDS, ..ERROR },
    ),
    // Weak evidence.
    rule(
        "hiccup_phrases",
        Transient,
        "provider_trouble",
        NOBODY,
        "https://github.com/facebook/facebook-java-business-sdk/issues/319",
        When { codeless: true, phrases: phrases::HICCUP, ..ERROR },
    ),
    rule(
        "kind_permission",
        NeedsReconnect,
        "permission_missing",
        CONNECTION,
        "https://www.instagram.com/developer/authorization/",
        When { codeless: true, kinds: &["oauthpermissionsexception"], ..ERROR },
    ),
    rule(
        "kind_token",
        NeedsReconnect,
        "token_invalid",
        CONNECTION,
        "https://github.com/nov/fb_graph exception_spec.rb",
        When { codeless: true, kinds: &["oauthinvalidtokenexception"], ..ERROR },
    ),
    rule(
        "kind_request",
        Misconfigured,
        "request_refused",
        CONNECTION,
        "https://github.com/nov/fb_graph exception_spec.rb",
        When { codeless: true, kinds: &["oauthinvalidrequestexception", "oauthparameterexception"], ..ERROR },
    ),
    rule(
        "silent_oauth_exception",
        NeedsReconnect,
        "token_invalid",
        CONNECTION,
        DEBUGGING,
        When { codeless: true, silent: true, kinds: &["oauthexception", "oauthaccesstokenexception"], ..ERROR },
    ),
    rule(
        "oauth_exception_401",
        NeedsReconnect,
        "token_invalid",
        CONNECTION,
        "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes",
        When {
            codeless: true,
            statuses: &[(401, 401)],
            kinds: &["oauthexception", "oauthaccesstokenexception"],
            ..ERROR
        },
    ),
    rule(
        "unauthorized_401",
        NeedsReconnect,
        "token_invalid",
        CONNECTION,
        "https://www.rfc-editor.org/rfc/rfc6750#section-3.1",
        When { statuses: &[(401, 401)], words: &["unauthorized"], ..ERROR },
    ),
    rule(
        "challenge_token",
        NeedsReconnect,
        "token_invalid",
        CONNECTION,
        "https://github.com/nov/fb_graph exception_spec.rb",
        When { codeless: true, statuses: &[(400, 403)], challenge: "invalid_token", ..ANY },
    ),
    rule(
        "challenge_request",
        Misconfigured,
        "request_refused",
        CONNECTION,
        "https://github.com/nov/fb_graph exception_spec.rb",
        When { codeless: true, statuses: &[(400, 403)], challenge: "invalid_request", ..ANY },
    ),
    rule(
        "inspection_invalid",
        NeedsReconnect,
        "token_invalid",
        CONNECTION,
        DEBUG_TOKEN,
        When { bodies: &[Body::Invalid], ..ANY },
    ),
    // No success and no error.
    rule(
        "token_implausible",
        Unrecognised,
        "token_implausible",
        NOBODY,
        RFC_TOKENS,
        When { bodies: &[Body::Implausible], ..ANY },
    ),
    rule(
        "no_token",
        Unrecognised,
        "no_token",
        NOBODY,
        RFC_TOKENS,
        When { bodies: &[Body::Plain], statuses: &[(200, 299)], ..ANY },
    ),
    rule("no_error", Unrecognised, "no_error_told", NOBODY, KOALA, When { bodies: &[Body::Plain], ..ANY }),
    rule("not_known", Unrecognised, "not_known", NOBODY, GRAPH_ERRORS, ANY),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own_a_reason_and_a_source() {
        let mut names = BTreeSet::new();
        for rule in RULES {
            assert!(names.insert(rule.name), "`{}` comes twice", rule.name);
            for word in [rule.name, rule.reason] {
                let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(!word.is_empty() && word.chars().all(snake), "`{word}` is not snake case");
            }
            assert!(rule.source.starts_with("https://"), "`{}` has no source", rule.name);
        }
    }

    #[test]
    fn the_last_rule_takes_everything_and_no_other_does() {
        let facts = Facts { body: Body::Error, endpoint: None, status: 418, error: None, message: "", challenge: "" };
        let takers: Vec<_> = RULES.iter().filter(|rule| rule.when.holds(&facts)).map(|rule| rule.name).collect();
        assert_eq!(takers, ["not_known"]);
    }

    #[test]
    fn only_what_is_told_of_the_whole_app_holds_the_whole_app() {
        for rule in RULES.iter().filter(|rule| rule.scope == APP) {
            assert!(matches!(rule.outcome, Misconfigured | RateLimited), "{}", rule.name);
        }
        for rule in RULES.iter().filter(|rule| rule.outcome == NeedsReconnect) {
            assert_eq!(rule.scope, CONNECTION, "{}", rule.name);
        }
    }

    #[test]
    fn fragments_are_in_the_spelling_in_which_they_are_looked_for() {
        for rule in RULES {
            for part in rule.when.phrases.iter().chain(rule.when.words).chain(rule.when.kinds) {
                assert_eq!(*part, part.to_ascii_lowercase(), "{}", rule.name);
            }
        }
    }
}
