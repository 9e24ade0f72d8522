//! Looks names up for the webhook and hands out public addresses only.
//!
//! It stands where the HTTP client resolves names: what it has looked at is what is connected to, so a name
//! that answers differently the second time gains nothing. One forbidden address among many forbids them all:
//! who publishes such a set means no good. An address typed as a number never comes by here; the settings
//! are checked for those.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::notify::public_address::is_public;

type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// How a name is looked up.
pub(super) type LookUp = Arc<dyn Fn(String) -> Found + Send + Sync>;

/// Asks the system.
pub(super) fn system() -> LookUp {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }))
}

pub(super) struct Guard {
    pub(super) look_up: LookUp,
    pub(super) allow_private: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.look_up)(name.as_str().to_owned());
        let allow_private = self.allow_private;
        Box::pin(async move {
            let addresses = found.await?;
            if !allow_private && !addresses.iter().all(|address| is_public(address.ip())) {
                return Err(Forbidden.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The name leads to where a webhook may not.
#[derive(Debug)]
pub(super) struct Forbidden;

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("leads to a private address")
    }
}

impl std::error::Error for Forbidden {}
