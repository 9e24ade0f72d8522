//! Says in plain words who can help: one sentence for the customer, one for the operator, or none.

use super::Verdict;
use crate::Outcome;

/// What the customer can do; `None` where only waiting or the operator helps.
pub fn customer_action(verdict: &Verdict) -> Option<&'static str> {
    if verdict.outcome != Outcome::NeedsReconnect {
        return None;
    }
    Some(match verdict.reason {
        "checkpoint" => {
            "Log in at facebook.com or in the Instagram app, follow the instructions there, then connect the account again if it does not recover."
        }
        "user_unconfirmed" => "Confirm the account at facebook.com, then connect it again if it does not recover.",
        "page_role_lost" => {
            "Ask an administrator of the Page for the role back; after that the connection recovers by itself."
        }
        "permission_missing" => "Connect the account again and leave every permission switched on.",
        "profile_not_linked" => "Link the profile to its Page in Meta Business Suite, then connect the account again.",
        _ => "Connect the account again.",
    })
}

/// What the operator can do; `None` where there is nothing to do.
pub fn operator_action(verdict: &Verdict) -> Option<&'static str> {
    match verdict.outcome {
        Outcome::Misconfigured => Some(match verdict.reason {
            "app_blocked" => {
                "Look at the app in Meta's App Dashboard: Meta has blocked it, and every connection of it is held until that is lifted."
            }
            "app_credentials" => "Check the app's id and secret in the configuration (`perene doctor`).",
            "app_invalid" => "Check the app's id, and that the app is live, in the provider's dashboard.",
            "token_damaged_or_wrong_host" => {
                "Compare the stored token with what the app saved: it is cut or altered, or it belongs to another host than the one it was sent to."
            }
            "token_of_another_app" => "Compare the configured app id with the app that made this token.",
            _ => {
                "The provider refuses the request as it was made: check `base_url`, `api_version` and the provider's settings."
            }
        }),
        Outcome::RateLimited => Some(match verdict.reason {
            "action_blocked" | "policy_block" => {
                "Nothing at once: the provider has blocked this account for a while, and calls in the meantime prolong it."
            }
            _ => {
                "Nothing at once: Perene waits. If it comes often, look for other programs that call with the same app."
            }
        }),
        Outcome::Unrecognised => Some(
            "Read the answer: no rule knows it. If the token works, there is nothing to do; if many rows show it, report it.",
        ),
        Outcome::Refreshed => match verdict.reason {
            "expiry_unbelievable" => Some(
                "The token is good and is stored; its stored expiry stays as it was, since the one that was told cannot be right.",
            ),
            _ => None,
        },
        Outcome::Transient
        | Outcome::NeedsReconnect
        | Outcome::NotExtended
        | Outcome::TooYoung
        | Outcome::Superseded => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Endpoint, judge};
    use super::*;

    fn verdict(body: &str) -> Verdict {
        let answer = Answer { status: 400, headers: Vec::new(), body: body.as_bytes().to_vec(), truncated: false };
        judge(Endpoint::Exchange, &answer, jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_customer_hears_only_what_a_customer_can_cure() {
        let dead = verdict(r#"{"error":{"code":190,"error_subcode":459}}"#);
        assert!(customer_action(&dead).is_some_and(|text| text.contains("Log in")));
        assert_eq!(operator_action(&dead), None);
        for body in [r#"{"error":{"code":2}}"#, r#"{"error":{"code":4}}"#, r#"{"error":{"code":101}}"#, "{}"] {
            assert_eq!(customer_action(&verdict(body)), None, "{body}");
        }
    }

    #[test]
    fn the_operator_hears_of_the_app() {
        let wrong = verdict(r#"{"error":{"message":"Error validating client secret.","code":1}}"#);
        assert!(operator_action(&wrong).is_some_and(|text| text.contains("secret")));
        assert_eq!(operator_action(&verdict(r#"{"error":{"code":2}}"#)), None);
    }
}
