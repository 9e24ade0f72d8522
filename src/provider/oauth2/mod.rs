//! Any OAuth 2.0 provider: the refresh of RFC 6749, section 6, by POST with a form, and nothing else.
//!
//! No secret stands in a URL. What an answer means is read elsewhere: this module sends and receives.

pub mod definitions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use perene_policy::answer::{Answer, NoAnswer, NoAnswerKind};
use perene_policy::{Class, Endpoint, Fingerprint, Grant, Secret};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::Url;
use url::form_urlencoded::byte_serialize;

use super::http;
use super::{AppIdentity, Provider};

/// How the client proves itself at the token endpoint.
///
/// <https://datatracker.ietf.org/doc/html/rfc6749#section-2.3.1>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Id and secret in the form body.
    Body,
    /// HTTP Basic; the form holds neither.
    Basic,
}

/// An app at an OAuth 2.0 provider.
#[derive(Debug, Clone)]
pub struct Oauth2App {
    /// The name in the configuration.
    pub name: String,
    /// The token endpoint.
    pub token_url: Url,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Secret,
    /// How the client proves itself.
    pub client_auth: ClientAuth,
    /// What the form calls the client's id, mostly `client_id`.
    pub client_id_field: String,
    /// What becomes of the old refresh token.
    pub class: Class,
    /// The scope to ask for; `None` asks for what was granted (RFC 6749, section 6).
    pub scope: Option<String>,
    /// Further fields of the form.
    pub extra: Vec<(String, String)>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// How long an access token usually lives, where that is known.
    pub usual_life: Option<SignedDuration>,
}

/// An OAuth 2.0 provider.
#[derive(Debug)]
pub struct Oauth2Provider {
    client: reqwest::Client,
    app: Oauth2App,
    identity: Arc<AppIdentity>,
    headers: HeaderMap,
}

/// Why there is no provider.
#[derive(Debug, thiserror::Error)]
pub enum NoProvider {
    /// No HTTPS client can be made.
    #[error(transparent)]
    Client(#[from] http::NoClient),
    /// A header that cannot be sent.
    #[error("provider `{provider}`: header `{name}` cannot be sent: its name or its value holds what no header may")]
    Header {
        /// The provider.
        provider: String,
        /// The header's name.
        name: String,
    },
}

impl Oauth2Provider {
    /// A provider with one app; `connections` is how many calls are made at a time.
    ///
    /// # Errors
    /// When no HTTPS client can be made, or a header cannot be sent.
    pub fn new(app: Oauth2App, connections: usize) -> Result<Self, NoProvider> {
        let mut headers = HeaderMap::new();
        for (name, value) in &app.headers {
            let wrong = || NoProvider::Header { provider: app.name.clone(), name: name.clone() };
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            headers.insert(key, HeaderValue::from_str(value).map_err(|_| wrong())?);
        }
        // Some providers answer with a form or with XML unless they are asked for JSON.
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if app.client_auth == ClientAuth::Basic {
            headers.insert(AUTHORIZATION, basic(&app.client_id, &app.client_secret));
        }
        let credentials = format!("{}\n{}\n{}", app.client_id, app.client_secret.expose(), app.token_url);
        let identity = Arc::new(AppIdentity {
            name: app.name.clone(),
            credentials: Fingerprint::of(&credentials),
            secrets: vec![app.client_secret.clone()],
        });
        Ok(Self { client: http::client(connections)?, app, identity, headers })
    }

    /// <https://datatracker.ietf.org/doc/html/rfc6749#section-6>
    fn refresh(&self, token: &Secret) -> reqwest::RequestBuilder {
        let app = &self.app;
        let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", token.expose())];
        if app.client_auth == ClientAuth::Body {
            form.push((&app.client_id_field, &app.client_id));
            form.push(("client_secret", app.client_secret.expose()));
        }
        if let Some(scope) = &app.scope {
            form.push(("scope", scope));
        }
        form.extend(app.extra.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        self.client.post(app.token_url.clone()).headers(self.headers.clone()).form(&form)
    }
}

/// Id and secret are form-encoded before they are joined: a colon or a character beyond ASCII in one of them
/// would else be read as something different (RFC 6749, section 2.3.1).
fn basic(id: &str, secret: &Secret) -> HeaderValue {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Secret::new(format!("{}:{}", encode(id), encode(secret.expose())));
    let header = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
    let mut value = HeaderValue::from_str(header.expose()).expect("base64 is fit for a header");
    value.set_sensitive(true);
    value
}

#[async_trait]
impl Provider for Oauth2Provider {
    fn app(&self, _grant: Grant) -> Option<Arc<AppIdentity>> {
        Some(Arc::clone(&self.identity))
    }

    fn class(&self) -> Class {
        self.app.class
    }

    fn usual_life(&self) -> Option<SignedDuration> {
        self.app.usual_life
    }

    async fn call(&self, _grant: Grant, endpoint: Endpoint, token: &Secret) -> Result<Answer, NoAnswer> {
        if endpoint != Endpoint::Oauth2 {
            return Err(NoAnswer {
                kind: NoAnswerKind::NotSent,
                text: format!("`{}` has no endpoint `{}`", self.app.name, endpoint.name()),
            });
        }
        http::send(self.refresh(token)).await
    }

    /// RFC 6749 has no such call, and a refresh that is made up to be refused may count against the app.
    async fn probe_app(&self, _grant: Grant) -> Option<Result<Answer, NoAnswer>> {
        None
    }
}
