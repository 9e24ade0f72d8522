//! The bodies and headers of Meta's answers, with their real names in their real order.

use serde::Serialize;

use super::call::{Endpoint, Reply};
use super::chance;
use super::inspect::Inspected;
use super::refusal::Refusal;

/// The version that an unversioned call is served by: the newest known.
/// <https://developers.facebook.com/docs/graph-api/changelog/versions>
const NEWEST_VERSION: &str = "v26.0";

/// The page that Meta's edge shows when it is out of order, shortened.
const SORRY_PAGE: &str = "<!DOCTYPE html>\n<html lang=\"en\" id=\"facebook\">\n  <head>\n    <title>Facebook | Error</title>\n    \
<meta charset=\"utf-8\">\n  </head>\n  <body>\n    <h1>Sorry, something went wrong.</h1>\n    \
<p>We're working on it and we'll get it fixed as soon as we can.</p>\n  </body>\n</html>\n";

/// What an app is told of its limit once it is past it, in percent.
const USAGE_PAST_LIMIT: &str = r#"{"call_count":104,"total_time":37,"total_cputime":21}"#;

/// What is in an answer.
pub(super) enum Content {
    Token(TokenBody),
    Inspected(Inspected),
    Refused(Refusal),
    SorryPage,
}

#[derive(Serialize)]
pub(super) struct TokenBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<i64>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    message: &'a str,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_transient: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_subcode: Option<u16>,
    fbtrace_id: &'a str,
}

impl Content {
    /// A token and how many seconds it is good for.
    pub(super) fn token(token: impl Into<String>, expires_in: Option<i64>) -> Self {
        Self::Token(TokenBody { access_token: Some(token.into()), token_type: "bearer", expires_in })
    }

    /// A success that forgets the token.
    pub(super) fn no_token(expires_in: i64) -> Self {
        Self::Token(TokenBody { access_token: None, token_type: "bearer", expires_in: Some(expires_in) })
    }
}

/// Writes an answer; `trace` makes its ids.
pub(super) fn render(content: &Content, endpoint: Endpoint, version: Option<&str>, trace: u64) -> Reply {
    let fbtrace_id = chance::trace_id(trace, 23);
    let mut headers = vec![("x-fb-trace-id".to_owned(), chance::trace_id(!trace, 11))];
    // The token endpoints of Instagram and Threads have no versions.
    if !matches!(endpoint, Endpoint::InstagramRefresh | Endpoint::ThreadsRefresh) {
        headers.push(("facebook-api-version".to_owned(), version.unwrap_or(NEWEST_VERSION).to_owned()));
    }
    let (status, body) = match content {
        Content::Token(body) => (200, json(body)),
        Content::Inspected(body) => (200, json(body)),
        Content::Refused(refusal) => {
            headers.push(("www-authenticate".to_owned(), challenge(refusal)));
            if refusal.code == Some(4) {
                headers.push(("x-app-usage".to_owned(), USAGE_PAST_LIMIT.to_owned()));
            }
            (refusal.status, json(&ErrorBody { error: error_object(refusal, &fbtrace_id) }))
        }
        Content::SorryPage => (500, SORRY_PAGE.as_bytes().to_vec()),
    };
    let kind = match content {
        Content::SorryPage => "text/html; charset=utf-8",
        _ => "application/json; charset=UTF-8",
    };
    headers.push(("content-type".to_owned(), kind.to_owned()));
    Reply { status, headers, body, delay: std::time::Duration::ZERO }
}

fn error_object<'a>(refusal: &'a Refusal, fbtrace_id: &'a str) -> ErrorObject<'a> {
    ErrorObject {
        message: &refusal.message,
        r#type: refusal.kind,
        is_transient: refusal.is_transient,
        code: refusal.code,
        error_subcode: refusal.subcode,
        fbtrace_id,
    }
}

/// `WWW-Authenticate` as Meta has it, its message reduced to what a header may carry.
fn challenge(refusal: &Refusal) -> String {
    let error = if refusal.code == Some(190) { "invalid_token" } else { "invalid_request" };
    let message: String =
        refusal.message.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\')).collect();
    format!("OAuth \"Facebook Platform\" \"{error}\" \"{message}\"")
}

fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("answers have only texts, numbers and lists")
}
