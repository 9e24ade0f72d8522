//! Checks what the keys `webhook.*` say. Looks nothing up.

use perene_policy::Secret;
use url::{Host, Url};

use crate::notify::public_address::is_public;

/// What the keys `webhook.*` say.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Where events go. Its path may be a secret, so it is never shown in full.
    pub url: Secret,
    /// The signing secret, base64 with or without the prefix `whsec_`. Two of them with a blank between, the
    /// new one first, while it is being changed. Without it events are not signed.
    pub secret: Option<Secret>,
    /// Whether the address may be private, and its port any.
    pub allow_private: bool,
}

/// A mistake in the webhook settings: one line that begins with the key and shows no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WebhookError(pub(super) String);

/// Errors are fragments after "`webhook.url` ".
pub(super) fn checked_url(settings: &WebhookSettings) -> Result<Url, String> {
    let url = Url::parse(settings.url.expose().trim()).map_err(|error| format!("is no URL ({error})"))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err("has an unknown scheme (known schemes: https, http)".to_owned());
    }
    if settings.allow_private {
        return Ok(url);
    }
    let literal = match url.host() {
        Some(Host::Ipv4(ip)) => Some(ip.into()),
        Some(Host::Ipv6(ip)) => Some(ip.into()),
        _ => None,
    };
    if literal.is_some_and(|ip| !is_public(ip)) {
        return Err("leads to a private address: allow it with `webhook.allow_private = true`".to_owned());
    }
    // Ports of other services: a mail or login server reads a request line by line and may obey one.
    if let Some(port @ 0..1024) = url.port()
        && !matches!(port, 80 | 443)
    {
        return Err(format!("has port {port}, which is another service's: take 443, 80, or one from 1024 on"));
    }
    Ok(url)
}

pub(super) fn signers(secrets: &Secret) -> Result<Vec<standardwebhooks::Webhook>, WebhookError> {
    let signers: Vec<_> = secrets
        .expose()
        .split_whitespace()
        .map(|secret| {
            standardwebhooks::Webhook::new(secret).ok().filter(|_| !matches!(secret, "whsec_")).ok_or_else(|| {
                WebhookError("`webhook.secret` is not base64: make one with `openssl rand -base64 32`".to_owned())
            })
        })
        .collect::<Result<_, _>>()?;
    if signers.is_empty() {
        return Err(WebhookError("`webhook.secret` is empty: leave it out, or `openssl rand -base64 32`".to_owned()));
    }
    Ok(signers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_public_is_refused_at_once() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1:8080/",
            "https://[fd00:ec2::254]/",
            "http://0.0.0.0:8080/",
            "https://app.example:22/",
            "https://app.example:25/",
            "ftp://app.example/",
            "file:///etc/passwd",
            "app.example/hook",
            "",
        ] {
            let settings = |allow_private| WebhookSettings { url: Secret::new(url), secret: None, allow_private };
            assert!(checked_url(&settings(false)).is_err(), "{url} was taken");
            let is_web_address = url.starts_with("http");
            assert_eq!(checked_url(&settings(true)).is_ok(), is_web_address, "{url}");
        }
    }

    #[test]
    fn a_secret_that_is_not_base64_is_refused_and_not_shown() {
        for secret in ["hunter2!", "whsec_", "", "whsec_hunter2!"] {
            let error = signers(&Secret::new(secret)).err().unwrap().to_string();
            assert!(error.contains("openssl rand") && !error.contains("hunter2"), "{error}");
        }
    }
}
