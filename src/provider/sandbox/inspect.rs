//! `debug_token`, with its traps: a dead token is a 200, its subcode is called `subcode`, and a fault of the app
//! token is an error 190 that says nothing about the token that was asked for.
//! <https://developers.facebook.com/docs/graph-api/reference/debug_token>

use std::borrow::Cow;

use jiff::Timestamp;
use perene_policy::Grant;
use serde::Serialize;

use super::answer::Content;
use super::refusal::Refusal;
use super::state::{End, LIFE_S, Memory};
use super::token::TokenText;
use super::{Behaviour, chance};

/// For how long data may be asked after the customer was last seen, in seconds: 90 days.
/// <https://developers.facebook.com/docs/facebook-login/auth-vs-data>
const DATA_ACCESS_S: i64 = 90 * 86_400;

const SCOPES: [&str; 5] =
    ["instagram_basic", "instagram_manage_comments", "instagram_manage_messages", "pages_show_list", "public_profile"];

/// The body of an inspection.
#[derive(Serialize)]
pub(super) struct Inspected {
    data: Data,
}

#[derive(Serialize, Default)]
struct Data {
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_access_expires_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<InnerError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
    is_valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<&'static [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
}

#[derive(Serialize)]
struct InnerError {
    code: u16,
    message: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subcode: Option<u16>,
}

/// Answers the app `app_id` about a token: a customer's, or the app's own.
pub(super) fn answer(app_id: &str, input: &str, text: &TokenText<'_>, memory: &mut Memory, now: Timestamp) -> Content {
    if input.contains('|') {
        return app_token(app_id, input);
    }
    // What stands in front of the endpoint does not look at what is asked.
    match text.behaviour {
        Behaviour::Html500 => return Content::SorryPage,
        Behaviour::Limited => return Content::Refused(Refusal::too_many_calls()),
        _ => {}
    }
    if text.grant != Grant::Facebook {
        return invalid(Refusal::cannot_parse().message);
    }
    let lineage = memory.lineage(text, now);
    let death = lineage.death(text, now);
    let expires_at = match (lineage.end(text, now), &death) {
        (_, Some(death)) if death.expired_at_s().is_some() => death.expired_at_s().unwrap_or(0),
        (End::Never, _) => 0,
        (End::At(instant) | End::Untold(instant), _) => instant,
    };
    // Of a token that never ends, or ends later than any, the day it was made is not known: say a week ago.
    let issued_at =
        if expires_at == 0 { now.as_second() - 7 * 86_400 } else { (expires_at - LIFE_S).min(now.as_second()) };
    Content::Inspected(Inspected {
        data: Data {
            app_id: Some(app_id.to_owned()),
            r#type: Some("USER"),
            application: Some("Perene Sandbox"),
            data_access_expires_at: Some(issued_at + DATA_ACCESS_S),
            error: death.as_ref().map(|death| InnerError {
                code: 190,
                message: death.message(now),
                subcode: death.subcode(),
            }),
            expires_at: Some(expires_at),
            is_valid: death.is_none(),
            issued_at: Some(issued_at),
            scopes: Some(&SCOPES),
            user_id: Some(format!("1{:015}", chance::hash(text.lineage) % 1_000_000_000_000_000)),
        },
    })
}

/// Of an app token only `app_id` and `is_valid` are told; of another app's not even that.
fn app_token(app_id: &str, input: &str) -> Content {
    if input.split('|').next() != Some(app_id) {
        return invalid(Refusal::wrong_app_token().message);
    }
    Content::Inspected(Inspected { data: Data { app_id: Some(app_id.to_owned()), is_valid: true, ..Data::default() } })
}

fn invalid(message: Cow<'static, str>) -> Content {
    let error = Some(InnerError { code: 190, message, subcode: None });
    Content::Inspected(Inspected { data: Data { error, scopes: Some(&[]), ..Data::default() } })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{at, error, inspection, json, meta, refresh, token};
    use super::super::{Request, Sandbox, SandboxSettings};

    const DAY_S: i64 = 86_400;

    #[test]
    fn a_live_token_tells_its_end() {
        let end = at(3 * DAY_S).as_second();
        let reply = meta().answer(&inspection(&format!("EAA-ok-exp{end}-1")), at(0));
        let data = &json(&reply)["data"];
        assert_eq!((reply.status, &data["is_valid"], &data["expires_at"]), (200, &true.into(), &end.into()));
        assert_eq!(data["issued_at"], end - 5_183_944);
        assert_eq!(data["data_access_expires_at"], end - 5_183_944 + 90 * DAY_S);
        assert_eq!((&data["app_id"], &data["type"]), (&"1".into(), &"USER".into()));
        assert!(data["user_id"].is_string() && data["scopes"].is_array() && data.get("error").is_none());
    }

    #[test]
    fn an_untold_end_is_five_days_after_the_first_sight() {
        let meta = meta();
        for seconds in [0, 77] {
            let reply = meta.answer(&inspection("EAA-ok-1"), at(seconds));
            assert_eq!(json(&reply)["data"]["expires_at"], at(5 * DAY_S).as_second());
        }
        let late = meta.answer(&inspection("EAA-ok-1"), at(9 * DAY_S));
        assert_eq!(json(&late)["data"]["is_valid"], true);
        assert!(json(&late)["data"]["expires_at"].as_i64() > Some(at(9 * DAY_S).as_second()));
    }

    #[test]
    fn a_refresh_moves_the_end_that_is_told() {
        let meta = meta();
        let new = token(&meta.answer(&refresh("EAA-ok-1"), at(0)));
        let reply = meta.answer(&inspection(&new), at(10));
        assert_eq!(json(&reply)["data"]["expires_at"], at(5_183_944).as_second());
        let stuck = meta.answer(&refresh("EAA-stuck-1"), at(0));
        let reply = meta.answer(&inspection("EAA-stuck-1"), at(10));
        assert_eq!(json(&reply)["data"]["expires_at"], at(json(&stuck)["expires_in"].as_i64().unwrap()).as_second());
    }

    #[test]
    fn never_is_zero() {
        let reply = meta().answer(&inspection("EAA-ok-exp0-1"), at(0));
        assert_eq!((&json(&reply)["data"]["expires_at"], &json(&reply)["data"]["is_valid"]), (&0.into(), &true.into()));
    }

    #[test]
    fn a_dead_token_is_a_200_with_a_subcode() {
        for subcode in [458, 460, 463] {
            let reply = meta().answer(&inspection(&format!("EAA-dead-{subcode}-1")), at(0));
            let data = &json(&reply)["data"];
            assert_eq!((reply.status, &data["is_valid"]), (200, &false.into()));
            assert_eq!((&data["error"]["code"], &data["error"]["subcode"]), (&190.into(), &subcode.into()));
            assert!(data["error"].get("error_subcode").is_none());
        }
    }

    #[test]
    fn a_dead_463_and_a_passed_end_lie_in_the_past() {
        let passed = at(-DAY_S).as_second();
        for token in ["EAA-dead-463-1".to_owned(), format!("EAA-ok-exp{passed}-1")] {
            let data = json(&meta().answer(&inspection(&token), at(0)))["data"].clone();
            assert_eq!((&data["is_valid"], &data["error"]["subcode"]), (&false.into(), &463.into()));
            assert!(data["expires_at"].as_i64() < Some(at(0).as_second()));
        }
    }

    #[test]
    fn a_rotated_string_is_dead_here_too() {
        let meta = meta();
        let new = token(&meta.answer(&refresh("EAA-rotate-1"), at(0)));
        let valid = |token: &str| json(&meta.answer(&inspection(token), at(1)))["data"]["is_valid"].clone();
        assert_eq!((valid("EAA-rotate-1"), valid(&new)), (false.into(), true.into()));
    }

    #[test]
    fn tokens_of_other_families_cannot_be_inspected() {
        for token in ["IG-ok-1", "TH-ok-1"] {
            let reply = meta().answer(&inspection(token), at(0));
            let data = &json(&reply)["data"];
            assert_eq!((reply.status, &data["is_valid"]), (200, &false.into()));
            assert_eq!(data["error"]["message"], "Invalid OAuth access token - Cannot parse access token");
        }
    }

    #[test]
    fn what_stands_in_front_does_not_look_at_what_is_asked() {
        assert_eq!(error(&meta().answer(&inspection("EAA-limited-1"), at(0)), 403), (Some(4), None));
        assert!(meta().answer(&inspection("EAA-html500-1"), at(0)).body.starts_with(b"<!DOCTYPE"));
        assert_eq!(meta().answer(&inspection("EAA-slow-300-1"), at(0)).delay.as_millis(), 300);
    }

    #[test]
    fn an_inspection_is_no_refresh() {
        let meta = meta();
        assert_eq!(meta.answer(&inspection("EAA-flaky-1"), at(0)).status, 200);
        assert_eq!(meta.answer(&refresh("EAA-flaky-1"), at(0)).status, 500);
    }

    #[test]
    fn the_app_token_is_what_is_refused() {
        let meta = Sandbox::new(SandboxSettings {
            app_id: Some("1".into()),
            app_secret: Some("s".into()),
            ..SandboxSettings::default()
        });
        let ask = |request: Request| error(&meta.answer(&request, at(0)), 400);
        let question = || Request::get("/debug_token", &[("input_token", "EAA-ok-1")]);
        for wrong in ["1|wrong", "2|s", "|", "1|"] {
            let reply = meta.answer(&question().with_bearer(wrong), at(0));
            assert_eq!(json(&reply)["error"]["message"], "Invalid OAuth access token signature.");
            assert_eq!(error(&reply, 400), (Some(190), None));
        }
        assert_eq!(ask(question()), (Some(104), None));
        assert_eq!(ask(question().with_bearer("EAA-ok-2")), (Some(100), None));
        assert_eq!(ask(Request::get("/debug_token", &[]).with_bearer("1|s")), (Some(100), None));
        let by_query = Request::get("/debug_token", &[("input_token", "EAA-ok-1"), ("access_token", "1|s")]);
        assert_eq!(meta.answer(&by_query, at(0)).status, 200);
    }

    #[test]
    fn of_an_app_token_only_its_app_is_told() {
        let reply = meta().answer(&inspection("1|s"), at(0));
        assert_eq!(reply.body, br#"{"data":{"app_id":"1","is_valid":true}}"#);
        assert_eq!(json(&meta().answer(&inspection("2|s"), at(0)))["data"]["is_valid"], false);
    }
}
