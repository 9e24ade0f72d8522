//! Providers: whoever issues tokens, behind one trait.

pub mod http;
pub mod meta;
pub mod oauth2;
pub mod sandbox;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::SignedDuration;
use perene_policy::answer::{Answer, NoAnswer};
use perene_policy::{Class, Endpoint, Fingerprint, Grant, Secret};

/// A provider is asked and answers; what the answer means is none of its business.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// The app with which tokens of this grant are renewed; `None` when none is configured. Asked for each row that is
    /// looked at: made once, and shared.
    fn app(&self, grant: Grant) -> Option<Arc<AppIdentity>>;

    /// What a second call with the same token costs.
    fn class(&self) -> Class;

    /// How long an access token of this provider usually lives, where that is known: counts where an answer does not
    /// tell (RFC 6749, section 5.1, leaves that to the documentation).
    fn usual_life(&self) -> Option<SignedDuration> {
        None
    }

    /// Makes one call. Bounded in time and size; follows no redirect; logs no URL, no token.
    ///
    /// # Errors
    /// When there was no complete answer: [`NoAnswer`] tells whether the request can have been carried out.
    async fn call(&self, grant: Grant, endpoint: Endpoint, token: &Secret) -> Result<Answer, NoAnswer>;

    /// Asks about the app itself, without any connection's token. `None` where the provider has no such
    /// call.
    async fn probe_app(&self, grant: Grant) -> Option<Result<Answer, NoAnswer>>;
}

/// The app with which calls are made.
#[derive(Debug, Clone)]
pub struct AppIdentity {
    /// The name under which it stands in the configuration: `facebook`, `instagram`, …
    pub name: String,
    /// Of id, secret and host: what is known of an app holds for these.
    pub credentials: Fingerprint,
    /// What must not stand in any text.
    pub secrets: Vec<Secret>,
}
