//! The simulated Meta that ships with Perene: its three grants and `debug_token`, without a clock and without
//! a socket.
//!
//! [`Sandbox::answer`] turns a request and an instant into a reply. How a token is treated stands in its own text
//! (see [`token`]), or is drawn by [`Shares`] where the text says nothing. A reply is a function of the seed, the
//! settings, `now` and the calls made on that token so far, and of nothing else: the demo, the tests and a
//! simulation can all stand on it, and get the same bytes each time. [`server`] puts it on a port.
//!
//! ```
//! use perene::provider::sandbox::{Request, Sandbox, SandboxSettings};
//!
//! let meta = Sandbox::new(SandboxSettings::default());
//! let refresh = Request::get(
//!     "/refresh_access_token",
//!     &[("grant_type", "ig_refresh_token"), ("access_token", "IG-ok-17")],
//! );
//! let reply = meta.answer(&refresh, "2026-11-23T03:00:00Z".parse()?);
//! assert_eq!(reply.status, 200);
//! assert_eq!(reply.body, br#"{"access_token":"IG-ok-17~1","token_type":"bearer","expires_in":5183944}"#);
//! # Ok::<(), jiff::Error>(())
//! ```
//!
//! # What is real and what is invented
//!
//! Error bodies are those that public code, documentation and live logs show. Invented, as no real one is known:
//! the refusal of a token younger than a day, the body for a missing `client_secret`, and those for a missing or
//! unknown `grant_type` at `/refresh_access_token`.

mod answer;
pub mod behaviour;
pub mod call;
mod chance;
#[cfg(test)]
mod fixture;
mod inspect;
mod record;
mod refresh;
mod refusal;
pub mod server;
pub mod share;
mod state;
#[cfg(test)]
mod tests;
pub mod token;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use perene_policy::{Fingerprint, Grant, Secret};

pub use behaviour::Behaviour;
pub use call::{Reply, Request};
pub use record::{KEPT_CALLS, Stats};
pub use server::serve;
pub use share::{Shares, SharesError};

use answer::Content;
use call::Endpoint;
use refusal::Refusal;
use state::Memory;

/// How a [`Sandbox`] behaves as a whole.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// All chance follows from it: the shares, the ids in answers.
    pub seed: u64,
    /// How long every answer takes, on top of what a `slow` token adds.
    pub latency: Duration,
    /// How tokens behave whose text says nothing. Default: all are well.
    pub shares: Shares,
    /// How long a token lives from its first sight when its text does not name its end. Only a `stuck` one
    /// really dies then; of others it is what `debug_token` tells. Default: five days.
    pub untold_life: Duration,
    /// The only app id that is right; `None`: any is.
    pub app_id: Option<String>,
    /// The only app secret that is right; `None`: any is.
    pub app_secret: Option<Secret>,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            seed: 0,
            latency: Duration::ZERO,
            shares: Shares::default(),
            untold_life: Duration::from_secs(5 * 86_400),
            app_id: None,
            app_secret: None,
        }
    }
}

/// A simulated Meta. Clones share their memory.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    settings: SandboxSettings,
    memory: Mutex<Memory>,
}

impl Sandbox {
    /// A Meta that has seen no token yet.
    pub fn new(settings: SandboxSettings) -> Self {
        let memory = Mutex::new(Memory::new(settings.untold_life));
        Self(Arc::new(Inner { settings, memory }))
    }

    /// Answers one request that arrives at `now`. What it changes is changed on arrival, before
    /// [`Reply::delay`] has passed: whoever hangs up early has been refreshed all the same, as in life.
    pub fn answer(&self, request: &Request, now: Timestamp) -> Reply {
        let settings = &self.0.settings;
        let endpoint = Endpoint::of(request);
        let presented = endpoint.token(request);
        let text = token::read(presented.unwrap_or_default(), |lineage| settings.shares.draw(settings.seed, lineage));
        let known = presented.map(|token| (text.behaviour, Fingerprint::of(token)));
        let delay = match text.behaviour {
            Behaviour::Slow { ms } if presented.is_some() => Duration::from_millis(ms.into()),
            _ => Duration::ZERO,
        };

        let mut memory = self.lock();
        let call_number = memory.count_call(&text, now);
        let content = self
            .refuse(endpoint, request)
            .map_or_else(|| content(endpoint, request, &text, &mut memory, now), Content::Refused);
        let trace = chance::mix(chance::mix(settings.seed, chance::hash(text.lineage)), call_number);
        let reply = answer::render(&content, endpoint, call::api_version(&request.path), trace)
            .delayed_by(settings.latency.saturating_add(delay));
        memory.record.note(now, endpoint, known, reply.status);
        reply
    }

    /// The calls so far, oldest first, one JSON object a line: `at`, `endpoint`, `behaviour`, `fingerprint`
    /// (never the token) and `status`. Only the last [`KEPT_CALLS`] are kept.
    pub fn log(&self) -> String {
        self.lock().record.log_lines()
    }

    /// How many calls there were, by endpoint, status and behaviour.
    pub fn stats(&self) -> Stats {
        let memory = self.lock();
        memory.record.stats(memory.tokens_seen())
    }

    /// Refuses what is wrong with a request before its token is looked at.
    fn refuse(&self, endpoint: Endpoint, request: &Request) -> Option<Refusal> {
        let token_is_missing = endpoint.token(request).is_none();
        match endpoint {
            Endpoint::Exchange | Endpoint::AppToken => self
                .refuse_app(request.parameter("client_id"), request.parameter("client_secret"))
                .or_else(|| (endpoint == Endpoint::Exchange && token_is_missing).then(Refusal::missing_exchange_token)),
            Endpoint::InstagramRefresh | Endpoint::ThreadsRefresh => {
                token_is_missing.then(Refusal::missing_access_token)
            }
            Endpoint::DebugToken => self
                .refuse_app_token(request.app_token())
                .or_else(|| token_is_missing.then(Refusal::missing_input_token)),
            Endpoint::Other => Some(Refusal::of_path(request)),
        }
    }

    fn refuse_app_token(&self, app_token: Option<&str>) -> Option<Refusal> {
        let Some(app_token) = app_token else { return Some(Refusal::missing_access_token()) };
        let Some((id, secret)) = app_token.split_once('|') else { return Some(Refusal::not_an_app_token()) };
        self.refuse_app(Some(id), Some(secret)).map(|_| Refusal::wrong_app_token())
    }

    /// Refuses a wrong app id or secret: `None` if both will do.
    fn refuse_app(&self, id: Option<&str>, secret: Option<&str>) -> Option<Refusal> {
        let settings = &self.0.settings;
        let Some(id) = id else { return Some(Refusal::missing_client_id()) };
        if settings.app_id.as_deref().is_some_and(|right| right != id) {
            return Some(Refusal::wrong_client_id());
        }
        let right = settings.app_secret.as_ref();
        if secret.is_none_or(|secret| right.is_some_and(|right| right.expose() != secret)) {
            return Some(Refusal::wrong_client_secret());
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is answered to a request that is well formed and well signed.
fn content(
    endpoint: Endpoint,
    request: &Request,
    text: &token::TokenText<'_>,
    memory: &mut Memory,
    now: Timestamp,
) -> Content {
    let parameter = |name| request.parameter(name).unwrap_or_default();
    match endpoint {
        Endpoint::Exchange => refresh::answer(Grant::Facebook, text, memory, now),
        Endpoint::InstagramRefresh => refresh::answer(Grant::Instagram, text, memory, now),
        Endpoint::ThreadsRefresh => refresh::answer(Grant::Threads, text, memory, now),
        Endpoint::AppToken => {
            Content::token(format!("{}|{}", parameter("client_id"), parameter("client_secret")), None)
        }
        Endpoint::DebugToken => {
            let app_id = request.app_token().and_then(|token| token.split('|').next()).unwrap_or_default();
            inspect::answer(app_id, parameter("input_token"), text, memory, now)
        }
        Endpoint::Other => Content::Refused(Refusal::of_path(request)),
    }
}
