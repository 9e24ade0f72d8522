//! The three grants: how each behaviour answers a refresh.

use jiff::Timestamp;
use perene_policy::Grant;

use super::Behaviour;
use super::answer::Content;
use super::refusal::Refusal;
use super::state::{End, LIFE_S, Lineage, Memory};
use super::token::{self, TokenText};

/// Answers a refresh at the endpoint of `grant`.
///
/// A granted refresh at Facebook and Instagram hands out a new string, of the next generation, and the old one
/// stays good; Threads moves the end of the string that it was shown. Both are seen in life, so both must work.
pub(super) fn answer(grant: Grant, text: &TokenText<'_>, memory: &mut Memory, now: Timestamp) -> Content {
    // A token of another family is as good as noise, and does not count as a call that reached it.
    if text.grant != grant {
        return Content::Refused(Refusal::cannot_parse());
    }
    let lineage = memory.lineage(text, now);
    let earlier_refreshes = lineage.refreshes;
    lineage.refreshes = lineage.refreshes.saturating_add(1);
    match text.behaviour {
        Behaviour::Html500 => return Content::SorryPage,
        Behaviour::Limited => return Content::Refused(Refusal::too_many_calls()),
        Behaviour::Flaky if earlier_refreshes == 0 => return Content::Refused(Refusal::unexpected_error()),
        _ => {}
    }
    if let Some(death) = lineage.death(text, now) {
        return Content::Refused(death.refusal(now));
    }
    match text.behaviour {
        Behaviour::Young => Content::Refused(Refusal::too_young()),
        Behaviour::NoToken => Content::no_token(LIFE_S),
        Behaviour::Stuck => still_as_long(lineage, text, now),
        _ => extended(lineage, text, now),
    }
}

/// The same string, and what is left of its life: seconds only count down.
fn still_as_long(lineage: &Lineage, text: &TokenText<'_>, now: Timestamp) -> Content {
    let left_s = match lineage.end(text, now) {
        End::Never => None,
        End::At(instant) | End::Untold(instant) => Some(instant - now.as_second()),
    };
    Content::token(token::write(text.lineage, text.generation), left_s)
}

fn extended(lineage: &mut Lineage, text: &TokenText<'_>, now: Timestamp) -> Content {
    let never_ends = lineage.end(text, now) == End::Never;
    lineage.generation = lineage.generation.max(text.generation);
    if text.grant != Grant::Threads || text.behaviour == Behaviour::Rotate {
        lineage.generation = lineage.generation.saturating_add(1);
    }
    lineage.extend(never_ends, now);
    Content::token(token::write(text.lineage, lineage.generation), (!never_ends).then_some(LIFE_S))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{at, error, exchange, json, meta, refresh, token};
    use super::super::{Request, Sandbox};

    const DAY_S: i64 = 86_400;
    const FAMILIES: [&str; 3] = ["EAA", "IG", "TH"];

    fn of_each_family(rest: &str) -> [String; 3] {
        FAMILIES.map(|family| format!("{family}-{rest}"))
    }

    #[test]
    fn ok_is_given_a_whole_life() {
        for old in of_each_family("ok-17") {
            let reply = meta().answer(&refresh(&old), at(0));
            assert_eq!(json(&reply)["expires_in"], 5_183_944);
            assert_eq!(json(&reply)["token_type"], "bearer");
            let new = if old.starts_with("TH") { old.clone() } else { format!("{old}~1") };
            assert_eq!(token(&reply), new);
        }
    }

    #[test]
    fn a_token_that_says_nothing_is_ok() {
        for old in ["EAABsbCS1iHgBO", "IGAAxyz", "THAAxyz", "?", "🔑-🔑"] {
            let request = if old.is_ascii() && old.len() > 2 { refresh(old) } else { exchange(old) };
            assert!(token(&meta().answer(&request, at(0))).starts_with(old));
        }
    }

    #[test]
    fn the_old_string_of_an_ok_token_stays_good() {
        let meta = meta();
        assert_eq!(token(&meta.answer(&refresh("EAA-ok-1"), at(0))), "EAA-ok-1~1");
        assert_eq!(token(&meta.answer(&refresh("EAA-ok-1"), at(1))), "EAA-ok-1~2");
        assert_eq!(token(&meta.answer(&refresh("EAA-ok-1~1"), at(2))), "EAA-ok-1~3");
    }

    #[test]
    fn a_string_that_was_made_before_a_restart_is_known() {
        assert_eq!(token(&meta().answer(&refresh("IG-rotate-1~41"), at(0))), "IG-rotate-1~42");
    }

    #[test]
    fn dead_stays_dead_with_its_subcode() {
        for subcode in [400, 452, 458, 459, 460, 463, 464, 466, 467, 490, 492, 499] {
            let meta = meta();
            for old in of_each_family(&format!("dead-{subcode}-1")) {
                for day in [0, 1, 100] {
                    let reply = meta.answer(&refresh(&old), at(day * DAY_S));
                    assert_eq!(error(&reply, 400), (Some(190), Some(subcode)));
                    assert_eq!(json(&reply)["error"]["type"], "OAuthException");
                }
            }
        }
        assert_eq!(error(&meta().answer(&refresh("EAA-dead-x"), at(0)), 400), (Some(190), None));
    }

    #[test]
    fn stuck_counts_down_to_the_end_it_had_at_first_sight() {
        for old in of_each_family("stuck-1") {
            let meta = meta();
            for (seconds, left) in [(0, 5 * DAY_S), (13, 5 * DAY_S - 13), (4 * DAY_S, DAY_S)] {
                let reply = meta.answer(&refresh(&old), at(seconds));
                assert_eq!((token(&reply), json(&reply)["expires_in"].as_i64()), (old.clone(), Some(left)));
            }
            assert_eq!(error(&meta.answer(&refresh(&old), at(5 * DAY_S)), 400), (Some(190), Some(463)));
        }
    }

    #[test]
    fn stuck_counts_down_to_the_end_that_its_text_names() {
        let end = at(2 * DAY_S).as_second();
        let reply = meta().answer(&refresh(&format!("EAA-stuck-exp{end}-1")), at(DAY_S));
        assert_eq!(json(&reply)["expires_in"], DAY_S);
    }

    #[test]
    fn a_named_end_is_the_end_of_the_first_string_only() {
        let meta = meta();
        let old = format!("EAA-ok-exp{}-1", at(DAY_S).as_second());
        let new = token(&meta.answer(&refresh(&old), at(0)));
        assert_eq!(error(&meta.answer(&refresh(&old), at(DAY_S)), 400), (Some(190), Some(463)));
        assert_eq!(token(&meta.answer(&refresh(&new), at(DAY_S))), format!("{old}~2"));
    }

    #[test]
    fn a_later_string_outlives_the_named_end_also_after_a_restart() {
        let later = format!("EAA-ok-exp{}-1~1", at(-DAY_S).as_second());
        assert_eq!(meta().answer(&refresh(&later), at(0)).status, 200);
    }

    #[test]
    fn a_refreshed_string_dies_when_its_life_is_over() {
        let meta = meta();
        let new = token(&meta.answer(&refresh("EAA-ok-1"), at(0)));
        assert_eq!(error(&meta.answer(&refresh(&new), at(5_183_944)), 400), (Some(190), Some(463)));
        let same = token(&meta.answer(&refresh("TH-ok-1"), at(0)));
        assert_eq!(token(&meta.answer(&refresh(&same), at(5_183_943))), "TH-ok-1");
    }

    #[test]
    fn a_token_that_never_ends_is_refreshed_without_expires_in() {
        let meta = meta();
        for seconds in [0, 1_000 * DAY_S] {
            let reply = meta.answer(&refresh("EAA-ok-exp0-1"), at(seconds));
            assert_eq!(json(&reply).get("expires_in"), None);
        }
    }

    #[test]
    fn flaky_is_500_once_and_then_well() {
        for old in of_each_family("flaky-1") {
            let meta = meta();
            let first = meta.answer(&refresh(&old), at(0));
            assert_eq!(error(&first, 500), (Some(2), None));
            assert_eq!(json(&first)["error"]["is_transient"], true);
            let new = token(&meta.answer(&refresh(&old), at(1)));
            assert_eq!(meta.answer(&refresh(&new), at(2)).status, 200);
        }
    }

    #[test]
    fn html500_is_a_page_and_no_json() {
        for old in of_each_family("html500-1") {
            let reply = meta().answer(&refresh(&old), at(0));
            assert_eq!((reply.status, reply.header("content-type")), (500, Some("text/html; charset=utf-8")));
            assert!(reply.body.starts_with(b"<!DOCTYPE html>"));
        }
    }

    #[test]
    fn limited_is_code_4_and_tells_the_usage() {
        for old in of_each_family("limited-17") {
            let reply = meta().answer(&refresh(&old), at(0));
            assert_eq!(error(&reply, 403), (Some(4), None));
            assert!(reply.header("x-app-usage").unwrap().contains("\"call_count\":104"));
        }
        assert_eq!(meta().answer(&refresh("EAA-ok-1"), at(0)).header("x-app-usage"), None);
    }

    #[test]
    fn young_is_refused_without_a_reason() {
        for old in of_each_family("young-1") {
            assert_eq!(error(&meta().answer(&refresh(&old), at(0)), 400), (None, None));
        }
    }

    #[test]
    fn slow_is_well_but_late() {
        for old in of_each_family("slow-2500-1") {
            let reply = meta().answer(&refresh(&old), at(0));
            assert_eq!((reply.status, reply.delay.as_millis()), (200, 2_500));
        }
    }

    #[test]
    fn notoken_is_a_success_without_a_token() {
        for old in of_each_family("notoken-1") {
            let reply = meta().answer(&refresh(&old), at(0));
            assert_eq!(reply.body, br#"{"token_type":"bearer","expires_in":5183944}"#);
        }
    }

    #[test]
    fn rotate_kills_the_old_string() {
        for old in of_each_family("rotate-1") {
            let meta = meta();
            let second = token(&meta.answer(&refresh(&old), at(0)));
            assert_eq!(second, format!("{old}~1"));
            assert_eq!(error(&meta.answer(&refresh(&old), at(1)), 400), (Some(190), Some(460)));
            assert_eq!(token(&meta.answer(&refresh(&second), at(2))), format!("{old}~2"));
            let never_made = refresh(&format!("{old}~9"));
            assert_eq!(error(&meta.answer(&never_made, at(3)), 400), (Some(190), None));
        }
    }

    fn message(meta: &Sandbox, request: &Request) -> (u16, String) {
        let reply = meta.answer(request, at(0));
        (reply.status, json(&reply)["error"]["message"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_token_of_another_family_cannot_be_parsed() {
        let cannot = (400, "Invalid OAuth access token - Cannot parse access token".to_owned());
        let at_instagram = |token| {
            Request::get("/refresh_access_token", &[("grant_type", "ig_refresh_token"), ("access_token", token)])
        };
        for request in [exchange("IG-ok-1"), exchange("TH-ok-1"), at_instagram("EAA-ok-1"), at_instagram("TH-ok-1")] {
            assert_eq!(message(&meta(), &request), cannot);
        }
    }

    #[test]
    fn the_instagram_and_threads_endpoint_is_asked_by_get() {
        let mut request = refresh("IG-ok-1");
        request.method = "POST".into();
        assert_eq!(message(&meta(), &request), (400, "Unsupported request - method type: post".into()));
        let without = Request::get("/refresh_access_token", &[("grant_type", "ig_refresh_token")]);
        assert_eq!(error(&meta().answer(&without, at(0)), 400), (Some(104), None));
        let unknown = Request::get("/refresh_access_token", &[("access_token", "IG-ok-1")]);
        assert_eq!(error(&meta().answer(&unknown, at(0)), 400), (Some(100), None));
    }

    #[test]
    fn the_exchange_may_be_asked_by_get_and_without_a_version() {
        let mut request = exchange("EAA-ok-1");
        request.query = std::mem::take(&mut request.form);
        request.method = "GET".into();
        request.path = "/oauth/access_token".into();
        let reply = meta().answer(&request, at(0));
        assert_eq!((token(&reply).as_str(), reply.header("facebook-api-version")), ("EAA-ok-1~1", Some("v26.0")));
    }
}
