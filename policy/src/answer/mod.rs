//! Reads what a provider answered: any bytes, any status, any headers in, one [`Verdict`] out, never a panic.
//!
//! Three steps, each in its own file: the body is read into facts (`grant_body`, `inspection`, `shape`), the
//! first rule of the table in [`rules`] that fits decides, and the headers add how long to wait
//! ([`retry_after`], [`usage`]). What a code means stands in the table and nowhere else.

pub mod advice;
mod grant_body;
mod inspection;
mod judge;
mod phrases;
pub mod plausible;
pub mod retry_after;
pub mod rules;
mod shape;
pub mod usage;

use jiff::{SignedDuration, Timestamp};

pub use advice::{customer_action, operator_action};
pub use judge::{is_error_shape, judge, judge_no_answer};
pub use plausible::plausible;
pub use usage::Usage;

use crate::{Outcome, Scope, Secret};

/// What came back over HTTP.
#[derive(Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Names and values; names are compared without regard to case.
    pub headers: Vec<(String, String)>,
    /// The body after decompression, at most 64 KiB.
    pub body: Vec<u8>,
    /// Whether the body went on beyond what was read.
    pub truncated: bool,
}

impl Answer {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl std::fmt::Debug for Answer {
    /// Shows no byte of body or headers: both may hold a token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// No answer came.
#[derive(Debug, Clone)]
pub struct NoAnswer {
    /// Whether the provider may have carried out the request.
    pub kind: NoAnswerKind,
    /// What went wrong, without a URL and without a secret.
    pub text: String,
}

/// Whether a request without an answer may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswerKind {
    /// It never left: name resolution, connection refused, TLS.
    NotSent,
    /// It left and may have been carried out: time-out, reset.
    Lost,
}

/// Which kind of call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `fb_exchange_token` at graph.facebook.com.
    Exchange,
    /// `ig_refresh_token` at graph.instagram.com.
    IgRefresh,
    /// `th_refresh_token` at graph.threads.net.
    ThRefresh,
    /// `refresh_token` of RFC 6749, section 6, at any provider.
    Oauth2,
    /// `debug_token` at graph.facebook.com: asks about a token, grants none.
    DebugToken,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Exchange, Self::IgRefresh, Self::ThRefresh, Self::Oauth2, Self::DebugToken];

    /// The name that users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::IgRefresh => "ig_refresh",
            Self::ThRefresh => "th_refresh",
            Self::Oauth2 => "oauth2",
            Self::DebugToken => "debug_token",
        }
    }

    /// The endpoint of that name; `None` if there is none.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.name() == name)
    }
}

/// What an answer means.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The outcome of the answer as an answer; what becomes of the row is decided later.
    pub outcome: Outcome,
    /// A fixed word in snake case.
    pub reason: &'static str,
    /// The name of the rule that decided.
    pub rule: &'static str,
    /// Whom the answer is about, where it says so.
    pub scope: Option<Scope>,
    /// How long the provider asks to wait: 1 second to 24 hours. Only with `rate_limited` and `transient`.
    pub retry_after: Option<SignedDuration>,
    /// The provider's own words without control characters. May still hold a secret: see [`crate::redact::for_row`].
    pub message: Option<String>,
    /// The new token: there exactly when a token was asked for and the outcome is `refreshed`.
    pub granted: Option<Granted>,
    /// What `debug_token` told of the token.
    pub inspected: Option<Inspected>,
    /// How much of its limits the app has used.
    pub usage: Usage,
    /// No token came, and nothing in the answer (or in its absence) says that the request was not carried out:
    /// a provider that rotates may have spent the token that was sent.
    pub may_be_spent: bool,
}

/// A token that the provider has given, plausible by [`plausible()`].
#[derive(Debug, Clone)]
pub struct Granted {
    /// The access token: the same string as was sent, or a new one.
    pub token: Secret,
    /// The new refresh token of a provider that gives one.
    pub refresh_token: Option<Secret>,
    /// How long the access token lives.
    pub expires: Expires,
}

/// What an answer says of a token's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    /// Counted from before the request was sent: above zero, at most 365 days.
    In(SignedDuration),
    /// Absent, empty or null.
    Unknown,
    /// Zero, negative, beyond a year, or no number.
    Unbelievable,
}

/// What `debug_token` says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// `is_valid`
    pub valid: bool,
    /// `expires_at`
    pub expires: InspectedExpiry,
    /// The end of data access, 90 days after the person was last active; `None` if 0 or absent.
    pub data_access_expires_at: Option<Timestamp>,
    /// `issued_at`, given for long-lived tokens only.
    pub issued_at: Option<Timestamp>,
    /// The app that the token belongs to.
    pub app_id: Option<String>,
}

/// `expires_at` of `debug_token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectedExpiry {
    /// At that instant.
    At(Timestamp),
    /// `0`: the token does not expire.
    Never,
    /// Absent, or no instant that exists.
    Unknown,
}
