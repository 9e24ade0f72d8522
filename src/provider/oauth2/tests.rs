//! The provider against a server that answers by a script and keeps what it was sent.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use perene_policy::answer::{Expires, judge, judge_no_answer};
use perene_policy::{Outcome, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// Answers one request after the other with the given bytes (none: hangs up), and gives back the requests.
async fn server(answers: Vec<String>) -> (Url, JoinHandle<Vec<Request>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/oauth/token?v=1", listener.local_addr().unwrap()).parse().unwrap();
    let served = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            requests.push(Request::read(&mut stream).await);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    });
    (url, served)
}

struct Request {
    line: String,
    headers: BTreeMap<String, String>,
    form: Vec<(String, String)>,
}

impl Request {
    async fn read(stream: &mut tokio::net::TcpStream) -> Self {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let mut lines = head.lines();
                let line = lines.next().unwrap().to_owned();
                let headers: BTreeMap<String, String> = lines
                    .filter_map(|line| line.split_once(": "))
                    .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                    .collect();
                if body.len() >= headers["content-length"].parse().unwrap() {
                    let form = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
                    return Self { line, headers, form };
                }
            }
            assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the request breaks off");
        }
    }

    fn form(&self) -> Vec<(&str, &str)> {
        self.form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

fn ok(body: &str) -> String {
    status("200 OK", body)
}

fn status(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn app(token_url: Url) -> Oauth2App {
    Oauth2App {
        name: "example".to_owned(),
        token_url,
        client_id: "perene".to_owned(),
        client_secret: Secret::new("s3cret"),
        client_auth: ClientAuth::Body,
        client_id_field: "client_id".to_owned(),
        class: Class::Strict,
        scope: None,
        extra: Vec::new(),
        headers: Vec::new(),
        usual_life: None,
    }
}

async fn call(app: Oauth2App) -> Result<Answer, NoAnswer> {
    let provider = Oauth2Provider::new(app, 1).unwrap();
    provider.call(Grant::Oauth2, Endpoint::Oauth2, &Secret::new("r1/+ é")).await
}

/// What a body means that comes with this status.
async fn verdict_of(answer: String) -> Verdict {
    let (url, served) = server(vec![answer]).await;
    let answer = call(app(url)).await.unwrap();
    served.await.unwrap();
    judge(Endpoint::Oauth2, &answer, Timestamp::UNIX_EPOCH)
}

#[tokio::test]
async fn the_form_holds_what_rfc_6749_asks_for_and_the_url_holds_nothing() {
    let (url, served) = server(vec![ok("{}")]).await;
    call(app(url)).await.unwrap();
    let request = &served.await.unwrap()[0];
    assert_eq!(request.line, "POST /oauth/token?v=1 HTTP/1.1");
    assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(request.headers["accept"], "application/json");
    assert!(!request.headers.contains_key("authorization"));
    assert_eq!(
        request.form(),
        [
            ("grant_type", "refresh_token"),
            ("refresh_token", "r1/+ é"),
            ("client_id", "perene"),
            ("client_secret", "s3cret"),
        ]
    );
}

#[tokio::test]
async fn basic_form_encodes_odd_characters_before_base64() {
    let (url, served) = server(vec![ok("{}")]).await;
    let odd = Oauth2App {
        client_id: "a:b c".to_owned(),
        client_secret: Secret::new("p%ä+/=&~*-._\u{1f511}"),
        client_auth: ClientAuth::Basic,
        ..app(url)
    };
    call(odd).await.unwrap();
    let request = &served.await.unwrap()[0];
    let encoded = request.headers["authorization"].strip_prefix("Basic ").unwrap();
    let pair = String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap();
    assert_eq!(pair, "a%3Ab+c:p%25%C3%A4%2B%2F%3D%26%7E*-._%F0%9F%94%91");
    assert_eq!(request.form(), [("grant_type", "refresh_token"), ("refresh_token", "r1/+ é")]);
}

#[tokio::test]
async fn a_definition_s_peculiarities_are_sent() {
    let (url, served) = server(vec![ok("{}")]).await;
    let tiktok = definitions::of("tiktok").unwrap();
    let peculiar = Oauth2App {
        client_id_field: tiktok.client_id_field.to_owned(),
        headers: tiktok.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        scope: Some("a b".to_owned()),
        extra: vec![("audience".to_owned(), "https://api.example.com/?x=1&y".to_owned())],
        ..app(url)
    };
    call(peculiar).await.unwrap();
    let request = &served.await.unwrap()[0];
    assert_eq!(request.headers["cache-control"], "no-cache");
    assert_eq!(request.headers["accept"], "application/json");
    assert_eq!(
        request.form()[2..],
        [
            ("client_key", "perene"),
            ("client_secret", "s3cret"),
            ("scope", "a b"),
            ("audience", "https://api.example.com/?x=1&y"),
        ]
    );
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_is_refused_by_name() {
    let bad = |name: &str, value: &str| Oauth2App {
        headers: vec![(name.to_owned(), value.to_owned())],
        ..app("http://127.0.0.1:1".parse().unwrap())
    };
    for (name, value) in [("a b", "c"), ("a", "b\r\nc: d")] {
        let error = Oauth2Provider::new(bad(name, value), 1).unwrap_err().to_string();
        assert!(error.contains(&format!("header `{name}`")), "{error}");
    }
}

#[tokio::test]
async fn a_new_refresh_token_is_taken_and_without_one_the_old_one_stays() {
    let refreshed = |verdict: Verdict| {
        assert_eq!(verdict.outcome, Outcome::Refreshed);
        let granted = verdict.granted.unwrap();
        (granted.token.expose().to_owned(), granted.refresh_token.map(|token| token.expose().to_owned()))
    };
    let rotated = verdict_of(ok(r#"{"access_token":"a2","refresh_token":"r2","expires_in":3600}"#)).await;
    assert_eq!(refreshed(rotated), ("a2".to_owned(), Some("r2".to_owned())));
    for body in [
        r#"{"access_token":"a2","expires_in":3600}"#,
        r#"{"access_token":"a2","refresh_token":null}"#,
        r#"{"access_token":"a2","refresh_token":""}"#,
    ] {
        assert_eq!(refreshed(verdict_of(ok(body)).await), ("a2".to_owned(), None), "{body}");
    }
}

#[tokio::test]
async fn a_life_may_be_a_text_or_absent() {
    for (life, expected) in [
        (r#","expires_in":7200"#, Expires::In(SignedDuration::from_hours(2))),
        (r#","expires_in":"7200""#, Expires::In(SignedDuration::from_hours(2))),
        ("", Expires::Unknown),
        (r#","expires_in":null"#, Expires::Unknown),
        (r#","expires_in":0"#, Expires::Unbelievable),
    ] {
        let verdict = verdict_of(ok(&format!(r#"{{"access_token":"a2"{life}}}"#))).await;
        assert_eq!(verdict.granted.unwrap().expires, expected, "{life}");
    }
}

#[tokio::test]
async fn a_refusal_is_one_whatever_its_status() {
    for answer in [
        status(
            "400 Bad Request",
            r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#,
        ),
        // Slack and TikTok.
        ok(r#"{"ok":false,"error":"invalid_refresh_token"}"#),
        ok(r#"{"error":"invalid_grant","error_description":"Refresh token is invalid or expired.","log_id":"1"}"#),
    ] {
        let verdict = verdict_of(answer.clone()).await;
        assert_eq!(verdict.outcome, Outcome::NeedsReconnect, "{answer}");
        assert!(verdict.granted.is_none());
    }
    let wrong_secret = verdict_of(status("401 Unauthorized", r#"{"error":"invalid_client"}"#)).await;
    assert_eq!(wrong_secret.outcome, Outcome::Misconfigured);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, other) = server(vec![ok("{}")]).await;
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let (url, served) = server(vec![redirect]).await;
    assert_eq!(call(app(url)).await.unwrap().status, 307);
    served.await.unwrap();
    assert!(!other.is_finished(), "the secret was carried to another host");
    other.abort();
}

#[tokio::test]
async fn no_answer_tells_whether_the_token_may_be_spent() {
    let (url, served) = server(vec![String::new()]).await;
    let lost = call(app(url.clone())).await.unwrap_err();
    served.await.unwrap();
    assert_eq!(lost.kind, NoAnswerKind::Lost);
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"access_token\":\"a2\"".to_owned();
    let (half_url, served) = server(vec![half]).await;
    let cut = call(app(half_url)).await.unwrap_err();
    served.await.unwrap();
    assert_eq!(cut.kind, NoAnswerKind::Lost);
    // Nobody listens there any more.
    let unsent = call(app(url)).await.unwrap_err();
    assert_eq!(unsent.kind, NoAnswerKind::NotSent);
    for no_answer in [lost, cut, unsent] {
        assert!(!no_answer.text.contains("127.0.0.1") && !no_answer.text.contains("token?"), "{}", no_answer.text);
        assert_eq!(judge_no_answer(&no_answer).outcome, Outcome::Transient);
    }
}

#[tokio::test]
async fn other_endpoints_are_not_called() {
    let provider = Oauth2Provider::new(app("http://127.0.0.1:1".parse().unwrap()), 1).unwrap();
    for endpoint in Endpoint::ALL.into_iter().filter(|endpoint| *endpoint != Endpoint::Oauth2) {
        let error = provider.call(Grant::Oauth2, endpoint, &Secret::new("r1")).await.unwrap_err();
        assert_eq!(error.kind, NoAnswerKind::NotSent);
        assert!(error.text.contains(endpoint.name()), "{}", error.text);
    }
    assert!(provider.probe_app(Grant::Oauth2).await.is_none());
}

#[test]
fn an_app_is_another_one_when_its_id_secret_or_host_changes() {
    let identity = |app: Oauth2App| Oauth2Provider::new(app, 1).unwrap().app(Grant::Oauth2).unwrap();
    let url = || "https://example.com/token".parse().unwrap();
    let first = identity(app(url()));
    assert_eq!((first.name.as_str(), first.secrets.len()), ("example", 1));
    let others = [
        Oauth2App { client_id: "other".to_owned(), ..app(url()) },
        Oauth2App { client_secret: Secret::new("other"), ..app(url()) },
        app("https://example.org/token".parse().unwrap()),
    ];
    for other in others {
        assert_ne!(identity(other).credentials, first.credentials);
    }
    assert_eq!(identity(app(url())).credentials, first.credentials);
}

#[test]
fn no_secret_is_in_debug() {
    for client_auth in [ClientAuth::Body, ClientAuth::Basic] {
        let app = Oauth2App { client_auth, ..app("https://example.com/token".parse().unwrap()) };
        let shown = format!("{:?}", Oauth2Provider::new(app, 1).unwrap());
        assert!(!shown.contains("s3cret") && !shown.contains(&STANDARD.encode("perene:s3cret")), "{shown}");
    }
}
