//! The one HTTP client: deadlines, no redirects, capped bodies, no URL in any text.

use std::error::Error;
use std::time::Duration;

use perene_policy::answer::{Answer, NoAnswer, NoAnswerKind};

/// A connection that is not there by then is given up.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// From the first byte of the request to the last of the answer, waiting for a free connection included.
pub const TOTAL_DEADLINE: Duration = Duration::from_secs(30);

/// No more of a body is read than this; answers of token endpoints have some hundred bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The client could not be made: the machine has no roots of trust, mostly.
#[derive(Debug, thiserror::Error)]
#[error("no HTTPS client can be made: {0}; install the system's CA certificates (Debian: ca-certificates)")]
pub struct NoClient(String);

/// A client for calls to providers. A redirect is an answer, and not followed: a 307 would carry the secret
/// to another host. Compressed bodies are not asked for, so nothing can unfold while it is read.
///
/// # Errors
/// When the machine's roots of trust cannot be read.
pub fn client(connections: usize) -> Result<reqwest::Client, NoClient> {
    reqwest::Client::builder()
        .user_agent(concat!("perene/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(TOTAL_DEADLINE)
        .pool_max_idle_per_host(connections)
        .pool_idle_timeout(Duration::from_secs(30))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .tcp_nodelay(true)
        .no_proxy()
        .referer(false)
        .build()
        .map_err(|error| NoClient(last_cause(&error)))
}

/// Sends a request and reads its answer, up to [`BODY_BYTES_MAX`].
///
/// # Errors
/// When no complete answer came. A body that breaks off is [`NoAnswerKind::Lost`]: what was asked for may
/// have been done.
pub async fn send(request: reqwest::RequestBuilder) -> Result<Answer, NoAnswer> {
    let mut response = request.send().await.map_err(no_answer)?;
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let mut body = Vec::new();
    let mut truncated = false;
    while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
        let room = BODY_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            truncated = true;
            break;
        }
    }
    Ok(Answer { status, headers, body, truncated })
}

fn no_answer(error: reqwest::Error) -> NoAnswer {
    let kind = if error.is_connect() || error.is_builder() { NoAnswerKind::NotSent } else { NoAnswerKind::Lost };
    let error = error.without_url();
    let text = match (error.is_connect(), error.is_timeout()) {
        (true, true) => format!("no connection within {} s", CONNECT_DEADLINE.as_secs()),
        (true, false) => format!("no connection: {}", last_cause(&error)),
        (false, true) => format!("no complete answer within {} s", TOTAL_DEADLINE.as_secs()),
        (false, false) => format!("no complete answer: {}", last_cause(&error)),
    };
    NoAnswer { kind, text }
}

/// The innermost cause says what happened; the layers above it say where in the library.
fn last_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string().to_lowercase()
}
