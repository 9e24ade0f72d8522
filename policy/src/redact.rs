//! Makes a provider's message fit to be stored and shown: no secret, no control character, one short line.
//!
//! Providers echo what was sent to them, also a secret and also percent-encoded. The secrets that the caller knows are
//! replaced wherever they stand, and so is everything that looks like a token though nobody knows it.

use std::ops::Range;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";
/// The longest result, in characters.
pub const CHARS_MAX: usize = 240;
/// Shorter texts are no secrets, and replacing them would leave nothing of a message.
const SECRET_CHARS_MIN: usize = 4;
/// From here on a run of letters and digits is taken for a token: an app secret has 32.
const RUN_CHARS_MIN: usize = 32;
/// From here on a word with the beginning of one of Meta's tokens is taken for one.
const META_CHARS_MIN: usize = 20;
/// Longer messages are cut before they are searched.
const INPUT_CHARS_MAX: usize = 8192;

/// Names of parameters whose value is always a secret.
const PARAMETERS: [&str; 11] = [
    "access_token",
    "refresh_token",
    "client_secret",
    "fb_exchange_token",
    "input_token",
    "appsecret_proof",
    "app_secret",
    "signed_request",
    "id_token",
    "password",
    "authorization",
];

/// A message for a row, a log or a mail: secrets replaced, control characters removed, blanks folded, at most 240
/// characters. A replacement is never cut.
///
/// ```
/// let text = perene_policy::redact::for_row("bad token\n EAAB%7C1 sent", &["EAAB|1"]);
/// assert_eq!(text, "bad token [redacted] sent");
/// ```
pub fn for_row(message: &str, secrets: &[&str]) -> String {
    let clean = fold(message);
    let mut found = Vec::new();
    for secret in secrets {
        // As it was given, and as it looks once the message around it has been cleaned.
        let folded = fold(secret);
        for form in [*secret, folded.as_str()] {
            if form.chars().count() >= SECRET_CHARS_MIN {
                find(&clean, form.as_bytes(), &mut found);
            }
        }
    }
    find_parameters(&clean, &mut found);
    find_runs(&clean, &mut found);
    shorten(&clean, &merge(&clean, found))
}

/// Two hexadecimal digits as a byte.
pub(crate) fn hex_pair(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

/// One line without control characters, escape sequences and invisible characters.
fn fold(message: &str) -> String {
    let mut folded = String::with_capacity(message.len().min(4 * CHARS_MAX));
    let mut chars = message.chars().take(INPUT_CHARS_MAX).peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // A control sequence ends at its first letter, a command at the bell or the terminator.
                Some('[') => while chars.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
                Some(']') => while chars.next_if(|c| *c != '\u{7}' && *c != '\u{1b}').is_some() {},
                _ => {}
            },
            c if c.is_whitespace() => {
                if !folded.is_empty() && !folded.ends_with(' ') {
                    folded.push(' ');
                }
            }
            c if c.is_control() || is_invisible(c) => {}
            c => folded.push(c),
        }
    }
    folded.truncate(folded.trim_end().len());
    folded
}

/// Marks that change the direction of text or take no room: they can hide a secret or forge a line.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Finds a secret in any spelling: letters in either case, and any of its bytes percent-encoded.
fn find(text: &str, secret: &[u8], found: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    for start in 0..bytes.len() {
        if let Some(end) = plain_end(bytes, start, secret).or_else(|| encoded_end(bytes, start, secret)) {
            found.push(start..end);
        }
    }
}

fn plain_end(text: &[u8], start: usize, secret: &[u8]) -> Option<usize> {
    let end = start.checked_add(secret.len())?;
    text.get(start..end).filter(|part| part.eq_ignore_ascii_case(secret)).map(|_| end)
}

fn encoded_end(text: &[u8], start: usize, secret: &[u8]) -> Option<usize> {
    let mut at = start;
    for &wanted in secret {
        let byte = *text.get(at)?;
        let decoded = (byte == b'%').then(|| hex_pair(text.get(at + 1..at + 3)?)).flatten();
        at += match decoded {
            Some(decoded) if decoded.eq_ignore_ascii_case(&wanted) => 3,
            _ if byte.eq_ignore_ascii_case(&wanted) || (byte == b'+' && wanted == b' ') => 1,
            _ => return None,
        };
    }
    Some(at)
}

/// `access_token=…`, `"client_secret":"…"`, `Authorization: Bearer …`: the value, up to what ends it.
fn find_parameters(text: &str, found: &mut Vec<Range<usize>>) {
    let lower = text.to_ascii_lowercase();
    for name in PARAMETERS {
        for (at, _) in lower.match_indices(name) {
            let rest = &lower[at + name.len()..];
            let bare = rest.trim_start_matches(['"', '\'', ' ', '\\']);
            let Some(value) =
                bare.strip_prefix('=').or_else(|| bare.strip_prefix(':')).or_else(|| bare.strip_prefix("%3d"))
            else {
                continue;
            };
            let value = value.trim_start_matches(['"', '\'', ' ', '\\']);
            let value = value.strip_prefix("bearer ").unwrap_or(value);
            push_value(&lower, value, found);
        }
    }
    for (at, marker) in lower.match_indices("bearer ") {
        // "bearer token is missing" is a sentence, no header.
        let value = &lower[at + marker.len()..];
        if value.split([' ', '"', ',']).next().is_some_and(|word| word.len() >= META_CHARS_MIN) {
            push_value(&lower, value, found);
        }
    }
}

fn push_value(text: &str, value: &str, found: &mut Vec<Range<usize>>) {
    let start = text.len() - value.len();
    let length = value.find(['&', '"', '\'', ' ', ',', ';', '<', '>', ')', '}']).unwrap_or(value.len());
    if length > 0 {
        found.push(start..start + length);
    }
}

/// Words that look like a token: long, or with the beginning of one of Meta's.
fn find_runs(text: &str, found: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut start = 0;
    while start < bytes.len() {
        let length = bytes[start..].iter().take_while(|byte| is_token_byte(**byte)).count();
        if length > 0 && looks_like_token(&text[start..start + length]) {
            found.push(start..start + length);
        }
        start += length.max(1);
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'|')
}

fn looks_like_token(run: &str) -> bool {
    let of_meta = ["EAA", "IG", "TH"].iter().any(|start| run.starts_with(start)) && run.len() >= META_CHARS_MIN;
    let mixed = run.bytes().any(|byte| byte.is_ascii_digit()) && run.bytes().any(|byte| byte.is_ascii_alphabetic());
    let app_token = run
        .split_once('|')
        .is_some_and(|(id, secret)| id.len() >= 5 && id.bytes().all(|byte| byte.is_ascii_digit()) && secret.len() >= 8);
    (of_meta && mixed) || app_token || (run.len() >= RUN_CHARS_MIN && mixed && !is_uuid(run))
}

/// Trace ids help the operator and open nothing.
fn is_uuid(run: &str) -> bool {
    run.len() == 36
        && run.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Sorted and without overlaps, on the borders of characters.
fn merge(text: &str, mut found: Vec<Range<usize>>) -> Vec<Range<usize>> {
    for range in &mut found {
        while !text.is_char_boundary(range.start) {
            range.start -= 1;
        }
        while !text.is_char_boundary(range.end) {
            range.end += 1;
        }
    }
    found.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn shorten(text: &str, secret: &[Range<usize>]) -> String {
    let mut out = String::new();
    let mut room = CHARS_MAX;
    let mut at = 0;
    for range in secret {
        if !take(&mut out, &text[at..range.start], &mut room) || room < REDACTED.len() {
            return out;
        }
        out.push_str(REDACTED);
        room -= REDACTED.len();
        at = range.end;
    }
    take(&mut out, &text[at..], &mut room);
    out
}

/// Whether all of a part had room.
fn take(out: &mut String, part: &str, room: &mut usize) -> bool {
    let before = out.len();
    out.extend(part.chars().take(*room));
    let taken = out[before..].chars().count();
    *room -= taken;
    out.len() - before == part.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_secret_is_replaced_in_every_spelling() {
        for message in ["got a/b+c|d=1", "got a%2Fb%2Bc%7Cd%3D1", "got a%2fb%2bc%7cd%3d1", "got A/B%2BC|D%3d1"] {
            assert_eq!(for_row(message, &["a/b+c|d=1"]), "got [redacted]", "{message}");
        }
        assert_eq!(for_row("q=pass+word+1 q=pass%20word%201", &["pass word 1"]), "q=[redacted] q=[redacted]");
        assert_eq!(for_row("abcabcabc", &["abcab", "bcabc"]), "[redacted]");
        assert_eq!(for_row("%251234", &["%1234"]), "[redacted]");
        assert_eq!(for_row("%251234", &["%251234"]), "[redacted]");
    }

    #[test]
    fn a_secret_cannot_hide_behind_characters_that_are_removed() {
        assert_eq!(for_row("sec\u{0}ret\u{200b}123", &["secret123"]), "[redacted]");
        assert_eq!(for_row("sec\u{1b}[31mret123", &["secret123"]), "[redacted]");
        assert_eq!(for_row("my  secret  pass", &["my  secret  pass"]), "[redacted]");
    }

    #[test]
    fn what_looks_like_a_token_goes_though_nobody_knows_it() {
        for (message, expected) in [
            ("token EAABwzLixnjYBO123456789 bad", "token [redacted] bad"),
            ("token IGAAJx7f0mKWZBZA99887766 bad", "token [redacted] bad"),
            ("x?access_token=short&b=1", "x?access_token=[redacted]&b=1"),
            (r#"{"client_secret": "s3"}"#, r#"{"client_secret": "[redacted]"}"#),
            ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
            ("app 1234567890|abcdefgh1 bad", "app [redacted] bad"),
            ("secret 0123456789abcdef0123456789abcdef", "secret [redacted]"),
        ] {
            assert_eq!(for_row(message, &[]), expected);
        }
    }

    #[test]
    fn what_people_need_stays() {
        for message in [
            "Error validating access token: Session has expired on Friday, 18-Aug-23 01:00:00 PDT.",
            "(#80002) There have been too many calls to this Instagram account.",
            "AADSTS70000: bad. Trace ID: 91af4011-2822-4038-b029-ddd8c46caf00",
            "The access token is required; a bearer token was expected",
            "Grüße aus São Paulo 🔑",
        ] {
            assert_eq!(for_row(message, &[]), message);
        }
    }

    #[test]
    fn one_line_without_control_characters() {
        assert_eq!(
            for_row(" a\r\n\tb\u{1b}[1;31mred\u{1b}[0m \u{1b}]0;title\u{7}c\u{202e}d\u{9b}e ", &[]),
            "a bred cde"
        );
    }

    #[test]
    fn a_long_message_ends_before_a_replacement_that_has_no_room() {
        assert_eq!(for_row(&"é".repeat(500), &[]).chars().count(), CHARS_MAX);
        let message = format!("{} secret123 tail", "x".repeat(232));
        assert_eq!(for_row(&message, &["secret123"]), format!("{} ", "x".repeat(232)));
        let message = format!("{} secret123 tail", "x".repeat(229));
        assert_eq!(for_row(&message, &["secret123"]), format!("{} [redacted]", "x".repeat(229)));
    }
}
