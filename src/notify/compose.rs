//! Puts a rendered notice into an envelope: one sender, one recipient, no header made of foreign text.

use std::time::SystemTime;

use jiff::Timestamp;
use lettre::Address;
use lettre::message::header::{Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use perene_policy::Fingerprint;

use super::template::Rendered;
use super::text::is_unfit;

/// A mail as it goes over the wire.
pub(super) struct Letter {
    pub(super) to: Address,
    pub(super) bytes: Vec<u8>,
}

/// Errors: one line that says what cannot be right about the customer's address.
pub(super) fn compose(
    from: &Mailbox,
    to: &str,
    id: &str,
    now: Timestamp,
    mail: Rendered,
) -> Result<Letter, &'static str> {
    let to = address(to)?;
    // The boundary comes from the id and not from chance: a retry is the same mail but for its date.
    let body = MultiPart::alternative()
        .boundary(format!("=_{}", Fingerprint::of(id).as_str()))
        .singlepart(SinglePart::plain(mail.plain))
        .singlepart(SinglePart::html(mail.html));
    let message = lettre::Message::builder()
        .from(from.clone())
        // No display name: the customer's name is foreign text, and their own mailbox knows it.
        .to(Mailbox::new(None, to.clone()))
        .subject(mail.subject)
        .date(SystemTime::from(now))
        .message_id(Some(message_id(id, &from.email)))
        .header(AutoSubmitted)
        .multipart(body)
        .map_err(|_| "cannot be mailed to")?;
    Ok(Letter { to, bytes: message.formatted() })
}

/// An id as a header may carry it: itself where it is made of letters, digits, `-`, `_` and `.`, or else its
/// fingerprint.
pub(super) fn header_id(id: &str) -> String {
    const BYTES_MAX: usize = 120;
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let dots_well_placed = !id.starts_with('.') && !id.ends_with('.') && !id.contains("..");
    if plain && dots_well_placed && (1..=BYTES_MAX).contains(&id.len()) {
        id.to_owned()
    } else {
        Fingerprint::of(id).as_str().to_owned()
    }
}

fn message_id(id: &str, from: &Address) -> String {
    // A literal address such as [10.0.0.1] is taken as it is.
    let domain = url::Host::parse(from.domain()).map_or_else(|_| from.domain().to_owned(), |host| host.to_string());
    format!("<{}@{domain}>", header_id(id))
}

/// One address and nothing else. A domain in other letters than ASCII becomes its ASCII form, which every
/// server takes.
fn address(text: &str) -> Result<Address, &'static str> {
    const NO_ADDRESS: &str = "is no e-mail address";
    if text.chars().any(is_unfit) {
        return Err("has control characters in it");
    }
    let address: Address = text.parse().map_err(|_| NO_ADDRESS)?;
    if address.domain().is_ascii() {
        return Ok(address);
    }
    let domain = url::Host::parse(address.domain()).map_err(|_| NO_ADDRESS)?.to_string();
    Address::new(address.user(), domain).map_err(|_| NO_ADDRESS)
}

/// Keeps out-of-office replies away ([RFC 3834, 5](https://www.rfc-editor.org/rfc/rfc3834#section-5)).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compose_to(to: &str, id: &str) -> Result<String, &'static str> {
        let from = "Loja Perene <avisos@app.example>".parse().unwrap();
        let mail = Rendered { subject: "Olá".to_owned(), html: "<p>é</p>".to_owned(), plain: "é".to_owned() };
        let now = "2026-11-23T06:00:00Z".parse().unwrap();
        compose(&from, to, id, now, mail).map(|letter| String::from_utf8(letter.bytes).unwrap())
    }

    #[test]
    fn the_headers_are_those_of_an_automatic_mail() {
        let mail = compose_to("ana@cliente.example", "0193-abc").unwrap();
        for line in [
            "From: \"Loja Perene\" <avisos@app.example>\r\n",
            "To: ana@cliente.example\r\n",
            "Date: Mon, 23 Nov 2026 06:00:00 +0000\r\n",
            "Message-ID: <0193-abc@app.example>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "MIME-Version: 1.0\r\n",
            "Content-Type: multipart/alternative;",
            "Content-Type: text/plain; charset=utf-8\r\n",
            "Content-Type: text/html; charset=utf-8\r\n",
        ] {
            assert!(mail.contains(line), "{line} in\n{mail}");
        }
        assert!(!mail.contains("Reply-To") && !mail.contains("Bcc"));
        assert!(mail.find("text/plain") < mail.find("text/html"), "the richest form comes last");
    }

    #[test]
    fn a_retry_is_the_same_mail() {
        assert_eq!(compose_to("a@b.example", "id"), compose_to("a@b.example", "id"));
        assert_ne!(compose_to("a@b.example", "id"), compose_to("a@b.example", "id2"));
    }

    #[test]
    fn an_address_cannot_bring_headers_or_recipients() {
        for to in [
            "a@b.example\r\nBcc: x@y.example",
            "a\r\nBcc: x@y.example",
            "\"a\r\nBcc: x@y\"@b.example",
            "a@b.example\nX: y",
            "a@b.example, x@y.example",
            "a@b.example;x@y.example",
            "a@b.example x@y.example",
            "Ana <a@b.example>",
            "<a@b.example>",
            "a@b.example> RCPT TO:<x@y.example",
            "a@b.example\u{0}",
            "a\u{1b}[31m@b.example",
            "a@b.example\u{202e}",
            "a\u{202e}b@b.example",
            "a@b@c.example",
            "@b.example",
            "a@",
            "a",
        ] {
            let unfit = to.chars().any(char::is_control);
            let expected = if unfit { "has control characters in it" } else { "" };
            let error = compose_to(to, "id").unwrap_err();
            assert!(error.contains(expected), "{to:?}: {error}");
        }
    }

    #[test]
    fn a_domain_in_other_letters_gets_its_ascii_form() {
        assert!(compose_to("ana@pão.example", "id").unwrap().contains("To: ana@xn--po-sia.example\r\n"));
    }

    #[test]
    fn an_id_that_no_header_can_carry_becomes_its_fingerprint() {
        assert_eq!(header_id("0193f2a4-7c1e"), "0193f2a4-7c1e");
        for id in ["", "a b", "a\r\nX: y", ".", "a..b", "<x>", &"x".repeat(121)] {
            assert_eq!(header_id(id), Fingerprint::of(id).as_str(), "{id:?}");
        }
    }
}
