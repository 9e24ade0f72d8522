//! Section `mail`: how customers are written to, and where they reconnect.

use std::path::PathBuf;

use lettre::message::Mailbox;
use perene_policy::Secret;
use url::Url;

use super::address;
use super::error::shown;
use super::found::Found;
pub use crate::notify::Locale;

/// The part of section `mail` that sends. There is none without `mail.smtp_url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Key `mail.smtp_url`, variable `SMTP_URL`: `smtp://` or `smtps://`, user and password percent-encoded;
    /// `?tls=opportunistic` or `?tls=required` for STARTTLS.
    pub smtp_url: Secret,
    /// Key `mail.from`.
    pub from: Mailbox,
    /// Key `mail.locale`, default pt-BR.
    pub locale: Locale,
    /// Key `mail.ca_file`: certificates to trust (PEM), absolute; `None`: the system's.
    pub ca_file: Option<PathBuf>,
}

/// The part of section `mail` that other channels use too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconnect {
    /// Key `mail.reconnect_url`: where the customer reconnects the account. As it was written: it may hold
    /// `{connection_id}` and `{user_id}`.
    pub url: Option<String>,
    /// Key `mail.link_secret`: signs links to it.
    pub link_secret: Option<Secret>,
}

const LOCALES: [(&str, Locale); 3] =
    [(Locale::PtBr.tag(), Locale::PtBr), (Locale::En.tag(), Locale::En), (Locale::Es.tag(), Locale::Es)];

pub(super) fn read(found: &Found<'_>) -> (Option<Mail>, Reconnect) {
    let from = found.read("mail.from", mailbox);
    let locale = found.choice("mail.locale", &LOCALES);
    let ca_file = found.path("mail.ca_file");
    let url = found.read("mail.reconnect_url", |text| address::web(text).map(|_| text.to_owned()));
    let link_secret = found.secret("mail.link_secret");
    let smtp_url = found.read_secret("mail.smtp_url", smtp_url);
    if found.is_set("mail.smtp_url") && !found.is_set("mail.from") {
        let origin = found.origin("mail.smtp_url");
        found.missing(
            "mail.from",
            format!("`mail.smtp_url` is set ({origin}), so a sender is needed, such as `Perene <perene@example.com>`"),
        );
    }
    let mail = smtp_url.zip(from).zip(locale);
    (mail.map(|((smtp_url, from), locale)| Mail { smtp_url, from, locale, ca_file }), Reconnect { url, link_secret })
}

pub(super) fn mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|_| {
        format!("must be a mail address such as `ana@example.com` or `Ana <ana@example.com>`, not `{}`", shown(text))
    })
}

fn smtp_url(secret: &Secret) -> Result<Secret, String> {
    let text = secret.expose().trim();
    let url = Url::parse(text)
        .map_err(|error| format!("is not an SMTP URL: {error} (user and password are percent-encoded)"))?;
    if !["smtp", "smtps"].contains(&url.scheme()) {
        return Err("must begin with `smtp://` or `smtps://`".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host: `smtp://HOST:PORT`".to_owned());
    }
    if url.fragment().is_some() {
        return Err("holds a `#`: in a user or password it is written `%23`".to_owned());
    }
    for (name, value) in url.query_pairs() {
        match (&*name, &*value, url.scheme()) {
            ("tls", "opportunistic" | "required", "smtp") => {}
            ("tls", ..) => return Err("knows `?tls=opportunistic` and `?tls=required`, with `smtp://` only".to_owned()),
            _ => return Err("has a parameter other than `tls`".to_owned()),
        }
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smtp_urls_are_looked_at_without_being_repeated() {
        for good in ["smtp://localhost:2525", "smtps://u:p%40w@mx.example.com", "smtp://mx:587?tls=required"] {
            assert!(smtp_url(&Secret::new(good)).is_ok(), "{good}");
        }
        for bad in [
            "hunter2",
            "http://hunter2",
            "smtp:hunter2",
            "smtp://u:hunter2#x@mx",
            "smtp://mx?password=hunter2",
            "smtps://mx?tls=required",
            "smtp://mx?tls=hunter2",
            "smtp://",
        ] {
            let error = smtp_url(&Secret::new(bad)).expect_err(bad);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
