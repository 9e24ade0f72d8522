//! Section `webhook`: where events are posted.

use std::fmt;

use perene_policy::Secret;
use url::Url;

use super::address;
use super::found::Found;

/// Section `webhook`. There is none without `webhook.url`.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Key `webhook.url`. Often it grants access by itself: never shown.
    pub url: Url,
    /// Key `webhook.secret`: `whsec_` and base64, as in Standard Webhooks.
    ///
    /// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
    pub secret: Secret,
    /// Key `webhook.allow_private`, default false: whether addresses of private networks may be called.
    pub allow_private: bool,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        f.debug_struct("Webhook")
            .field("host", &host)
            .field("allow_private", &self.allow_private)
            .finish_non_exhaustive()
    }
}

pub(super) fn read(found: &Found<'_>) -> Option<Webhook> {
    let url = found.read_secret("webhook.url", |text| address::web(text.expose().trim()));
    let secret = found.read_secret("webhook.secret", signing);
    let allow_private = found.boolean("webhook.allow_private");
    if found.is_set("webhook.url") && !found.is_set("webhook.secret") {
        found.missing(
            "webhook.secret",
            "`webhook.url` is set, and events are signed (`whsec_` and base64 of 24 to 64 bytes)",
        );
    }
    Some(Webhook { url: url?, secret: secret?, allow_private: allow_private? })
}

fn signing(secret: &Secret) -> Result<Secret, String> {
    let text = secret.expose().trim();
    match standardwebhooks::Webhook::new(text) {
        Ok(_) => Ok(Secret::new(text)),
        Err(_) => Err("must be `whsec_` and base64".to_owned()),
    }
}
