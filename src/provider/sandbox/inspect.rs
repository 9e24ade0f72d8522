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
