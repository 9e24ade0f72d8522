//! E-mail to the customer: one mail a notice, in their language, to exactly one address.
//!
//! Only what a customer can act on is mailed: [`MessageKind::Failing`], [`MessageKind::NeedsReconnect`] and
//! [`MessageKind::NotExtended`]. Everything else is skipped; nobody wants a mail that all is well.

use std::path::PathBuf;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use lettre::message::Mailbox;
use perene_policy::Secret;

use super::compose::{Letter, compose};
use super::link::{ReconnectLink, Target};
use super::locale::Locale;
use super::smtp::Server;
use super::template::render;
use super::words::{Story, words};
use super::{Channel, Delivery, Message, MessageKind, text};

/// What the keys `mail.*` say.
#[derive(Debug, Clone)]
pub struct MailSettings {
    /// `smtp://` or `smtps://`, with user and password percent-encoded.
    pub smtp_url: Secret,
    /// The sender: `avisos@app.example` or `App <avisos@app.example>`.
    pub from: String,
    /// The language of the mails.
    pub locale: Locale,
    /// Where the button leads; without it there is no button. `{connection_id}` and `{user_id}` are filled in.
    pub reconnect_url: Option<String>,
    /// Signs the link: it gets a parameter `perene`, a JSON Web Token (HS256) that names the connection.
    pub link_secret: Option<Secret>,
    /// Further root certificates for the mail server, in PEM form, besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// A mistake in the mail settings: one line that begins with the key and shows no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MailError(String);

/// The channel.
pub struct Email {
    from: Mailbox,
    locale: Locale,
    link: Option<ReconnectLink>,
    server: Server,
}

impl Email {
    /// Reads the settings and the certificate file; connects to nothing.
    pub fn new(settings: MailSettings) -> Result<Self, MailError> {
        let server = Server::new(&settings.smtp_url, settings.ca_file.as_deref()).map_err(MailError)?;
        let from: Mailbox = settings.from.trim().parse().map_err(|_| {
            MailError(format!(
                "`mail.from` `{}` is no e-mail address: write `avisos@app.example` or `App <avisos@app.example>`",
                text::one_line(&settings.from, 80)
            ))
        })?;
        if !AsRef::<str>::as_ref(&from.email).is_ascii() {
            return Err(MailError("`mail.from` has letters outside ASCII in its address".to_owned()));
        }
        let secret = settings.link_secret.as_ref();
        let link = settings
            .reconnect_url
            .filter(|pattern| !pattern.trim().is_empty())
            .map(|pattern| ReconnectLink::new(pattern.trim().to_owned(), secret))
            .transpose()
            .map_err(|error| MailError(format!("`mail.reconnect_url` {error}")))?;
        Ok(Self { from, locale: settings.locale, link, server })
    }

    /// Connects to the mail server and logs in, sends nothing: for `doctor`. Errors: one line that names the
    /// server and the remedy.
    pub async fn check(&self) -> Result<(), String> {
        self.server.check().await
    }

    fn letter(&self, message: &Message, story: Story, to: &str, now: Timestamp) -> Result<Letter, Delivery> {
        let never =
            |why: &str| Delivery::Never { why: format!("the customer's address {why}: correct it in the app's table") };
        let name =
            message.recipient.as_ref().and_then(|recipient| recipient.username.as_deref()).and_then(text::greeted);
        let date =
            message.expires_at.filter(|expires_at| *expires_at > now).map(|expires_at| self.locale.date(expires_at));
        let link = self.link.as_ref().and_then(|link| {
            link.to(&Target {
                connection_id: &message.connection_id,
                user_id: message.user_id.as_deref(),
                table: &message.table,
                at: message.at,
            })
        });
        let words = words(self.locale, story, name.as_deref(), date.as_deref());
        let mail = render(self.locale, words, link.as_deref())
            .map_err(|error| Delivery::later(format!("the mail cannot be written: {error}")))?;
        compose(&self.from, to, &message.id, now, mail).map_err(never)
    }
}

/// `None` for what customers are not mailed about.
fn story(message: &Message, now: Timestamp) -> Option<Story> {
    match message.kind {
        MessageKind::Failing => Some(Story::Expiring),
        MessageKind::NeedsReconnect => Some(Story::Refused),
        MessageKind::NotExtended => Some(Story::LoginNeeded { days_left: days_left(message, now) }),
        MessageKind::Dark | MessageKind::Recovered | MessageKind::Refreshed | MessageKind::ProviderTrouble => None,
    }
}

/// The days that are left when the mail goes out, begun ones counted whole: the step it was written for may
/// lie behind, after days without a mail server.
fn days_left(message: &Message, now: Timestamp) -> Option<u32> {
    const DAY_S: i64 = SignedDuration::from_hours(24).as_secs();
    match message.expires_at {
        Some(expires_at) => {
            let left_s = expires_at.as_second() - now.as_second();
            (left_s > 0).then(|| u32::try_from((left_s + DAY_S - 1) / DAY_S).ok()).flatten()
        }
        None => message.days_left.filter(|days| *days > 0).map(u32::from),
    }
}

#[async_trait]
impl Channel for Email {
    fn name(&self) -> &'static str {
        "email"
    }

    async fn deliver(&self, message: &Message, now: Timestamp) -> Delivery {
        let Some(story) = story(message, now) else {
            return Delivery::Skipped("customers get no mail about this");
        };
        let address = message.recipient.as_ref().and_then(|recipient| recipient.email.as_deref());
        let Some(address) = address.map(|address| address.trim_matches(' ')).filter(|address| !address.is_empty())
        else {
            return Delivery::Skipped("the customer has no e-mail address");
        };
        match self.letter(message, story, address, now) {
            Ok(letter) => self.server.send(&self.from.email, &letter.to, &letter.bytes).await,
            Err(delivery) => delivery,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use super::*;
    use crate::notify::Recipient;
    use crate::notify::smtp::scripted::ScriptedServer;

    fn settings(smtp_url: &str) -> MailSettings {
        MailSettings {
            smtp_url: Secret::new(smtp_url),
            from: "Loja <avisos@app.example>".to_owned(),
            locale: Locale::PtBr,
            reconnect_url: Some("https://app.example/reconnect?c={connection_id}".to_owned()),
            link_secret: None,
            ca_file: None,
        }
    }

    fn message(kind: MessageKind) -> Message {
        Message {
            id: "0193-abc".to_owned(),
            kind,
            connection_id: "42".to_owned(),
            table: "instagram_connections".to_owned(),
            user_id: Some("7".to_owned()),
            reason: "transient".to_owned(),
            expires_at: Some("2026-11-30T12:00:00Z".parse().unwrap()),
            at: "2026-11-23T06:00:00Z".parse().unwrap(),
            days_left: None,
            recipient: Some(Recipient {
                email: Some("ana@cliente.example".to_owned()),
                username: Some("Ana".to_owned()),
            }),
        }
    }

    fn now() -> Timestamp {
        "2026-11-23T06:00:05Z".parse().unwrap()
    }

    fn addressed(email: Option<&str>, username: &str) -> Message {
        let recipient = Recipient { email: email.map(str::to_owned), username: Some(username.to_owned()) };
        Message { recipient: Some(recipient), ..message(MessageKind::Failing) }
    }

    #[tokio::test]
    async fn a_warning_arrives_as_its_snapshot() {
        let scripted = ScriptedServer::start(&[]).await;
        let email = Email::new(settings(&scripted.url(""))).unwrap();
        assert_eq!(email.deliver(&message(MessageKind::Failing), now()).await, Delivery::Sent);
        let said = scripted.said();
        let from = said.iter().position(|line| line == "DATA").unwrap() + 1;
        let to = said.iter().position(|line| line == ".").unwrap();
        let mail = said[from..to].join("\n") + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots/mail/message.eml");
        if env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs::write(path, &mail).unwrap();
        }
        assert!(fs::read_to_string(path).unwrap_or_default() == mail, "UPDATE_SNAPSHOTS=1 rewrites it; now:\n{mail}");
        assert!(mail.is_ascii(), "so every server takes it");
    }

    #[tokio::test]
    async fn customers_hear_only_of_what_they_can_act_on() {
        let scripted = ScriptedServer::start(&[]).await;
        let email = Email::new(settings(&scripted.url(""))).unwrap();
        for kind in MessageKind::ALL {
            let delivery = email.deliver(&message(kind), now()).await;
            let mailed = matches!(kind, MessageKind::Failing | MessageKind::NeedsReconnect | MessageKind::NotExtended);
            assert_eq!(delivery == Delivery::Sent, mailed, "{kind:?}: {delivery:?}");
        }
        assert_eq!(scripted.said().iter().filter(|line| *line == "DATA").count(), 3);
    }

    #[tokio::test]
    async fn without_an_address_there_is_nothing_to_do() {
        let email = Email::new(settings("smtp://127.0.0.1:1")).unwrap();
        for address in [None, Some(""), Some("  ")] {
            assert!(matches!(email.deliver(&addressed(address, "Ana"), now()).await, Delivery::Skipped(_)));
        }
        let nobody = Message { recipient: None, ..message(MessageKind::Failing) };
        assert!(matches!(email.deliver(&nobody, now()).await, Delivery::Skipped(_)));
    }

    #[tokio::test]
    async fn a_bad_address_is_given_up_before_any_connection() {
        let scripted = ScriptedServer::start(&[]).await;
        let email = Email::new(settings(&scripted.url(""))).unwrap();
        for address in ["a\r\nBcc: x@y", "a@b.example\r\nRCPT TO:<x@y.example>", "a@b.example, x@y.example", "ana"] {
            let Delivery::Never { why } = email.deliver(&addressed(Some(address), "Ana"), now()).await else {
                panic!("{address:?} was not refused");
            };
            assert!(!why.contains("x@y") && !why.contains('\n'), "{why}");
        }
        assert_eq!(scripted.connections(), 0);
    }

    #[tokio::test]
    async fn a_name_brings_no_header_and_no_recipient() {
        let scripted = ScriptedServer::start(&[]).await;
        let email = Email::new(settings(&scripted.url(""))).unwrap();
        let message =
            addressed(Some("ana@cliente.example"), "a\r\nBcc: x@y.example\r\n\r\n.\r\nMAIL FROM:<x@y.example>");
        assert_eq!(email.deliver(&message, now()).await, Delivery::Sent);
        let said = scripted.said();
        assert_eq!(said.iter().filter(|line| line.starts_with("RCPT")).count(), 1);
        assert_eq!(said.iter().filter(|line| line.starts_with("MAIL")).count(), 1);
        assert!(!said.iter().any(|line| line.starts_with("Bcc")));
    }

    #[test]
    fn the_days_are_those_left_when_it_is_sent() {
        let at = |now: &str| days_left(&message(MessageKind::NotExtended), now.parse().unwrap());
        assert_eq!(at("2026-11-23T12:00:00Z"), Some(7));
        assert_eq!(at("2026-11-23T12:00:01Z"), Some(7));
        assert_eq!(at("2026-11-24T12:00:00Z"), Some(6));
        assert_eq!(at("2026-11-30T11:59:59Z"), Some(1));
        assert_eq!(at("2026-11-30T12:00:00Z"), None);
        let unknown = Message { expires_at: None, days_left: Some(14), ..message(MessageKind::NotExtended) };
        assert_eq!(days_left(&unknown, now()), Some(14));
    }

    #[test]
    fn a_date_that_has_passed_is_not_promised() {
        let email = Email::new(settings("smtp://127.0.0.1:1")).unwrap();
        let later = "2026-12-01T00:00:00Z".parse().unwrap();
        let dated = |now| {
            let bytes =
                email.letter(&message(MessageKind::Failing), Story::Expiring, "a@b.example", now).ok().unwrap().bytes;
            String::from_utf8(bytes).unwrap().contains("30/11/2026")
        };
        assert!(dated(now()));
        assert!(!dated(later));
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_remedy() {
        let error = |change: fn(&mut MailSettings)| {
            let mut settings = settings("smtp://u:hunter2@mail.example");
            change(&mut settings);
            Email::new(settings).err().unwrap().to_string()
        };
        assert!(error(|s| s.from = "nobody\r\n".to_owned()).starts_with("`mail.from` `nobody` is no e-mail address"));
        assert!(error(|s| s.from = "a@b.example, c@d.example".to_owned()).starts_with("`mail.from`"));
        assert!(
            error(|s| s.reconnect_url = Some("javascript:alert(1)".to_owned())).starts_with("`mail.reconnect_url`")
        );
        assert!(error(|s| s.smtp_url = Secret::new("smtp://u:hunter2@h?x=hunter2")).starts_with("`mail.smtp_url`"));
        assert!(!error(|s| s.smtp_url = Secret::new("smtp://u:hunter2@h?x=hunter2")).contains("hunter2"));
    }
}
