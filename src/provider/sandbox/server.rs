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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde_json::Value;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::super::SandboxSettings;
    use super::*;
    use crate::clock::ManualClock;

    struct Served {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        task: JoinHandle<io::Result<()>>,
    }

    async fn served(settings: SandboxSettings, clock: Arc<dyn Clock>) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, Sandbox::new(settings), clock, async move {
            let _ = stopped.await;
        }));
        Served { address, stop, task }
    }

    async fn served_by_default() -> (Served, reqwest::Client) {
        let clock = ManualClock::at("2026-11-23T03:00:00Z".parse().unwrap());
        let served = served(SandboxSettings::default(), Arc::new(clock)).await;
        (served, reqwest::Client::builder().build().unwrap())
    }

    /// A clock on which nobody ever wakes up.
    struct Stopped;

    #[async_trait::async_trait]
    impl Clock for Stopped {
        fn now(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }
        async fn sleep(&self, _: Duration) {
            std::future::pending::<()>().await;
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    async fn json(response: reqwest::Response) -> Value {
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_three_grants_and_debug_token_are_served() {
        let (served, client) = served_by_default().await;
        let base = format!("http://{}", served.address);
        let form = [
            ("grant_type", "fb_exchange_token"),
            ("client_id", "1"),
            ("client_secret", "s"),
            ("fb_exchange_token", "EAA-ok-+&1"),
        ];
        let exchanged = client.post(format!("{base}/v26.0/oauth/access_token")).form(&form).send().await.unwrap();
        assert_eq!(
            (exchanged.status().as_u16(), exchanged.headers()["facebook-api-version"].as_bytes()),
            (200, &b"v26.0"[..])
        );
        assert_eq!(json(exchanged).await["access_token"], "EAA-ok-+&1~1");
        for (grant, token) in [("ig_refresh_token", "IG-ok-1"), ("th_refresh_token", "TH-ok-1")] {
            let query = [("grant_type", grant), ("access_token", token)];
            let refreshed = client.get(format!("{base}/refresh_access_token")).query(&query).send().await.unwrap();
            assert_eq!(json(refreshed).await["expires_in"], 5_183_944);
        }
        let inspected = client
            .get(format!("{base}/debug_token"))
            .query(&[("input_token", "EAA-dead-460-1")])
            .header("authorization", "Bearer 1|s")
            .send()
            .await
            .unwrap();
        assert_eq!(json(inspected).await["data"]["error"]["subcode"], 460);
    }

    #[tokio::test]
    async fn log_and_stats_are_served_and_count_only_meta() {
        let (served, client) = served_by_default().await;
        let base = format!("http://{}", served.address);
        let query = [("grant_type", "ig_refresh_token"), ("access_token", "IG-dead-460-1")];
        client.get(format!("{base}/refresh_access_token")).query(&query).send().await.unwrap();
        let log = client.get(format!("{base}/__log")).send().await.unwrap().text().await.unwrap();
        let line: Value = serde_json::from_str(log.trim_end()).unwrap();
        assert_eq!((&line["at"], &line["status"]), (&"2026-11-23T03:00:00Z".into(), &400.into()));
        assert!(!log.contains("IG-dead-460-1"));
        let stats = json(client.get(format!("{base}/__stats")).send().await.unwrap()).await;
        assert_eq!((&stats["calls"], &stats["in_flight"], &stats["in_flight_max"]), (&1.into(), &0.into(), &1.into()));
    }

    #[tokio::test]
    async fn http_2_is_served_by_prior_knowledge() {
        let (served, _) = served_by_default().await;
        let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let response = client.get(format!("http://{}/__stats", served.address)).send().await.unwrap();
        assert_eq!(response.version(), reqwest::Version::HTTP_2);
    }

    #[tokio::test]
    async fn a_raw_socket_is_answered_byte_by_byte_as_http_1() {
        let (served, _) = served_by_default().await;
        let mut socket = TcpStream::connect(served.address).await.unwrap();
        let request = b"GET /refresh_access_token?grant_type=th_refresh_token&access_token=TH-html500-%00 HTTP/1.1\r\n\
            Host: x\r\nConnection: close\r\n\r\n";
        socket.write_all(request).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{answer}");
        assert!(answer.contains("content-type: text/html; charset=utf-8\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn an_endless_body_is_refused() {
        let (served, client) = served_by_default().await;
        let url = format!("http://{}/oauth/access_token", served.address);
        let response = client.post(url).body(vec![b'a'; BODY_BYTES_MAX + 1]).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 413);
    }

    #[tokio::test]
    async fn a_slow_answer_takes_its_time_on_the_given_clock() {
        let clock = ManualClock::at(jiff::Timestamp::UNIX_EPOCH);
        let served = served(SandboxSettings::default(), Arc::new(clock.clone())).await;
        let url = format!("http://{}/refresh_access_token", served.address);
        let query = [("grant_type", "ig_refresh_token"), ("access_token", "IG-slow-2000-1")];
        let response = reqwest::Client::builder().build().unwrap().get(url).query(&query).send().await.unwrap();
        assert_eq!((response.status().as_u16(), clock.monotonic()), (200, Duration::from_secs(2)));
    }

    #[tokio::test]
    async fn shutdown_sends_what_is_still_waiting_and_ends() {
        let settings = SandboxSettings { latency: Duration::from_secs(1), ..SandboxSettings::default() };
        let served = served(settings, Arc::new(Stopped)).await;
        let base = format!("http://{}", served.address);
        let client = reqwest::Client::builder().build().unwrap();
        let waiting = tokio::spawn(client.get(format!("{base}/v26.0/me")).send());
        let mut seen = false;
        for _ in 0..10_000 {
            let stats = json(client.get(format!("{base}/__stats")).send().await.unwrap()).await;
            seen = stats["in_flight"] == 1;
            if seen {
                break;
            }
        }
        assert!(seen, "the call never arrived");
        served.stop.send(()).unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().status().as_u16(), 400);
        served.task.await.unwrap().unwrap();
    }
}
