//! Webhook to the app: [Standard Webhooks](https://www.standardwebhooks.com) headers and signature, a small
//! JSON body, one attempt a call.
//!
//! Goes to public addresses only unless told otherwise, through no proxy, and follows no redirect: a redirect
//! would carry a signed event to a place that nobody has configured.

use std::error::Error as _;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, StatusCode, Url};
use serde::Serialize;
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP};

use super::compose::header_id;
use super::text::one_line;
use super::{Channel, Delivery, Message};
use guard::{Forbidden, Guard, LookUp};
use retry_after::retry_after;

mod guard;
mod retry_after;
mod settings;

pub use settings::{WebhookError, WebhookSettings};

const CONNECT_MAX: Duration = Duration::from_secs(5);
const TOTAL_MAX: Duration = Duration::from_secs(15);

/// The channel.
pub struct Webhook {
    client: Client,
    url: Url,
    /// For texts: `host:port`.
    name: String,
    signers: Vec<standardwebhooks::Webhook>,
}

impl Webhook {
    /// Reads the settings; looks nothing up and connects to nothing.
    pub fn new(settings: WebhookSettings) -> Result<Self, WebhookError> {
        Self::with_look_up(settings, guard::system())
    }

    fn with_look_up(settings: WebhookSettings, look_up: LookUp) -> Result<Self, WebhookError> {
        let url = settings::checked_url(&settings).map_err(|error| WebhookError(format!("`webhook.url` {error}")))?;
        let signers = settings.secret.as_ref().map(settings::signers).transpose()?.unwrap_or_default();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .timeout(TOTAL_MAX)
            .user_agent(concat!("perene/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Guard { look_up, allow_private: settings.allow_private })
            .build()
            .map_err(|error| {
                WebhookError(format!("`webhook.url` cannot be called: {}", cause(&error.without_url())))
            })?;
        let name = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
            None => url.host_str().unwrap_or_default().to_owned(),
        };
        Ok(Self { client, url, name, signers })
    }

    fn headers(&self, message: &Message, body: &str, now: Timestamp) -> Option<HeaderMap> {
        let id = header_id(&message.id);
        let sent_at_s = now.as_second();
        let mut headers = HeaderMap::new();
        if !self.signers.is_empty() {
            let signatures: Result<Vec<String>, _> =
                self.signers.iter().map(|signer| signer.sign(&id, sent_at_s, body.as_bytes())).collect();
            headers.insert(HEADER_WEBHOOK_SIGNATURE, signatures.ok()?.join(" ").parse().ok()?);
        }
        headers.insert(HEADER_WEBHOOK_ID, id.parse().ok()?);
        headers.insert(HEADER_WEBHOOK_TIMESTAMP, sent_at_s.into());
        headers.insert(CONTENT_TYPE, "application/json".parse().ok()?);
        Some(headers)
    }

    fn answered(&self, status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Delivery {
        let name = &self.name;
        if status.is_success() {
            return Delivery::Sent;
        }
        if status == StatusCode::GONE {
            return Delivery::Never {
                why: format!("webhook `{name}` wants no more events (410): remove `webhook.url`"),
            };
        }
        let why = if status.is_redirection() {
            format!(
                "webhook `{name}` redirects ({}), which is not followed: set `webhook.url` to where it leads",
                status.as_u16()
            )
        } else {
            format!("webhook `{name}` answered {}", status.as_u16())
        };
        Delivery::Later { after: retry_after(headers, now), why }
    }

    fn not_answered(&self, error: reqwest::Error) -> Delivery {
        let error = error.without_url();
        let name = &self.name;
        Delivery::later(if is_forbidden(&error) {
            format!("webhook `{name}` leads to a private address: allow it with `webhook.allow_private = true`")
        } else if error.is_timeout() {
            format!("webhook `{name}` did not answer within {} s", TOTAL_MAX.as_secs())
        } else {
            format!("webhook `{name}` cannot be reached ({}): check `webhook.url`", cause(&error))
        })
    }
}

#[async_trait]
impl Channel for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn deliver(&self, message: &Message, now: Timestamp) -> Delivery {
        let event = Event {
            r#type: message.kind.event_type(),
            timestamp: message.at,
            data: Data {
                connection_id: &message.connection_id,
                user_id: message.user_id.as_deref(),
                table: &message.table,
                reason: &message.reason,
                expires_at: message.expires_at,
            },
        };
        let Ok(body) = serde_json::to_string(&event) else {
            return Delivery::later("the event cannot be written".to_owned());
        };
        let Some(headers) = self.headers(message, &body, now) else {
            return Delivery::later("the event cannot be signed".to_owned());
        };
        match self.client.post(self.url.clone()).headers(headers).body(body).send().await {
            Ok(response) => self.answered(response.status(), response.headers(), now),
            Err(error) => self.not_answered(error),
        }
    }
}

#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    connection_id: &'a str,
    user_id: Option<&'a str>,
    table: &'a str,
    reason: &'a str,
    expires_at: Option<Timestamp>,
}

fn is_forbidden(error: &reqwest::Error) -> bool {
    causes(error).any(<dyn std::error::Error>::is::<Forbidden>)
}

/// The last cause: what lies above it only says that a request failed.
fn cause(error: &reqwest::Error) -> String {
    one_line(&causes(error).last().map_or_else(|| error.to_string(), ToString::to_string), 200)
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::{HeaderMap as Headers, StatusCode as Status};
    use perene_policy::Secret;
    use tokio::net::TcpListener;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::notify::MessageKind;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn settings(url: &str) -> WebhookSettings {
        WebhookSettings { url: Secret::new(url), secret: Some(Secret::new(SECRET)), allow_private: true }
    }

    fn message() -> Message {
        Message {
            id: "msg_1".to_owned(),
            kind: MessageKind::NeedsReconnect,
            connection_id: "42".to_owned(),
            table: "instagram_connections".to_owned(),
            user_id: None,
            reason: "session_invalid".to_owned(),
            expires_at: Some("2026-11-30T12:00:00Z".parse().unwrap()),
            at: "2026-11-23T06:00:00Z".parse().unwrap(),
            days_left: None,
            recipient: None,
        }
    }

    fn now() -> Timestamp {
        "2026-11-23T06:00:05Z".parse().unwrap()
    }

    type Received = Arc<Mutex<Vec<(Headers, String)>>>;

    /// Answers every request in one way, and keeps what it was sent.
    async fn receiver(status: u16, headers: &'static [(&'static str, &'static str)]) -> (String, Received) {
        let received = Received::default();
        let kept = received.clone();
        let app = Router::new().fallback(move |sent: Headers, body: String| {
            kept.lock().unwrap().push((sent, body));
            let headers: Headers =
                headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            std::future::ready((Status::from_u16(status).unwrap(), headers))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, app).await });
        (url, received)
    }

    async fn deliver(url: &str) -> Delivery {
        Webhook::new(settings(url)).unwrap().deliver(&message(), now()).await
    }

    #[tokio::test]
    async fn the_body_is_the_contracts_and_the_signature_verifies() {
        let (url, received) = receiver(204, &[]).await;
        // The library that verifies reads the machine's clock, so this one test sends at that time.
        let now = SystemClock::new().now();
        assert_eq!(Webhook::new(settings(&url)).unwrap().deliver(&message(), now).await, Delivery::Sent);
        let (headers, body) = received.lock().unwrap().pop().unwrap();
        assert_eq!(
            body,
            "{\"type\":\"connection.needs_reconnect\",\"timestamp\":\"2026-11-23T06:00:00Z\",\"data\":{\"connection_id\":\"42\",\
             \"user_id\":null,\"table\":\"instagram_connections\",\"reason\":\"session_invalid\",\
             \"expires_at\":\"2026-11-30T12:00:00Z\"}}"
        );
        assert_eq!(headers["webhook-id"], "msg_1");
        assert_eq!(headers["webhook-timestamp"], now.as_second().to_string().as_str());
        assert_eq!(headers["content-type"], "application/json");
        let verifier = standardwebhooks::Webhook::new(SECRET).unwrap();
        verifier.verify(body.as_bytes(), &headers).unwrap();
        assert!(verifier.verify(body.replace("42", "43").as_bytes(), &headers).is_err());
    }

    #[test]
    fn signatures_are_those_of_the_specification_and_one_for_each_secret() {
        let both = format!("{SECRET} MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let settings = WebhookSettings { secret: Some(Secret::new(both)), ..settings("http://127.0.0.1:1") };
        let webhook = Webhook::new(settings).unwrap();
        let message = Message { id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk".to_owned(), ..message() };
        let now = Timestamp::from_second(1_649_367_553).unwrap();
        let body = r#"{"email":"test@example.com","username":"test_user"}"#;
        let headers = webhook.headers(&message, body, now).unwrap();
        let signatures: Vec<&str> = headers["webhook-signature"].to_str().unwrap().split(' ').collect();
        assert_eq!(signatures[0], "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
        assert_eq!(signatures.len(), 2);
    }

    #[tokio::test]
    async fn without_a_secret_nothing_is_signed() {
        let (url, received) = receiver(200, &[]).await;
        let webhook = Webhook::new(WebhookSettings { secret: None, ..settings(&url) }).unwrap();
        assert_eq!(webhook.deliver(&message(), now()).await, Delivery::Sent);
        let (headers, _) = received.lock().unwrap().pop().unwrap();
        assert!(!headers.contains_key("webhook-signature"));
        assert!(headers.contains_key("webhook-id"));
    }

    #[tokio::test]
    async fn the_status_says_what_becomes_of_the_event() {
        for (status, expected) in
            [(200, "sent"), (202, "sent"), (410, "never"), (400, "later"), (404, "later"), (500, "later")]
        {
            let (url, _) = receiver(status, &[]).await;
            let delivery = deliver(&url).await;
            let word = match &delivery {
                Delivery::Sent => "sent",
                Delivery::Never { .. } => "never",
                Delivery::Later { .. } => "later",
                Delivery::Skipped(_) => "skipped",
            };
            assert_eq!(word, expected, "{status}");
            if let Delivery::Later { why, .. } | Delivery::Never { why } = delivery {
                assert!(why.contains(&status.to_string()) && !why.contains("hook`") && !why.contains("/hook"), "{why}");
            }
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let (elsewhere, received) = receiver(200, &[]).await;
        let location: &'static str = elsewhere.leak();
        let headers: &'static [(&str, &str)] = vec![("location", location)].leak();
        for status in [301, 302, 303, 307, 308] {
            let (url, _) = receiver(status, headers).await;
            let Delivery::Later { why, .. } = deliver(&url).await else { panic!("{status}") };
            assert!(why.contains("not followed"), "{why}");
        }
        assert!(received.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn retry_after_is_heeded() {
        let (url, _) = receiver(429, &[("retry-after", "120")]).await;
        assert!(matches!(deliver(&url).await, Delivery::Later { after, .. } if after == Duration::from_secs(120)));
    }

    #[tokio::test]
    async fn a_receiver_that_is_not_there_is_named_and_its_path_is_not() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let Delivery::Later { why, after } = deliver(&format!("http://127.0.0.1:{port}/secret-path?key=hunter2")).await
        else {
            panic!()
        };
        assert_eq!(after, Duration::ZERO);
        assert!(why.contains(&format!("`127.0.0.1:{port}`")), "{why}");
        assert!(!why.contains("secret-path") && !why.contains("hunter2"), "{why}");
    }

    /// Counts connections to a listener on this host while a webhook is sent to names that lead there.
    async fn connects(allow_private: bool, host: &str, found: Option<Vec<&'static str>>) -> (usize, Delivery) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        let look_up: LookUp = match found {
            None => guard::system(),
            Some(found) => Arc::new(move |_| {
                let found: Vec<SocketAddr> = found.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
                Box::pin(std::future::ready(if found.is_empty() {
                    Err(std::io::Error::other("no such name"))
                } else {
                    Ok(found)
                }))
            }),
        };
        let settings = WebhookSettings { allow_private, ..settings(&format!("http://{host}:{port}/")) };
        let webhook = Webhook::with_look_up(settings, look_up).unwrap();
        let delivery = webhook.deliver(&message(), now()).await;
        server.abort();
        (count.load(Ordering::SeqCst), delivery)
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_is_not_connected_to() {
        for (host, found) in [
            ("localhost", None),
            ("localhost.", Some(vec!["127.0.0.1"])),
            ("hook.example", Some(vec!["127.0.0.1"])),
            ("hook.example", Some(vec!["192.0.0.8", "127.0.0.1"])),
            ("hook.example", Some(vec!["127.0.0.1", "1.1.1.1"])),
            ("hook.example", Some(vec!["::ffff:127.0.0.1"])),
        ] {
            let (connections, delivery) = connects(false, host, found).await;
            assert_eq!(connections, 0, "{host}");
            let Delivery::Later { why, .. } = delivery else { panic!("{delivery:?}") };
            assert!(why.contains("allow_private"), "{why}");
        }
    }

    #[tokio::test]
    async fn a_private_address_is_connected_to_where_it_is_allowed() {
        let (connections, delivery) = connects(true, "hook.example", Some(vec!["127.0.0.1"])).await;
        assert!(connections >= 1);
        assert!(matches!(delivery, Delivery::Later { .. }));
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_looked_up_is_tried_later() {
        let (connections, delivery) = connects(false, "hook.example", Some(vec![])).await;
        assert_eq!(connections, 0);
        let Delivery::Later { why, .. } = delivery else { panic!("{delivery:?}") };
        assert!(why.contains("no such name"), "{why}");
    }
}
