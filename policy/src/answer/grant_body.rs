//! Finds the new token in a body: JSON flat or under `data`, or form-encoded as old servers send it.
//!
//! Values are kept raw until one is needed, so that a success costs one pass and a body with a number that no
//! float can hold still gives its token.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Expires, Granted, plausible};
use crate::Secret;

/// 365 days: no provider gives a token more, and a wrong unit (milliseconds, an instant) always does.
const LIFE_MAX_S: f64 = 365.0 * 86_400.0;

/// What a body holds where a token should be.
pub(super) enum Found {
    /// A plausible token.
    Token(Granted),
    /// Something that cannot be a token.
    Implausible,
    /// No token at all.
    Nothing,
}

#[derive(Deserialize, Default)]
struct Flat<'a> {
    #[serde(borrow)]
    access_token: Option<&'a RawValue>,
    #[serde(borrow)]
    refresh_token: Option<&'a RawValue>,
    #[serde(borrow)]
    expires_in: Option<&'a RawValue>,
    #[serde(borrow)]
    expires: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Reads a body without its byte order mark.
pub(super) fn read(text: &str) -> Found {
    match text.trim_start().as_bytes().first() {
        Some(b'{') => flat(text).map_or(Found::Nothing, |flat| from_flat(&flat)),
        Some(b'[' | b'"' | b'<') | None => Found::Nothing,
        Some(_) if text.contains('=') => from_form(text),
        Some(_) => Found::Nothing,
    }
}

fn flat(text: &str) -> Option<Flat<'_>> {
    serde_json::from_str(text).ok().or_else(|| {
        // A key that comes twice: the last one counts, as with every lenient parser.
        let map: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).ok()?;
        let get = |key| map.get(key).copied();
        Some(Flat {
            access_token: get("access_token"),
            refresh_token: get("refresh_token"),
            expires_in: get("expires_in"),
            expires: get("expires"),
            data: get("data"),
        })
    })
}

fn from_flat(flat: &Flat<'_>) -> Found {
    let Some(raw) = flat.access_token else {
        return flat.data.map_or(Found::Nothing, |data| from_data(data.get()));
    };
    let Some(token) = text_of(raw).filter(|token| plausible(token).is_ok()) else { return Found::Implausible };
    let expires = match flat.expires_in.map_or(Expires::Unknown, expires_of_json) {
        Expires::Unknown => flat.expires.map_or(Expires::Unknown, expires_of_json),
        known => known,
    };
    let refresh_token = match flat.refresh_token.filter(|raw| !is_nothing(raw)) {
        None => None,
        // One was issued, and cannot be kept: the pair is lost, and the old one is as spent as if none had come.
        Some(raw) => match text_or_number(raw).filter(|token| plausible(token).is_ok()) {
            None => return Found::Implausible,
            known => known,
        },
    };
    Found::Token(Granted { token: Secret::new(token), refresh_token: refresh_token.map(Secret::new), expires })
}

/// `{"data":[{…}]}` as api.instagram.com sends it, and `{"data":{…}}`. One level and no more.
fn from_data(data: &str) -> Found {
    let first = if data.starts_with('[') {
        serde_json::from_str::<Vec<&RawValue>>(data).ok().and_then(|list| list.first().map(|raw| raw.get()))
    } else {
        Some(data)
    };
    match first.filter(|text| text.starts_with('{')).and_then(flat) {
        Some(inner) if inner.access_token.is_some() => from_flat(&inner),
        _ => Found::Nothing,
    }
}

fn text_of(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// Whether this stands for no value at all.
fn is_nothing(raw: &RawValue) -> bool {
    raw.get() == "null" || text_of(raw).is_some_and(|text| text.trim().is_empty())
}

/// A new refresh token that is not stored is a connection lost: one that is made of digits alone is one too.
fn text_or_number(raw: &RawValue) -> Option<String> {
    let is_number = raw.get().bytes().all(|byte| byte.is_ascii_digit());
    if is_number { Some(raw.get().to_owned()) } else { text_of(raw) }
}

fn from_form(text: &str) -> Found {
    let field = |name: &str| {
        text.trim()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| decode(value))
    };
    let Some(token) = field("access_token") else { return Found::Nothing };
    if plausible(&token).is_err() {
        return Found::Implausible;
    }
    let expires = match field("expires_in").map_or(Expires::Unknown, |text| expires_of_text(&text)) {
        Expires::Unknown => field("expires").map_or(Expires::Unknown, |text| expires_of_text(&text)),
        known => known,
    };
    let refresh_token = field("refresh_token").filter(|token| plausible(token).is_ok());
    Found::Token(Granted { token: Secret::new(token), refresh_token: refresh_token.map(Secret::new), expires })
}

/// Decodes one value of a form; what is no escape stays as it stands.
pub(super) fn decode(value: &str) -> String {
    let bytes = value.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| crate::redact::hex_pair(bytes.get(at + 1..at + 3)?)).flatten();
        at += if escaped.is_some() { 3 } else { 1 };
        decoded.push(escaped.unwrap_or(if byte == b'+' { b' ' } else { byte }));
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn expires_of_json(raw: &RawValue) -> Expires {
    match raw.get() {
        "null" => Expires::Unknown,
        text if text.starts_with('"') => text_of(raw).map_or(Expires::Unbelievable, |text| expires_of_text(&text)),
        text => expires_of_text(text),
    }
}

fn expires_of_text(text: &str) -> Expires {
    let text = text.trim();
    if text.is_empty() || text == "null" {
        return Expires::Unknown;
    }
    match text.parse::<f64>() {
        // A fraction of a millisecond is no life.
        Ok(seconds) if (0.001..=LIFE_MAX_S).contains(&seconds) => {
            Expires::In(SignedDuration::from_millis((seconds * 1000.0) as i64))
        }
        _ => Expires::Unbelievable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expires(body: &str) -> Expires {
        match read(body) {
            Found::Token(granted) => granted.expires,
            Found::Implausible => panic!("implausible: {body}"),
            Found::Nothing => panic!("nothing: {body}"),
        }
    }

    #[test]
    fn a_life_is_read_from_number_or_text_and_nothing_else_is_believed() {
        let hour = Expires::In(SignedDuration::from_hours(1));
        for (value, expected) in [
            ("3600", hour),
            ("\"3600\"", hour),
            ("\" 3600 \"", hour),
            ("3600.0", hour),
            ("3.6e3", hour),
            ("31536000", Expires::In(SignedDuration::from_hours(8760))),
            ("null", Expires::Unknown),
            ("\"\"", Expires::Unknown),
            ("0", Expires::Unbelievable),
            ("-1", Expires::Unbelievable),
            ("31536001", Expires::Unbelievable),
            ("1e18", Expires::Unbelievable),
            ("1e999", Expires::Unbelievable),
            ("99999999999999999999999999", Expires::Unbelievable),
            ("\"baz\"", Expires::Unbelievable),
            ("\"NaN\"", Expires::Unbelievable),
            ("\"inf\"", Expires::Unbelievable),
            ("true", Expires::Unbelievable),
            ("[3600]", Expires::Unbelievable),
            ("{}", Expires::Unbelievable),
        ] {
            assert_eq!(expires(&format!(r#"{{"access_token":"t1","expires_in":{value}}}"#)), expected, "{value}");
        }
    }

    #[test]
    fn the_older_name_is_read_where_the_newer_is_missing() {
        assert_eq!(expires(r#"{"access_token":"t1","expires":60}"#), Expires::In(SignedDuration::from_secs(60)));
        assert_eq!(expires("access_token=t1&expires=5183975"), Expires::In(SignedDuration::from_secs(5_183_975)));
        assert_eq!(expires("access_token=t1&expires_in=baz"), Expires::Unbelievable);
        assert_eq!(expires("access_token=t1"), Expires::Unknown);
    }

    #[test]
    fn tokens_are_found_in_every_shape() {
        for (body, token) in [
            (r#"{"data":[{"access_token":"t1","user_id":17841400000000000000}]}"#, "t1"),
            (r#"{"data":{"access_token":"t1"}}"#, "t1"),
            (r#"{"access_token":"t0","access_token":"t1"}"#, "t1"),
            (r#"{"access_token":"t\u0031"}"#, "t1"),
            ("access_token=t%31%7C2&token_type=bearer", "t1|2"),
            ("access_token=100%", "100%"),
        ] {
            let Found::Token(granted) = read(body) else { panic!("{body}") };
            assert_eq!(granted.token.expose(), token, "{body}");
        }
    }

    #[test]
    fn what_is_no_token_is_not_taken_for_one() {
        for value in ["null", "\"null\"", "\"\"", "\"undefined\"", "\"a b\"", "\"a\\u0000b\"", "17", "[\"t1\"]", "{}"] {
            let body = format!(r#"{{"access_token":{value},"expires_in":3600}}"#);
            // JSON null is the same as an absent key.
            assert!(!matches!(read(&body), Found::Token(_)), "{value}");
        }
        assert!(matches!(read("access_token=&expires=1"), Found::Implausible));
        assert!(matches!(read("access_token=a+b"), Found::Implausible));
        assert!(matches!(read(r#"{"data":[]}"#), Found::Nothing));
        assert!(matches!(read("hello = world"), Found::Nothing));
    }

    #[test]
    fn a_refresh_token_comes_along_only_if_plausible() {
        let read_refresh = |body| match read(body) {
            Found::Token(granted) => granted.refresh_token.map(|secret| secret.expose().to_owned()),
            _ => panic!("{body}"),
        };
        assert_eq!(read_refresh(r#"{"access_token":"t1","refresh_token":"r1"}"#).as_deref(), Some("r1"));
        assert_eq!(read_refresh(r#"{"access_token":"t1","refresh_token":17841400}"#).as_deref(), Some("17841400"));
        assert_eq!(read_refresh(r#"{"access_token":"t1","refresh_token":""}"#), None);
        assert_eq!(read_refresh(r#"{"access_token":"t1","refresh_token":null}"#), None);
        for value in ["\"a b\"", "[\"r1\"]", "{}", "true", "\"a\\u0000b\""] {
            let body = format!(r#"{{"access_token":"t1","refresh_token":{value}}}"#);
            assert!(matches!(read(&body), Found::Implausible), "{value}");
        }
    }
}
