//! Reads an error out of a body, whatever its spelling, into one set of facts; it judges nothing.

use serde_json::{Map, Value};

/// How the provider spelled its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"error":{"message","type","code","error_subcode"}}` of the Graph API, nested or not.
    Graph,
    /// `{"data":{"error":{"message","code","subcode"}}}` of `debug_token`: about the inspected token.
    Inspection,
    /// `{"error_type","code","error_message"}` of Instagram, also under `meta`; its code is an HTTP status.
    Instagram,
    /// `{"error_message","error_code"}` of Threads.
    Threads,
    /// `{"error_code","error_msg"}` or `{"error_code","error_description"}` of the old REST API.
    Rest,
    /// `{"error":"word","error_description"}` of RFC 6749, and `error` as a sentence.
    Rfc,
    /// Other providers: `errors`, `message`, `detail`, `ok: false`.
    Other,
}

/// What an error says of itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Evidence {
    /// How it was spelled.
    pub shape: Shape,
    /// A code of the Graph API; 0 and codes that are HTTP statuses are none.
    pub code: Option<i64>,
    /// A subcode of the Graph API; 0 is none.
    pub subcode: Option<i64>,
    /// `type` or `error_type`, in lower case.
    pub kind: String,
    /// Error words in lower case and snake case, such as `invalid_grant`.
    pub words: Vec<String>,
    /// The provider's message.
    pub message: String,
    /// `is_transient`
    pub transient: Option<bool>,
    /// `retry_after` in the body, in seconds.
    pub wait_s: Option<f64>,
}

/// Longer messages are cut: no fragment that a rule looks for stands further behind.
const MESSAGE_BYTES_MAX: usize = 4096;

const MESSAGES: [&str; 16] = [
    "error_description",
    "error_message",
    "error_msg",
    "message",
    "error_summary",
    "errorSummary",
    "errorMessage",
    "description",
    "detail",
    "title",
    "reason",
    "msg",
    "resource",
    "field",
    "error",
    "code",
];

/// The error in a JSON body; `None` if it has none.
pub(super) fn read(body: &Value) -> Option<Evidence> {
    let top = match body {
        Value::Object(top) => top,
        // Batches, and Salesforce's `[{"message","errorCode"}]`.
        Value::Array(list) => list.first()?.as_object()?,
        _ => return None,
    };
    nested(top).or_else(|| data_error(top)).or_else(|| flat(top)).or_else(|| other(top))
}

/// Text such as `error=invalid_grant&error_description=…`, which some servers send in place of JSON.
pub(super) fn read_form(text: &str) -> Option<Evidence> {
    let mut top = Map::new();
    for (key, value) in text.trim().split('&').filter_map(|pair| pair.split_once('=')) {
        if matches!(key, "error" | "error_description" | "error_code" | "error_message") {
            top.insert(key.to_owned(), Value::String(super::grant_body::decode(value)));
        }
    }
    (!top.is_empty()).then(|| read(&Value::Object(top))).flatten()
}

fn nested(top: &Map<String, Value>) -> Option<Evidence> {
    match top.get("error").or_else(|| top.get("errors"))? {
        Value::Object(error) if !error.is_empty() && !says_ok(error) => {
            // An inspection without its `data`.
            let shape = if top.contains_key("is_valid") { Shape::Inspection } else { Shape::Graph };
            Some(from_object(error, shape))
        }
        Value::Array(list) => match list.first()? {
            Value::Object(error) => {
                let mut evidence = from_object(error, Shape::Other);
                if let Some(message) = text(top.get("message")) {
                    evidence.message = format!("{message}: {}", evidence.message);
                }
                Some(evidence)
            }
            Value::String(sentence) => Some(from_sentence(sentence, top)),
            _ => None,
        },
        Value::String(word) if !word.trim().is_empty() && word != "ok" => Some(from_sentence(word, top)),
        Value::Number(status) if status.as_i64() != Some(0) => {
            let mut evidence = from_object(top, Shape::Other);
            evidence.note_status(status.as_i64());
            Some(evidence)
        }
        Value::Bool(true) => Some(from_object(top, Shape::Other)),
        _ => None,
    }
}

/// TikTok sends `{"error":{"code":"ok"}}` with every success.
fn says_ok(error: &Map<String, Value>) -> bool {
    error.get("code").and_then(Value::as_str).is_some_and(|code| code.eq_ignore_ascii_case("ok"))
}

fn data_error(top: &Map<String, Value>) -> Option<Evidence> {
    let data = top.get("data")?.as_object()?;
    if let Some(error) = data.get("error").and_then(Value::as_object).filter(|error| !error.is_empty()) {
        return Some(from_object(error, Shape::Inspection));
    }
    let code = integer(data.get("error_code"))?;
    (code != 0).then(|| from_object(data, Shape::Other))
}

fn flat(top: &Map<String, Value>) -> Option<Evidence> {
    if let Some(meta) = top.get("meta").and_then(Value::as_object)
        && (meta.contains_key("error_type") || meta.contains_key("error_message"))
    {
        return Some(from_object(meta, Shape::Instagram));
    }
    if top.contains_key("error_type") {
        Some(from_object(top, Shape::Instagram))
    } else if top.contains_key("error_code") && top.contains_key("error_message") {
        Some(from_object(top, Shape::Threads))
    } else if top.contains_key("error_code") {
        (integer(top.get("error_code")) != Some(0)).then(|| from_object(top, Shape::Rest))
    } else if top.contains_key("error_message") || top.contains_key("error_description") {
        Some(from_object(top, Shape::Rest))
    } else if top.contains_key("code") && (top.contains_key("type") || top.contains_key("fbtrace_id")) {
        Some(from_object(top, Shape::Graph))
    } else {
        None
    }
}

fn other(top: &Map<String, Value>) -> Option<Evidence> {
    let refused = ["ok", "success"].iter().any(|key| top.get(*key) == Some(&Value::Bool(false)));
    let spoken = ["message", "detail", "title", "errorSummary", "errorMessage", "errorCode", "serviceErrorCode"];
    (refused || spoken.iter().any(|key| top.contains_key(*key))).then(|| from_object(top, Shape::Other))
}

fn from_sentence(sentence: &str, top: &Map<String, Value>) -> Evidence {
    let mut evidence = from_object(top, Shape::Rfc);
    evidence.words.insert(0, word(sentence));
    if sentence.contains(' ') && !evidence.message.contains(sentence) {
        evidence.message = format!("{sentence}: {}", evidence.message);
        cut(&mut evidence.message);
    }
    // The code inside a sentence, and the numeric code of Threads beside a word.
    evidence.code = evidence.code.or_else(|| code_in(&evidence.message));
    evidence
}

fn from_object(error: &Map<String, Value>, shape: Shape) -> Evidence {
    let mut evidence = Evidence {
        shape,
        code: None,
        subcode: ["error_subcode", "subcode"].iter().find_map(|key| integer(error.get(*key))).filter(|code| *code != 0),
        kind: ["error_type", "type"]
            .iter()
            .find_map(|key| text(error.get(*key)))
            .unwrap_or_default()
            .to_ascii_lowercase(),
        words: Vec::new(),
        message: message(error, shape),
        transient: error.get("is_transient").and_then(truth),
        wait_s: error.get("retry_after").and_then(Value::as_f64),
    };
    for key in ["code", "error_code", "status", "error", "error_type", "errorType", "errorCode", "error_subtype"] {
        if let Some(found) = text(error.get(key)).filter(|found| integer_of(found).is_none()) {
            evidence.words.push(word(found));
        }
    }
    let code = ["code", "error_code", "errcode"].iter().find_map(|key| integer(error.get(*key)));
    match code.filter(|code| *code != 0) {
        Some(code) if is_http_status(code) => evidence.note_status(Some(code)),
        // Other providers number their errors too, and mean other things.
        Some(code) if shape != Shape::Other => evidence.code = Some(code),
        _ => evidence.code = code_in(&evidence.message).filter(|_| shape != Shape::Other),
    }
    evidence.note_status(integer(error.get("status")));
    evidence
}

impl Evidence {
    /// Notes a status that stands in the body as the words that it means.
    fn note_status(&mut self, status: Option<i64>) {
        match status {
            Some(401) => self.words.push("unauthenticated".to_owned()),
            Some(429) => self.words.push("too_many_requests".to_owned()),
            Some(500..=599) => self.words.push("server_error".to_owned()),
            _ => {}
        }
    }
}

/// The codes 412, 450 to 467 and 490 to 493 of the Graph API are no statuses.
fn is_http_status(code: i64) -> bool {
    matches!(code, 400..=411 | 413..=431 | 500..=505 | 507..=599)
}

fn message(error: &Map<String, Value>, shape: Shape) -> String {
    let mut found = if shape == Shape::Graph || shape == Shape::Inspection {
        text(error.get("message")).or_else(|| MESSAGES.iter().find_map(|key| text(error.get(*key))))
    } else {
        MESSAGES.iter().find_map(|key| text(error.get(*key)))
    }
    .unwrap_or_default()
    .to_owned();
    if shape == Shape::Other {
        for key in ["detail", "title", "resource", "field", "code"] {
            if let Some(more) = text(error.get(key)).filter(|more| !found.contains(more)) {
                found.push(' ');
                found.push_str(more);
            }
        }
    }
    cut(&mut found);
    found
}

fn cut(message: &mut String) {
    let end = (0..=MESSAGE_BYTES_MAX.min(message.len())).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
    message.truncate(end);
}

/// `(#NNN)` at the head of a message.
fn code_in(message: &str) -> Option<i64> {
    let (digits, _) = message.trim_start().strip_prefix("(#")?.split_once(')')?;
    digits.parse().ok().filter(|code| *code != 0)
}

fn text(value: Option<&Value>) -> Option<&str> {
    value.and_then(Value::as_str).filter(|text| !text.trim().is_empty())
}

fn integer(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Number(number) => {
            number.as_i64().or_else(|| number.as_f64().filter(|code| code.fract() == 0.0).map(|code| code as i64))
        }
        Value::String(text) => integer_of(text),
        _ => None,
    }
}

fn integer_of(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => number.as_i64().map(|number| number == 1),
        Value::String(text) => Some(text.eq_ignore_ascii_case("true") || text == "1"),
        _ => None,
    }
}

fn word(text: &str) -> String {
    let mut word: String =
        text.trim().chars().take(80).map(|c| if c == ' ' || c == '-' { '_' } else { c.to_ascii_lowercase() }).collect();
    word.truncate(word.trim_end_matches(['.', '!']).len());
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(body: &str) -> Evidence {
        read(&serde_json::from_str(body).expect("JSON")).expect("an error")
    }

    #[test]
    fn every_shape_is_known_and_gives_code_and_message() {
        for (body, shape, code, message) in [
            (r#"{"error":{"code":190,"message":"m"}}"#, Shape::Graph, Some(190), "m"),
            (r#"{"error":{"code":"190","message":"m"}}"#, Shape::Graph, Some(190), "m"),
            (r#"{"error":{"code":190.0,"message":"m"}}"#, Shape::Graph, Some(190), "m"),
            (r#"{"error":{"message":"(#341) m"}}"#, Shape::Graph, Some(341), "(#341) m"),
            (r#"{"error":{"code":0,"message":"m"}}"#, Shape::Graph, None, "m"),
            (r#"{"message":"m","type":"IGApiException","code":100}"#, Shape::Graph, Some(100), "m"),
            (
                r#"{"data":{"is_valid":false,"error":{"code":190,"message":"m","subcode":467}}}"#,
                Shape::Inspection,
                Some(190),
                "m",
            ),
            (r#"{"is_valid":false,"error":{"code":190,"message":"m"}}"#, Shape::Inspection, Some(190), "m"),
            (r#"{"error_type":"OAuthException","code":400,"error_message":"m"}"#, Shape::Instagram, None, "m"),
            (r#"{"meta":{"error_type":"E","code":400,"error_message":"m"}}"#, Shape::Instagram, None, "m"),
            (r#"{"error_message":"m","error_code":1}"#, Shape::Threads, Some(1), "m"),
            (r#"{"error_code":190,"error_description":"m"}"#, Shape::Rest, Some(190), "m"),
            (r#"{"error_code":1,"error_msg":"m"}"#, Shape::Rest, Some(1), "m"),
            (r#"{"error":"invalid_grant","error_description":"m"}"#, Shape::Rfc, None, "m"),
            (r#"{"status":401,"message":"m"}"#, Shape::Other, None, "m"),
            (r#"{"errors":[{"code":89,"message":"m"}]}"#, Shape::Other, None, "m"),
        ] {
            let found = evidence(body);
            assert_eq!((found.shape, found.code, found.message.as_str()), (shape, code, message), "{body}");
        }
    }

    #[test]
    fn words_are_found_wherever_providers_put_them() {
        for (body, word) in [
            (r#"{"error":"invalid_grant"}"#, "invalid_grant"),
            (r#"{"error":"Access Denied","error_description":"x"}"#, "access_denied"),
            (r#"{"error":{"code":"access_token_invalid","message":"x"}}"#, "access_token_invalid"),
            (r#"{"error":{"status":"RESOURCE_EXHAUSTED","code":429}}"#, "resource_exhausted"),
            (r#"{"errors":[{"errorType":"invalid_grant","message":"x"}],"success":false}"#, "invalid_grant"),
            (r#"{"status":"BAD_REFRESH_TOKEN","message":"x"}"#, "bad_refresh_token"),
            (r#"{"ok":false,"error":"token_revoked"}"#, "token_revoked"),
            (r#"{"message":"Too Many Requests","error":429}"#, "too_many_requests"),
            (r#"[{"message":"x","errorCode":"INVALID_SESSION_ID"}]"#, "invalid_session_id"),
        ] {
            let found = evidence(body);
            assert!(found.words.iter().any(|found| found == word), "{body}: {:?}", found.words);
        }
        assert!(
            read_form("error=invalid_grant&error_description=Gone+away")
                .is_some_and(|found| found.message == "Gone away")
        );
    }

    #[test]
    fn empty_errors_are_none() {
        for body in [
            r#"{"error":null}"#,
            r#"{"error":""}"#,
            r#"{"error":{}}"#,
            r#"{"error":[]}"#,
            r#"{"error":0}"#,
            r#"{"error":false}"#,
            r#"{"error":{"code":"ok","message":""}}"#,
            r#"{"data":{"error":{}}}"#,
            r#"{"data":{"error_code":0}}"#,
            r#"{"id":"1"}"#,
            "[]",
            "17",
        ] {
            assert_eq!(read(&serde_json::from_str(body).expect("JSON")), None, "{body}");
        }
    }
}
