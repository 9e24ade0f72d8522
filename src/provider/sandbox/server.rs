//! The sandbox on a port: HTTP/1.1 and HTTP/2 without TLS (prior knowledge), for staging and tests.
//!
//! Beside Meta's endpoints it answers `GET /__log` (the calls so far, as JSON lines) and `GET /__stats` (their
//! counts). Neither shows a token.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{io, time::Duration};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use axum::routing::get;
use axum::serve::ListenerExt;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use url::form_urlencoded;

use super::{Reply, Request, Sandbox, Stats};
use crate::clock::Clock;

/// The largest body that is read: far above any token that Perene sends.
const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Clone)]
struct Shared {
    sandbox: Sandbox,
    clock: Arc<dyn Clock>,
    closing: watch::Receiver<bool>,
    load: Arc<Load>,
}

/// How many calls are being answered.
#[derive(Default)]
struct Load {
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
}

#[derive(Serialize)]
struct ServerStats {
    #[serde(flatten)]
    stats: Stats,
    in_flight: u64,
    in_flight_max: u64,
}

/// Serves `sandbox` on `listener` until `shutdown` is ready; answers that are still waiting for their delay are
/// then sent at once. Fails only if the listener does.
pub async fn serve(
    listener: TcpListener,
    sandbox: Sandbox,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (close, closing) = watch::channel(false);
    let shared = Shared { sandbox, clock, closing, load: Arc::default() };
    let router =
        Router::new().route("/__log", get(log)).route("/__stats", get(stats)).fallback(answer).with_state(shared);
    // Answers are one small packet: waiting for more to send with it would only add to the latency.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            shutdown.await;
            close.send_replace(true);
        })
        .await
}

async fn log(State(shared): State<Shared>) -> Response<Body> {
    plain(StatusCode::OK, "application/jsonl; charset=utf-8", shared.sandbox.log())
}

async fn stats(State(shared): State<Shared>) -> Response<Body> {
    let stats = ServerStats {
        stats: shared.sandbox.stats(),
        in_flight: shared.load.in_flight.load(Relaxed),
        in_flight_max: shared.load.in_flight_max.load(Relaxed),
    };
    let body = serde_json::to_vec(&stats).expect("counts are texts and numbers");
    plain(StatusCode::OK, "application/json; charset=utf-8", body)
}

async fn answer(State(mut shared): State<Shared>, request: HttpRequest) -> Response<Body> {
    let _in_flight = InFlight::enter(shared.load.clone());
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "text/plain; charset=utf-8", "the body is too large");
    };
    let request = Request {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: pairs(parts.uri.query().unwrap_or_default().as_bytes()),
        form: form(&parts.headers, &body),
        authorization: text_of(&parts.headers, &header::AUTHORIZATION),
    };
    let reply = shared.sandbox.answer(&request, shared.clock.now());
    if reply.delay > Duration::ZERO {
        tokio::select! {
            () = shared.clock.sleep(reply.delay) => {}
            _ = shared.closing.wait_for(|closing| *closing) => {}
        }
    }
    response(reply)
}

/// Only what says that it is a form is read as one; a body without a type is taken for one, as by Meta.
fn form(headers: &HeaderMap, body: &Bytes) -> Vec<(String, String)> {
    let kind = text_of(headers, &header::CONTENT_TYPE).unwrap_or_default();
    let is_form = kind.is_empty() || kind.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded");
    if is_form { pairs(body) } else { Vec::new() }
}

fn pairs(encoded: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(encoded).into_owned().collect()
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn response(reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        // The sandbox writes its own headers: one that HTTP cannot carry is left out rather than fatal.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn plain(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Counts a call for as long as it is being answered, also when the caller hangs up.
struct InFlight(Arc<Load>);

impl InFlight {
    fn enter(load: Arc<Load>) -> Self {
        let now = load.in_flight.fetch_add(1, Relaxed) + 1;
        load.in_flight_max.fetch_max(now, Relaxed);
        Self(load)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
