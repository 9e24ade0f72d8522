//! Interprets the table of [`super::rules`]: reads the facts once, takes the first rule that holds.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::grant_body::{self, Found};
use super::rules::{Body, Facts, RULES, Rule};
use super::shape::{self, Evidence};
use super::{
    Answer, Endpoint, Expires, Granted, Inspected, InspectedExpiry, NoAnswer, NoAnswerKind, Usage, Verdict, inspection,
    retry_after, usage,
};
use crate::Outcome;

/// The longest message that is handed on, in characters.
const MESSAGE_CHARS_MAX: usize = 1000;

/// Says what an answer means. `now` serves only to read a date in `Retry-After`.
///
/// A plausible token under 2xx is a success whatever stands beside it: dropped, it might be lost for ever. An
/// expiry that cannot be believed is told in the reason; what becomes of the row is decided elsewhere.
///
/// ```
/// use perene_policy::Outcome;
/// use perene_policy::answer::{Answer, Endpoint, judge};
///
/// let body = br#"{"error":{"message":"Error validating access token","code":190,"error_subcode":460}}"#;
/// let answer = Answer { status: 500, headers: vec![], body: body.to_vec(), truncated: false };
/// let verdict = judge(Endpoint::Exchange, &answer, "2026-11-23T03:00:00Z".parse()?);
///
/// // A dead token, though the status speaks of an outage.
/// assert_eq!(verdict.outcome, Outcome::NeedsReconnect);
/// assert_eq!(verdict.reason, "password_changed");
/// # Ok::<(), jiff::Error>(())
/// ```
pub fn judge(endpoint: Endpoint, answer: &Answer, now: Timestamp) -> Verdict {
    let usage = usage::read(answer);
    let read = read(endpoint, answer);
    let message = read.error.as_ref().map_or(read.text.as_str(), |error| error.message.as_str());
    let lower = message.to_lowercase().replace('\u{2019}', "'");
    let challenge = answer.header("www-authenticate").unwrap_or_default().to_ascii_lowercase();
    let rule = first(&Facts {
        body: read.body,
        endpoint: Some(endpoint),
        status: answer.status,
        error: read.error.as_ref(),
        message: &lower,
        challenge: &challenge,
    });
    Verdict {
        may_be_spent: may_be_spent(answer.status, read.body, &lower),
        outcome: rule.outcome,
        reason: rule.reason,
        rule: rule.name,
        scope: rule.scope,
        retry_after: wait(rule.outcome, answer, read.error.as_ref(), usage, now),
        message: printable(message),
        granted: read.granted,
        inspected: read.inspected,
        usage,
    }
}

/// Says what it means that no answer came: always `transient`.
pub fn judge_no_answer(no: &NoAnswer) -> Verdict {
    let body = match no.kind {
        NoAnswerKind::NotSent => Body::NotSent,
        NoAnswerKind::Lost => Body::Lost,
    };
    let rule = first(&Facts { body, endpoint: None, status: 0, error: None, message: "", challenge: "" });
    Verdict {
        outcome: rule.outcome,
        reason: rule.reason,
        rule: rule.name,
        scope: rule.scope,
        retry_after: None,
        message: printable(&no.text),
        granted: None,
        inspected: None,
        usage: Usage::default(),
        may_be_spent: no.kind == NoAnswerKind::Lost,
    }
}

/// Whether a request that brought no token may have been carried out. Success without a token may; so may what
/// a gateway answers in the place of a server that it lost sight of. 501, 503 and 505 say that the request was
/// not taken up (RFC 9110, section 15.6), and an error under 4xx is the provider's own decision against it. Envoy says
/// 503 also of a request that its server took and did not answer.
/// <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#response-flags>
fn may_be_spent(status: u16, body: Body, message: &str) -> bool {
    let brought_a_token = matches!(body, Body::Granted | Body::GrantedSilent | Body::GrantedOdd);
    // RFC 6749 has errors under 400; Slack and TikTok send theirs under 200.
    let is_success = status < 300 && !matches!(body, Body::Error);
    let was_reset = message.contains("reset before headers")
        && !["connection failure", "overflow", "connection timeout"].iter().any(|reason| message.contains(reason));
    let is_lost_behind_a_gateway = status >= 500 && (was_reset || !matches!(status, 501 | 503 | 505));
    !brought_a_token && (is_success || is_lost_behind_a_gateway)
}

/// Whether a body has the shape of an error: what `perene explain` takes status 400 for, where none is given.
pub fn is_error_shape(body: &[u8]) -> bool {
    let text = text_of(body);
    match serde_json::from_str::<Value>(&text) {
        Ok(value) => shape::read(&value).is_some() && !matches!(grant_body::read(&text), Found::Token(_)),
        Err(_) => !matches!(grant_body::read(&text), Found::Token(_)),
    }
}

fn first(facts: &Facts<'_>) -> &'static Rule {
    RULES.iter().find(|rule| rule.when.holds(facts)).expect("the last rule holds always")
}

/// What a body holds.
struct Read {
    body: Body,
    error: Option<Evidence>,
    /// What a body that is no JSON says to people.
    text: String,
    granted: Option<Granted>,
    inspected: Option<Inspected>,
}

impl Read {
    fn only(body: Body) -> Self {
        Self { body, error: None, text: String::new(), granted: None, inspected: None }
    }
}

fn read(endpoint: Endpoint, answer: &Answer) -> Read {
    if answer.truncated {
        return Read::only(Body::Truncated);
    }
    let text = text_of(&answer.body);
    let asks_for_a_token = endpoint != Endpoint::DebugToken && answer.is_success();
    let found = if asks_for_a_token { grant_body::read(&text) } else { Found::Nothing };
    if let Found::Token(granted) = found {
        let body = match granted.expires {
            Expires::In(_) => Body::Granted,
            Expires::Unknown => Body::GrantedSilent,
            Expires::Unbelievable => Body::GrantedOdd,
        };
        return Read { granted: Some(granted), ..Read::only(body) };
    }
    if text.trim().is_empty() {
        return Read::only(Body::Empty);
    }
    let Ok(json) = serde_json::from_str::<Value>(&text) else {
        return unreadable(&text, matches!(found, Found::Implausible));
    };
    let inspected = inspection::read(&json);
    let error = shape::read(&json).map(|error| for_endpoint(endpoint, error));
    let body = match (&error, &inspected, &json, &found) {
        (Some(_), ..) => Body::Error,
        (_, Some(inspected), ..) if !inspected.valid => Body::Invalid,
        (_, Some(inspected), ..) if endpoint == Endpoint::DebugToken && answer.is_success() => {
            match inspected.expires {
                InspectedExpiry::Unknown => Body::ValidSilent,
                InspectedExpiry::At(_) | InspectedExpiry::Never => Body::Valid,
            }
        }
        (_, _, Value::Null, _) => Body::Null,
        // A bare word or number is the text of some gateway.
        (_, _, Value::String(_) | Value::Number(_) | Value::Bool(_), _) => Body::Text,
        (.., Found::Implausible) => Body::Implausible,
        _ => Body::Plain,
    };
    let text = if body == Body::Text { text } else { String::new() };
    Read { body, error, text, granted: None, inspected }
}

fn unreadable(text: &str, implausible: bool) -> Read {
    if let Some(error) = shape::read_form(text) {
        return Read { error: Some(error), ..Read::only(Body::Error) };
    }
    if implausible {
        return Read::only(Body::Implausible);
    }
    if text.trim_start().starts_with('<') {
        return Read { text: title(text), ..Read::only(Body::Html) };
    }
    Read { text: text.chars().take(MESSAGE_CHARS_MAX).collect(), ..Read::only(Body::Text) }
}

/// The body without a byte order mark. Bytes that are no UTF-8 are replaced: the rest still says what it says.
fn text_of(body: &[u8]) -> String {
    String::from_utf8_lossy(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)).into_owned()
}

/// What stands in the head of a page.
fn title(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let found = lower.find("<title>").map(|at| at + "<title>".len()).and_then(|start| {
        let end = lower[start..].find('<')?;
        page.get(start..start + end)
    });
    found.unwrap_or_default().trim().to_owned()
}

/// The codes of the Graph API mean nothing at another provider.
fn for_endpoint(endpoint: Endpoint, error: Evidence) -> Evidence {
    if endpoint == Endpoint::Oauth2 { Evidence { code: None, subcode: None, ..error } } else { error }
}

fn wait(
    outcome: Outcome,
    answer: &Answer,
    error: Option<&Evidence>,
    usage: Usage,
    now: Timestamp,
) -> Option<SignedDuration> {
    if !matches!(outcome, Outcome::RateLimited | Outcome::Transient) {
        return None;
    }
    let told = answer.header("retry-after").and_then(|value| retry_after::parse(value, now));
    let in_body = error.and_then(|error| error.wait_s).and_then(retry_after::from_seconds);
    let regain = usage.regain.filter(|_| outcome == Outcome::RateLimited);
    // The longest: a call that comes too early prolongs the block.
    told.into_iter().chain(in_body).chain(regain).max()
}

/// The provider's words on one line; `None` if there are none.
fn printable(message: &str) -> Option<String> {
    let clean: String = message
        .chars()
        .map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c })
        .filter(|c| !c.is_control())
        .take(MESSAGE_CHARS_MAX)
        .collect();
    let clean = clean.trim();
    (!clean.is_empty()).then(|| clean.to_owned())
}
