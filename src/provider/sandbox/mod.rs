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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fixture::{at, error, exchange, inspection, json, meta, refresh};
    use super::*;

    #[test]
    fn a_wrong_app_is_told_in_metas_words() {
        let meta = Sandbox::new(SandboxSettings {
            app_id: Some("1".into()),
            app_secret: Some("s".into()),
            ..SandboxSettings::default()
        });
        let with = |name: &str, value: &str| {
            let mut request = exchange("EAA-ok-1");
            request.form.iter_mut().filter(|(key, _)| key == name).for_each(|(_, old)| *old = value.into());
            let reply = meta.answer(&request, at(0));
            let message = json(&reply)["error"]["message"].as_str().unwrap_or_default().to_owned();
            (reply.status, json(&reply)["error"]["code"].as_u64(), message)
        };
        assert_eq!(with("client_id", ""), (400, Some(101), "Missing client_id parameter.".into()));
        let wrong_id = (400, Some(101), "Error validating application. Invalid application ID.".into());
        assert_eq!(with("client_id", "2"), wrong_id);
        let wrong_secret = (400, Some(1), "Error validating client secret.".to_owned());
        assert_eq!(with("client_secret", ""), wrong_secret);
        assert_eq!(with("client_secret", "t"), wrong_secret);
        let no_token = (400, Some(1), "fb_exchange_token parameter not specified".into());
        assert_eq!(with("fb_exchange_token", ""), no_token);
        assert_eq!(with("grant_type", ""), (400, Some(191), "Missing redirect_uri parameter.".into()));
        assert_eq!(with("client_id", "1"), (200, None, String::new()));
    }

    #[test]
    fn client_credentials_give_the_app_token() {
        let form = [("grant_type", "client_credentials"), ("client_id", "1"), ("client_secret", "s")];
        let reply = meta().answer(&Request::post("/oauth/access_token", &form), at(0));
        assert_eq!(reply.body, br#"{"access_token":"1|s","token_type":"bearer"}"#);
    }

    #[test]
    fn an_unknown_path_is_told_by_its_name() {
        for path in ["/v26.0/me", "/", "", "/__log"] {
            assert_eq!(error(&meta().answer(&Request::get(path, &[]), at(0)), 400), (Some(2500), None));
        }
        let reply = meta().answer(&Request::get("/v26.0/unknown", &[]), at(0));
        assert_eq!(json(&reply)["error"]["message"], "Unknown path components: /unknown");
    }

    #[test]
    fn headers_are_those_of_meta() {
        let reply = meta().answer(&exchange("EAA-dead-460-1"), at(0));
        assert_eq!(reply.header("facebook-api-version"), Some("v26.0"));
        assert_eq!(reply.header("content-type"), Some("application/json; charset=UTF-8"));
        assert!(reply.header("x-fb-trace-id").is_some_and(|id| id.len() == 11));
        assert!(reply.header("www-authenticate").is_some_and(|text| text.contains("\"invalid_token\"")));
        assert_eq!(meta().answer(&refresh("IG-ok-1"), at(0)).header("facebook-api-version"), None);
    }

    #[test]
    fn the_same_seed_and_calls_give_the_same_bytes() {
        let story = |seed| {
            let shares = Shares::parse("dead=20,flaky=20,stuck=20,rotate=10").unwrap();
            let meta = Sandbox::new(SandboxSettings { seed, shares, ..SandboxSettings::default() });
            let mut bytes = Vec::new();
            for call in 0..200 {
                let name = format!("EAAB{}", call % 40);
                for request in [exchange(&name), inspection(&name)] {
                    let reply = meta.answer(&request, at(call));
                    bytes.extend(reply.headers.into_iter().flat_map(|(name, value)| [name, value]));
                    bytes.push(String::from_utf8(reply.body).unwrap());
                }
            }
            bytes.push(meta.log());
            bytes.concat()
        };
        assert_eq!(story(7), story(7));
        assert_ne!(story(7), story(8));
    }

    #[test]
    fn the_order_of_other_tokens_calls_does_not_matter() {
        let answers = |order: [&str; 3]| {
            let meta = meta();
            let mut answers = order.map(|token| (token.to_owned(), meta.answer(&refresh(token), at(0)).body));
            answers.sort();
            answers
        };
        let names = ["EAA-flaky-1", "IG-dead-460-1", "TH-ok-1"];
        assert_eq!(answers(names), answers([names[2], names[0], names[1]]));
    }

    #[test]
    fn latency_comes_on_top() {
        let latency = Duration::from_millis(50);
        let meta = Sandbox::new(SandboxSettings { latency, ..SandboxSettings::default() });
        assert_eq!(meta.answer(&refresh("EAA-ok-1"), at(0)).delay.as_millis(), 50);
        assert_eq!(meta.answer(&refresh("EAA-slow-200-1"), at(0)).delay.as_millis(), 250);
    }

    #[test]
    fn log_and_counts_show_no_token() {
        let meta = meta();
        let tokens = ["EAA-ok-1", "IG-dead-458-1", "EAABplain"];
        tokens.iter().for_each(|token| drop(meta.answer(&refresh(token), at(0))));
        meta.answer(&inspection("EAA-ok-1~1"), at(0));
        meta.answer(&Request::get("/me", &[("access_token", "EAA-ok-1")]), at(0));
        let (log, stats) = (meta.log(), meta.stats());
        assert!(tokens.iter().all(|token| !log.contains(token) && !format!("{stats:?}").contains(token)));
        assert!(log.contains(Fingerprint::of("EAABplain").as_str()));
        assert!(log.contains(r#""endpoint":"ig_refresh","behaviour":"dead-458""#));
        assert_eq!((stats.calls, stats.tokens_seen, stats.by_status[&200]), (5, 3, 3));
        assert_eq!((stats.by_endpoint["exchange"], stats.by_endpoint["other"]), (2, 1));
        assert_eq!((stats.by_behaviour["ok"], stats.by_behaviour["dead"]), (3, 1));
    }

    fn word() -> impl Strategy<Value = String> {
        let known = prop::sample::select(vec![
            "EAA",
            "IG",
            "TH",
            "dead",
            "460",
            "463",
            "stuck",
            "flaky",
            "html500",
            "limited",
            "young",
            "slow",
            "4294967296",
            "notoken",
            "rotate",
            "exp0",
            "exp9999999999",
            "exp1",
            "~1",
            "~4294967295",
            "|",
            "",
        ]);
        prop_oneof![4 => known.prop_map(str::to_owned), 1 => any::<String>()]
    }

    fn value() -> impl Strategy<Value = String> {
        let grants = prop::sample::select(vec![
            "fb_exchange_token",
            "ig_refresh_token",
            "th_refresh_token",
            "client_credentials",
            "1|s",
            "EAA-rotate-1",
        ]);
        prop_oneof![grants.prop_map(str::to_owned), prop::collection::vec(word(), 0..5).prop_map(|all| all.join("-"))]
    }

    fn parameters() -> impl Strategy<Value = Vec<(String, String)>> {
        let names = prop::sample::select(vec![
            "grant_type",
            "client_id",
            "client_secret",
            "fb_exchange_token",
            "access_token",
            "input_token",
        ]);
        prop::collection::vec((names.prop_map(str::to_owned), value()), 0..8)
    }

    fn path() -> impl Strategy<Value = String> {
        let known = prop::sample::select(vec![
            "/oauth/access_token",
            "/v26.0/oauth/access_token",
            "/refresh_access_token",
            "/v1.0/debug_token",
            "/v.",
        ]);
        prop_oneof![4 => known.prop_map(str::to_owned), 1 => any::<String>()]
    }

    proptest! {
        #[test]
        fn no_request_panics(
            calls in prop::collection::vec(
                (
                    prop::sample::select(vec!["GET", "POST", "PUT", "é"]), path(), parameters(), parameters(),
                    prop::option::of(prop_oneof![Just("Bearer 1|s".to_owned()), any::<String>()]),
                    prop_oneof![
                        0_i64..4_000_000_000,
                        Timestamp::MIN.as_second()..=Timestamp::MAX.as_second(),
                    ],
                ),
                1..6,
            ),
            right_id in any::<bool>(),
        ) {
            let meta = Sandbox::new(SandboxSettings {
                shares: Shares::parse("dead=30,stuck=30").unwrap(),
                app_id: right_id.then(|| "1".to_owned()),
                untold_life: Duration::MAX,
                ..SandboxSettings::default()
            });
            for (method, path, query, form, authorization, second) in calls {
                let request = Request { method: method.to_owned(), path, query, form, authorization };
                let reply = meta.answer(&request, Timestamp::from_second(second).unwrap());
                prop_assert!((200..=500).contains(&reply.status));
                prop_assert!(reply.header("content-type").is_some());
                let is_json = serde_json::from_slice::<serde_json::Value>(&reply.body).is_ok();
                prop_assert!(is_json || reply.body.starts_with(b"<!DOCTYPE"));
            }
        }
    }
}
