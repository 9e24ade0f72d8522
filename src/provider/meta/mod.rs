//! Meta: Facebook Login, Instagram Login and Threads, each with its own host, app and grant.
//!
//! Secrets stand in a URL only where the provider takes nothing else (Instagram and Threads refresh by GET
//! alone; `debug_token` takes its input in the query), and no URL is ever logged.

use std::sync::Arc;

use async_trait::async_trait;
use perene_policy::answer::{Answer, NoAnswer, NoAnswerKind};
use perene_policy::{Class, Endpoint, Fingerprint, Grant, Secret};

use super::http;
use super::{AppIdentity, Provider};

/// An app of Meta: an id and a secret at one host.
#[derive(Debug, Clone)]
pub struct MetaApp {
    /// The app's id; Instagram and Threads have ids of their own.
    pub id: Option<String>,
    /// Its secret.
    pub secret: Option<Secret>,
    /// The host, without a slash at its end.
    pub base_url: String,
}

/// Meta as a provider.
#[derive(Debug)]
pub struct Meta {
    client: reqwest::Client,
    facebook: MetaApp,
    api_version: String,
    instagram: MetaApp,
    threads: MetaApp,
    /// Of Facebook, Instagram and Threads.
    identities: [Option<Arc<AppIdentity>>; 3],
}

impl Meta {
    /// Meta with its three apps; `connections` is how many calls are made at a time.
    ///
    /// # Errors
    /// When no HTTPS client can be made.
    pub fn new(
        facebook: MetaApp,
        api_version: String,
        instagram: MetaApp,
        threads: MetaApp,
        connections: usize,
    ) -> Result<Self, http::NoClient> {
        let identities = [
            // Its refresh takes id and secret; the others' take the token alone.
            (facebook.id.is_some() && facebook.secret.is_some()).then(|| identity(Grant::Facebook, &facebook)),
            Some(identity(Grant::Instagram, &instagram)),
            Some(identity(Grant::Threads, &threads)),
        ];
        Ok(Self { client: http::client(connections)?, facebook, api_version, instagram, threads, identities })
    }

    /// <https://developers.facebook.com/docs/facebook-login/guides/access-tokens/get-long-lived>; by POST, which
    /// keeps token and secret out of URLs.
    fn exchange(&self, id: &str, secret: &Secret, token: &Secret) -> reqwest::RequestBuilder {
        let url = format!("{}/{}/oauth/access_token", self.facebook.base_url, self.api_version);
        self.client.post(url).form(&[
            ("grant_type", "fb_exchange_token"),
            ("client_id", id),
            ("client_secret", secret.expose()),
            ("fb_exchange_token", token.expose()),
        ])
    }

    /// <https://developers.facebook.com/docs/instagram-platform/reference/refresh_access_token> and
    /// <https://developers.facebook.com/docs/threads/get-started/long-lived-tokens>; GET is the only verb taken.
    fn refresh(&self, host: &MetaApp, grant_type: &str, token: &Secret) -> reqwest::RequestBuilder {
        let url = format!("{}/refresh_access_token", host.base_url);
        self.client.get(url).query(&[("grant_type", grant_type), ("access_token", token.expose())])
    }

    /// <https://developers.facebook.com/docs/facebook-login/access-tokens/debugging-and-error-handling>
    fn debug_token(&self, id: &str, secret: &Secret, token: &Secret) -> reqwest::RequestBuilder {
        let url = format!("{}/{}/debug_token", self.facebook.base_url, self.api_version);
        self.client.get(url).query(&[("input_token", token.expose())]).bearer_auth(format!("{id}|{}", secret.expose()))
    }
}

fn identity(grant: Grant, host: &MetaApp) -> Arc<AppIdentity> {
    let id = host.id.as_deref().unwrap_or_default();
    let secret = host.secret.as_ref().map(Secret::expose).unwrap_or_default();
    Arc::new(AppIdentity {
        name: grant.name().to_owned(),
        credentials: Fingerprint::of(&format!("{id}\n{secret}\n{}", host.base_url)),
        secrets: host.secret.iter().cloned().collect(),
    })
}

#[async_trait]
impl Provider for Meta {
    fn app(&self, grant: Grant) -> Option<Arc<AppIdentity>> {
        let [facebook, instagram, threads] = &self.identities;
        match grant {
            Grant::Facebook => facebook.clone(),
            Grant::Instagram => instagram.clone(),
            Grant::Threads => threads.clone(),
            Grant::Oauth2 => None,
        }
    }

    fn class(&self) -> Class {
        Class::Extend
    }

    async fn call(&self, _grant: Grant, endpoint: Endpoint, token: &Secret) -> Result<Answer, NoAnswer> {
        let credentials = || {
            self.facebook.id.as_deref().zip(self.facebook.secret.as_ref()).ok_or_else(|| NoAnswer {
                kind: NoAnswerKind::NotSent,
                text: "no app id and secret for Facebook Login: set FACEBOOK_APP_ID and FACEBOOK_APP_SECRET".to_owned(),
            })
        };
        let request = match endpoint {
            Endpoint::Exchange => {
                let (id, secret) = credentials()?;
                self.exchange(id, secret, token)
            }
            Endpoint::DebugToken => {
                let (id, secret) = credentials()?;
                self.debug_token(id, secret, token)
            }
            Endpoint::IgRefresh => self.refresh(&self.instagram, "ig_refresh_token", token),
            Endpoint::ThRefresh => self.refresh(&self.threads, "th_refresh_token", token),
            Endpoint::Oauth2 => {
                return Err(NoAnswer {
                    kind: NoAnswerKind::NotSent,
                    text: "meta renews no token by an RFC 6749 refresh token".to_owned(),
                });
            }
        };
        http::send(request).await
    }

    /// Only Facebook tells of an app by its own token; Instagram and Threads answer a right and a wrong
    /// secret alike.
    async fn probe_app(&self, grant: Grant) -> Option<Result<Answer, NoAnswer>> {
        let (Grant::Facebook, Some(id), Some(secret)) = (grant, &self.facebook.id, &self.facebook.secret) else {
            return None;
        };
        let app_token = Secret::new(format!("{id}|{}", secret.expose()));
        Some(http::send(self.debug_token(id, secret, &app_token)).await)
    }
}
