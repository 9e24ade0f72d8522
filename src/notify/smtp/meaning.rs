//! What a mail server's refusal means for the mail: later, or never to this address. Talks to nobody.

use std::error::Error as _;

use lettre::transport::smtp::Error;
use perene_policy::Secret;

use crate::notify::Delivery;
use crate::notify::text::one_line;

/// What the server was asked when it refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Connect,
    StartTls,
    Login,
    Sender,
    Recipient,
    /// The mail's text, or the word that announces it.
    Text,
}

/// Only a final refusal of the address, or of the mail to it, is [`Delivery::Never`]. A final refusal before
/// that, or one for policy (no relaying, no login, a blocked sender), is about us: the operator can cure it,
/// and then the mail shall still go out. A full mailbox is called final by some servers and is not
/// ([RFC 3463, X.2.2](https://www.rfc-editor.org/rfc/rfc3463#section-3.3)).
pub(super) fn meaning(server: &str, stage: Stage, error: &Error, password: Option<&Secret>) -> Delivery {
    let said = said(error, password);
    let Some(code) = error.status().map(u16::from) else {
        return Delivery::later(without_reply(server, stage, error, &said));
    };
    if error.is_permanent() && matches!(stage, Stage::Recipient | Stage::Text) {
        return match whose(code, &said) {
            Whose::Address => Delivery::Never {
                why: format!("mail server `{server}` refuses the address ({said}): correct it in the app's table"),
            },
            Whose::Mailbox => Delivery::later(format!("mail server `{server}` finds the mailbox full ({said})")),
            Whose::Ours => Delivery::later(format!(
                "mail server `{server}` takes no mail from us ({said}): check `mail.from`, the login in \
                 `mail.smtp_url`, and whether the server relays for this host"
            )),
        };
    }
    Delivery::later(match stage {
        Stage::Connect => format!("mail server `{server}` turns us away ({said})"),
        Stage::StartTls => format!("mail server `{server}` refuses STARTTLS ({said}): check `tls` in `mail.smtp_url`"),
        Stage::Login => {
            format!("mail server `{server}` refuses the login ({said}): check user and password in `mail.smtp_url`")
        }
        Stage::Sender => format!("mail server `{server}` refuses the sender ({said}): check `mail.from`"),
        Stage::Recipient | Stage::Text => format!("mail server `{server}` wants the mail later ({said})"),
    })
}

fn without_reply(server: &str, stage: Stage, error: &Error, said: &str) -> String {
    if said.contains("certificate") {
        return format!("mail server `{server}` shows a certificate that is not trusted ({said}): set `mail.ca_file`");
    }
    match stage {
        Stage::Connect if !error.is_response() => {
            format!("mail server `{server}` cannot be reached ({said}): check `mail.smtp_url`")
        }
        Stage::StartTls => {
            format!("mail server `{server}` cannot do STARTTLS ({said}): check `tls` in `mail.smtp_url`")
        }
        Stage::Login if error.is_client() => {
            format!("mail server `{server}` offers no login by PLAIN or LOGIN: check `mail.smtp_url`")
        }
        _ => format!("mail server `{server}` broke off ({said})"),
    }
}

enum Whose {
    Address,
    Mailbox,
    Ours,
}

fn whose(code: u16, said: &str) -> Whose {
    // The enhanced status code, where the server gives one: class, subject, detail.
    let enhanced = said.split_whitespace().nth(1).and_then(|word| {
        let mut parts = word.splitn(3, '.');
        (parts.next()? == "5").then_some(())?;
        Some((parts.next()?.parse::<u16>().ok()?, parts.next()?.parse::<u16>().ok()?))
    });
    match (code, enhanced) {
        (_, Some((2, 2))) => Whose::Mailbox,
        // Subject 3 is the mail system, 7 security and policy.
        (_, Some((3 | 7, _))) | (500..=504 | 530..=538, _) => Whose::Ours,
        (552, None) => Whose::Mailbox,
        _ => Whose::Address,
    }
}

/// The reply, or the last cause of an error without one.
fn said(error: &Error, password: Option<&Secret>) -> String {
    const CHARS_MAX: usize = 200;
    let text = match (error.status(), error.source()) {
        // A server may say back what it was told.
        (Some(code), Some(reply)) => match password.map(Secret::expose) {
            Some(password) if !password.is_empty() => format!("{code} {}", reply.to_string().replace(password, "…")),
            _ => format!("{code} {reply}"),
        },
        (Some(code), None) => code.to_string(),
        (None, _) => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            cause.to_string()
        }
    };
    one_line(&text, CHARS_MAX)
}
