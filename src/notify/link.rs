//! The link that the button of a mail leads to: the app's own page, nowhere else.
//!
//! `mail.reconnect_url` may hold `{connection_id}` and `{user_id}`, which are filled in percent-encoded, in
//! its path, query or fragment. With `mail.link_secret` the link gets one more parameter, `perene`: a JSON Web
//! Token ([RFC 7519](https://www.rfc-editor.org/info/rfc7519)) signed with HS256, so that the app can check with
//! any JWT library whose connection is meant before it starts the login. Its claims: `sub` the connection's
//! id, `table`, `user_id` (or null), `iat`, and `exp`, 30 days after the notice: a mail may lie for
//! weeks. The secret should be 32 random bytes or more.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use perene_policy::Secret;
use serde_json::json;
use url::Url;

/// All but the unreserved characters ([RFC 3986, 2.3](https://www.rfc-editor.org/rfc/rfc3986#section-2.3)).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const VALID_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Makes the link for one connection.
pub(super) struct ReconnectLink {
    pattern: String,
    key: Option<hmac::Key>,
}

/// Whom a link is for.
pub(super) struct Target<'a> {
    pub(super) connection_id: &'a str,
    pub(super) user_id: Option<&'a str>,
    pub(super) table: &'a str,
    /// When the notice came about: the signature is good from then on, and the same in every retry.
    pub(super) at: Timestamp,
}

impl ReconnectLink {
    /// Errors, as a fragment after "`mail.reconnect_url` ": no web address, or a placeholder in the host.
    pub(super) fn new(pattern: String, secret: Option<&Secret>) -> Result<Self, &'static str> {
        const NO_ADDRESS: &str = "is no web address: give one that begins with https:// or http://";
        let one = Url::parse(&fill(&pattern, "1", "1")).map_err(|_| NO_ADDRESS)?;
        let other = Url::parse(&fill(&pattern, "2", "2")).map_err(|_| NO_ADDRESS)?;
        if !matches!(one.scheme(), "https" | "http") {
            return Err(NO_ADDRESS);
        }
        if authority(&one) != authority(&other) {
            return Err("has a placeholder in its host: they may stand in the path and the query only");
        }
        Ok(Self { pattern, key: secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())) })
    }

    /// `None` where the ids would lead elsewhere (an id `..` in the path): better no button than a wrong one.
    pub(super) fn to(&self, target: &Target<'_>) -> Option<String> {
        let user_id = target.user_id.unwrap_or_default();
        let segments = |url: &Url| url.path().split('/').count();
        let plain = Url::parse(&fill(&self.pattern, "1", "1")).ok()?;
        let mut url = Url::parse(&fill(&self.pattern, target.connection_id, user_id)).ok()?;
        if authority(&url) != authority(&plain) || segments(&url) != segments(&plain) {
            return None;
        }
        if let Some(key) = &self.key {
            url.query_pairs_mut().append_pair("perene", &signed(key, target));
        }
        Some(url.into())
    }
}

fn fill(pattern: &str, connection_id: &str, user_id: &str) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
    pattern.replace("{connection_id}", &encoded(connection_id)).replace("{user_id}", &encoded(user_id))
}

fn authority(url: &Url) -> (String, String) {
    (url.scheme().to_owned(), url.authority().to_owned())
}

fn signed(key: &hmac::Key, target: &Target<'_>) -> String {
    let issued_at_s = target.at.as_second();
    let header = json!({ "alg": "HS256", "typ": "JWT" });
    let claims = json!({
        "sub": target.connection_id,
        "table": target.table,
        "user_id": target.user_id,
        "iat": issued_at_s,
        "exp": issued_at_s.saturating_add(VALID_FOR.as_secs()),
    });
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(key, text.as_bytes()));
    format!("{text}.{signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target<'a>(connection_id: &'a str, user_id: Option<&'a str>) -> Target<'a> {
        let at = "2026-11-23T03:00:00Z".parse().unwrap();
        Target { connection_id, user_id, table: "instagram_connections", at }
    }

    fn link(pattern: &str, connection_id: &str, user_id: Option<&str>) -> Option<String> {
        ReconnectLink::new(pattern.to_owned(), None).unwrap().to(&target(connection_id, user_id))
    }

    #[test]
    fn an_address_without_placeholders_stays_as_it_is() {
        let address = "https://app.example/settings/instagram?from=mail#top";
        assert_eq!(link(address, "7", None).as_deref(), Some(address));
    }

    #[test]
    fn placeholders_are_filled_percent_encoded() {
        assert_eq!(
            link("https://app.example/c/{connection_id}?u={user_id}", "a/b?c&d=é", Some("x y+z#")).as_deref(),
            Some("https://app.example/c/a%2Fb%3Fc%26d%3D%C3%A9?u=x%20y%2Bz%23")
        );
        assert_eq!(link("https://app.example/?u={user_id}", "1", None).as_deref(), Some("https://app.example/?u="));
    }

    #[test]
    fn no_id_leads_to_another_place() {
        for id in ["..", ".", "//evil.example", "\\evil.example", "@evil.example", "\r\nX: y", "%2e%2e"] {
            let link = link("https://app.example/c/{connection_id}/reconnect", id, None);
            assert!(link.is_none_or(|link| link.starts_with("https://app.example/c/") && link.ends_with("/reconnect")));
        }
        assert_eq!(link("https://app.example/c/{connection_id}/reconnect", "..", None), None);
    }

    #[test]
    fn what_is_no_web_address_is_refused() {
        for pattern in ["javascript:alert(1)", "app.example/x", "", "mailto:a@b"] {
            assert!(ReconnectLink::new(pattern.to_owned(), None).is_err(), "{pattern}");
        }
        for pattern in ["https://{user_id}.app.example/", "https://{user_id}@app.example/"] {
            let error = ReconnectLink::new(pattern.to_owned(), None).err().unwrap();
            assert!(error.contains("host"), "{pattern}: {error}");
        }
    }

    #[test]
    fn a_signed_link_is_a_jwt_that_names_the_connection() {
        let secret = Secret::new("0123456789abcdef0123456789abcdef");
        let maker = ReconnectLink::new("https://app.example/r?a=1".to_owned(), Some(&secret)).unwrap();
        let link = maker.to(&target("42", Some("7"))).unwrap();
        let token = link.strip_prefix("https://app.example/r?a=1&perene=").unwrap();
        let [header, claims, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
        let decoded = |part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(decoded(header), r#"{"alg":"HS256","typ":"JWT"}"#);
        let claims_read: serde_json::Value = serde_json::from_str(&decoded(claims)).unwrap();
        let expected = json!({
            "sub": "42", "user_id": "7", "table": "instagram_connections", "iat": 1_795_402_800, "exp": 1_797_994_800
        });
        assert_eq!(claims_read, expected);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(hmac::verify(&key, format!("{header}.{claims}").as_bytes(), &signature).is_ok());
        assert_eq!(maker.to(&target("42", Some("7"))), Some(link), "the same in every retry");
    }
}
