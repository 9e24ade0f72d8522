//! What the sandbox's tests share.

use jiff::Timestamp;
use serde_json::Value;

use super::{Reply, Request, Sandbox, SandboxSettings};

/// A Meta with default settings.
pub(super) fn meta() -> Sandbox {
    Sandbox::new(SandboxSettings::default())
}

/// 2026-11-23T03:00:00Z, that many seconds on.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_402_800 + seconds).unwrap()
}

/// The refresh that the token's beginning asks for.
pub(super) fn refresh(token: &str) -> Request {
    let (grant, path) = match &token[..2] {
        "IG" => ("ig_refresh_token", "/refresh_access_token"),
        "TH" => ("th_refresh_token", "/refresh_access_token"),
        _ => return exchange(token),
    };
    Request::get(path, &[("grant_type", grant), ("access_token", token)])
}

/// The exchange as Perene sends it.
pub(super) fn exchange(token: &str) -> Request {
    let form =
        [("grant_type", "fb_exchange_token"), ("client_id", "1"), ("client_secret", "s"), ("fb_exchange_token", token)];
    Request::post("/v26.0/oauth/access_token", &form)
}

/// The inspection as Perene sends it.
pub(super) fn inspection(token: &str) -> Request {
    Request::get("/v26.0/debug_token", &[("input_token", token)]).with_bearer("1|s")
}

/// The body as JSON.
pub(super) fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

/// The token that a refresh has answered.
pub(super) fn token(reply: &Reply) -> String {
    assert_eq!(reply.status, 200);
    json(reply)["access_token"].as_str().unwrap().to_owned()
}

/// The code and subcode of an error that came with this status.
pub(super) fn error(reply: &Reply, status: u16) -> (Option<u64>, Option<u64>) {
    assert_eq!(reply.status, status);
    let error = &json(reply)["error"];
    assert!(error["fbtrace_id"].as_str().unwrap().len() == 23);
    (error["code"].as_u64(), error["error_subcode"].as_u64())
}
