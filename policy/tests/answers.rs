//! A body for every rule, and answers of many providers that are in no corpus.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use perene_policy::answer::rules::RULES;
use perene_policy::answer::{
    Answer, Endpoint, NoAnswer, NoAnswerKind, Verdict, is_error_shape, judge, judge_no_answer,
};
use perene_policy::{Outcome, Scope};

fn answer(endpoint: Endpoint, status: u16, headers: &[(&str, &str)], body: &str) -> Verdict {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let answer = Answer { status, headers, body: body.as_bytes().to_vec(), truncated: false };
    judge(endpoint, &answer, Timestamp::UNIX_EPOCH)
}

use Endpoint::{DebugToken, Exchange, IgRefresh, Oauth2, ThRefresh};
use Outcome::{Misconfigured, NeedsReconnect, RateLimited, Refreshed, TooYoung, Transient, Unrecognised};

const CHALLENGE: (&str, &str) = ("WWW-Authenticate", "OAuth \"Facebook Platform\" \"invalid_token\" \"gone\"");
const REQUEST_CHALLENGE: (&str, &str) = ("www-authenticate", "OAuth \"Facebook Platform\" \"invalid_request\" \"no\"");

/// Rule, call, status, headers, body. The outcome stands in the rule.
type Case = (&'static str, Endpoint, u16, &'static [(&'static str, &'static str)], &'static str);

const CASES: &[Case] = &[
    ("token_granted", IgRefresh, 200, &[], r#"{"access_token":"IGnew","token_type":"bearer","expires_in":5184000}"#),
    (
        "token_granted",
        Oauth2,
        200,
        &[],
        r#"{"access_token":"ya29.x","expires_in":3599,"scope":"a","token_type":"Bearer"}"#,
    ),
    (
        "token_granted",
        Oauth2,
        200,
        &[],
        r#"{"ok":true,"access_token":"xoxe-1","refresh_token":"r","expires_in":43200}"#,
    ),
    (
        "token_granted",
        Oauth2,
        200,
        &[],
        r#"{"access_token":"act.x","expires_in":86400,"error":{"code":"ok","message":""}}"#,
    ),
    ("token_granted", Exchange, 200, &[], r#"{"access_token":"EAAnew","expires_in":60,"error":{"code":190}}"#),
    ("token_granted", Exchange, 200, &[], "\u{feff}{\"access_token\":\"EAAnew\",\"expires_in\":5184000}"),
    ("token_without_expiry", Exchange, 200, &[], r#"{"access_token":"EAAnew","token_type":"bearer"}"#),
    ("token_with_odd_expiry", Exchange, 200, &[], r#"{"access_token":"EAAnew","expires_in":0}"#),
    ("inspection_valid", DebugToken, 200, &[], r#"{"data":{"is_valid":true,"expires_at":0}}"#),
    ("inspection_without_expiry", DebugToken, 200, &[], r#"{"data":{"app_id":"1","is_valid":true}}"#),
    (
        "action_block",
        Exchange,
        403,
        &[],
        r#"{"error":{"message":"Application request limit reached","code":4,"error_subcode":2207051}}"#,
    ),
    (
        "policy_block",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"The action attempted has been deemed abusive or is otherwise disallowed","code":368}}"#,
    ),
    ("app_blocked_beside_limit", Exchange, 400, &[], r#"{"error":{"message":"API access blocked.","code":4}}"#),
    (
        "app_limit",
        Exchange,
        403,
        &[],
        r#"{"error":{"message":"(#4) Application request limit reached","type":"OAuthException","is_transient":true,"code":4}}"#,
    ),
    (
        "app_limit",
        IgRefresh,
        400,
        &[],
        r#"{"error":{"message":"(#4) Application request limit reached","type":"OAuthException"}}"#,
    ),
    (
        "account_limit",
        IgRefresh,
        400,
        &[],
        r#"{"error":{"message":"Error validating access token: too fast","code":"17","type":"OAuthException"}}"#,
    ),
    ("account_limit", IgRefresh, 500, &[], r#"{"error":{"type":"IGApiException","code":613,"is_transient":false}}"#),
    (
        "account_limit",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"(#80000) There have been too many calls from this ad-account.","code":80000,"error_subcode":2446079}}"#,
    ),
    (
        "account_limit",
        Exchange,
        400,
        &[],
        r#"{"error":{"type":"OAuthException","message":"(#341) Feed action request limit reached"}}"#,
    ),
    (
        "instagram_hourly_limit",
        IgRefresh,
        400,
        &[],
        r#"{"meta":{"error_type":"OAuthRateLimitException","code":429,"error_message":"exceeded"}}"#,
    ),
    (
        "marked_transient",
        Exchange,
        401,
        &[],
        r#"{"error":{"message":"An unexpected error has occurred. Please retry your request later.","type":"OAuthException","is_transient":true,"code":2}}"#,
    ),
    (
        "marked_transient",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Error validating access token: Session has expired","code":190,"is_transient":true}}"#,
    ),
    ("status_429", Exchange, 429, &[], "<html><title>Too Many Requests</title></html>"),
    ("status_429", Oauth2, 429, &[], ""),
    ("challenge_beside_no_body", Exchange, 401, &[CHALLENGE], ""),
    ("text_limit", Oauth2, 403, &[], "Rate limit exceeded"),
    ("body_empty", Exchange, 500, &[], "  \n"),
    ("body_empty", Exchange, 200, &[], "null"),
    ("body_html", Exchange, 200, &[], "<!DOCTYPE html><html><head><title>Session has expired</title>"),
    ("body_html", Exchange, 503, &[], "<HTML><BODY>Sorry, something went wrong.</BODY></HTML>"),
    ("body_text", Exchange, 200, &[], "Error validating access token"),
    ("body_text", Exchange, 500, &[], r#""Something went wrong""#),
    ("body_text", Exchange, 400, &[], r#"{"error":{"message":"cut"#),
    (
        "app_blocked",
        IgRefresh,
        400,
        &[],
        r#"{"error":{"message":"API access deactivated. To reactivate, go to the app dashboard","code":190}}"#,
    ),
    (
        "app_secret",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Invalid appsecret_proof provided in the API argument","type":"GraphMethodException","code":100}}"#,
    ),
    ("app_secret", Oauth2, 400, &[], r#"{"status":403,"message":"invalid client secret"}"#),
    (
        "app_trouble",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Error validating application. Application has been deleted.","code":190}}"#,
    ),
    (
        "app_trouble",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Error validating application. Cannot get application info due to a system error.","code":101}}"#,
    ),
    (
        "app_trouble",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"(#200) Access to this data is temporarily disabled for non-active apps due to changes we are making to the Facebook Platform","code":200}}"#,
    ),
    (
        "app_trouble",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"(#10) To use taggable_friends, your use of this endpoint must be reviewed and approved by Facebook.","code":10}}"#,
    ),
    (
        "app_trouble",
        IgRefresh,
        400,
        &[],
        r#"{"error_type":"OAuthException","code":400,"error_message":"Invalid platform app"}"#,
    ),
    (
        "app_token_signature",
        DebugToken,
        400,
        &[],
        r#"{"error":{"message":"Invalid OAuth access token signature.","type":"OAuthException","code":190}}"#,
    ),
    (
        "token_signature",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Invalid OAuth access token signature.","type":"OAuthException","code":190}}"#,
    ),
    (
        "token_unreadable",
        IgRefresh,
        400,
        &[],
        r#"{"error":{"message":"Invalid OAuth access token - Cannot parse access token","type":"OAuthException","code":190}}"#,
    ),
    ("threads_app_id", ThRefresh, 400, &[], r#"{"error_message":"An error has occurred","error_code":4476002}"#),
    ("limit_words", Oauth2, 400, &[], r#"{"error":"slow_down"}"#),
    ("limit_words", Oauth2, 200, &[], r#"{"ok":false,"error":"ratelimited"}"#),
    ("limit_words", Oauth2, 403, &[], r#"{"error":{"code":"rate_limit_exceeded","message":"x","log_id":"1"}}"#),
    ("limit_words", Oauth2, 400, &[], r#"{"message":"x","error":429}"#),
    (
        "too_young",
        IgRefresh,
        400,
        &[],
        r#"{"error":{"message":"The access token must be at least 24 hours old to be refreshed.","type":"IGApiException","code":100}}"#,
    ),
    (
        "limit_phrases",
        Oauth2,
        400,
        &[],
        r#"{"error":"Access Denied","error_description":"You have made too many requests continuously. Please try again after some time.","status":"failure"}"#,
    ),
    ("limit_phrases", Oauth2, 400, &[], r#"{"errors":[{"message":"Rate limit exceeded","code":88}]}"#),
    (
        "limit_phrases",
        Oauth2,
        400,
        &[],
        r#"{"error":"invalid_grant","error_description":"AADSTS90055: tenant throttled"}"#,
    ),
    (
        "limit_phrases",
        Oauth2,
        403,
        &[],
        r#"{"errorCode":"E0000047","errorSummary":"API call exceeded rate limit due to too many requests."}"#,
    ),
    (
        "limit_phrases",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"(#131056) (Business Account, Consumer Account) pair rate limit hit","code":131056}}"#,
    ),
    (
        "outage_phrases",
        Oauth2,
        400,
        &[],
        r#"{"error":"invalid_grant","error_description":"token request is already being processed"}"#,
    ),
    (
        "outage_phrases",
        Oauth2,
        400,
        &[],
        r#"{"error":"invalid_grant","error_description":"AADSTS90033: A transient error has occurred."}"#,
    ),
    (
        "outage_phrases",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Service temporarily unavailable","type":"FacebookApiException"}}"#,
    ),
    (
        "outage_phrases",
        Exchange,
        500,
        &[],
        r#"{"error":{"message":"Please reduce the amount of data you're asking for, then retry your request","code":1}}"#,
    ),
    ("service_unavailable", Exchange, 400, &[], r#"{"error":{"message":"busy","code":2,"is_transient":false}}"#),
    (
        "service_unavailable",
        IgRefresh,
        400,
        &[],
        r#"{"error":{"message":"The server made an error","code":-1,"error_subcode":2207001}}"#,
    ),
    (
        "profile_not_linked",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"An unknown error occurred","is_transient":false,"code":1,"error_subcode":2853001}}"#,
    ),
    (
        "https_required",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"You must use https:// when passing an access token","type":"OAuthException","code":1}}"#,
    ),
    ("threads_unknown_app", Exchange, 400, &[], r#"{"error_message":"An unknown error has occurred.","error_code":1}"#),
    ("unknown_error", ThRefresh, 400, &[], r#"{"error_message":"An unknown error has occurred.","error_code":1}"#),
    (
        "unknown_error",
        Exchange,
        500,
        &[],
        r#"{"error":{"message":"An unknown error occurred","type":"OAuthException","code":1,"fbtrace_id":"x"}}"#,
    ),
    (
        "unknown_error_99",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"An unknown error occurred","code":1,"error_subcode":99}}"#,
    ),
    ("expired_463", IgRefresh, 500, &[], r#"{"error":{"code":102,"error_subcode":463}}"#),
    ("app_removed_458", Exchange, 400, &[], r#"{"error":{"code":190,"error_subcode":458}}"#),
    ("password_460", Exchange, 500, &[], r#"{"error":{"code":102,"error_subcode":"460"}}"#),
    (
        "checkpoint_459",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Error validating access token: You cannot access the app till you log in to www.facebook.com","code":190,"error_subcode":459}}"#,
    ),
    (
        "unconfirmed_464",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Sessions for the user X are not allowed because the user is not a confirmed user.","code":190,"error_subcode":464}}"#,
    ),
    ("page_role_492", Exchange, 400, &[], r#"{"error":{"code":190,"error_subcode":492}}"#),
    (
        "unused_493",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"The access token is invalid since the user hasn't engaged the app in longer than 90 days.","code":190,"error_subcode":493}}"#,
    ),
    (
        "session_ended",
        DebugToken,
        200,
        &[],
        r#"{"data":{"error":{"message":"Error validating access token: This may be because the user logged out or may be due to a system error.","code":190,"subcode":467},"is_valid":false,"expires_at":1409655600}}"#,
    ),
    ("instagram_restricted", IgRefresh, 400, &[], r#"{"error":{"message":"x","code":25,"error_subcode":2207050}}"#),
    (
        "page_role_190",
        Exchange,
        400,
        &[],
        r#"{"error":{"code":190,"message":"The user must be an administrator of the page in order to impersonate it."}}"#,
    ),
    (
        "token_of_other_app_190",
        DebugToken,
        200,
        &[],
        r#"{"data":{"error":{"code":100,"message":"(#100) The App_id in the input_token did not match the Viewing App"},"is_valid":false,"scopes":[]}}"#,
    ),
    (
        "scope_190",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Any of the pages_read_engagement or pages_messaging permission(s) must be granted before impersonating a user's page.","code":190}}"#,
    ),
    (
        "expired_190",
        ThRefresh,
        400,
        &[],
        r#"{"error":{"message":"Error validating access token: Session has expired on Thursday, 09-Apr-15 15:00:00 PDT.","type":"OAuthException","code":190,"error_subcode":0}}"#,
    ),
    (
        "session_codes",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"The access token could not be decrypted","type":"OAuthException","code":190}}"#,
    ),
    (
        "session_codes",
        IgRefresh,
        500,
        &[],
        r#"{"error":{"message":"Invalid OAuth 2.0 Access Token","type":"IGApiException","code":190}}"#,
    ),
    (
        "session_codes",
        Exchange,
        401,
        &[],
        r#"{"error_code":"102","error_msg":"Session key invalid or no longer valid"}"#,
    ),
    (
        "session_codes",
        DebugToken,
        200,
        &[],
        r#"{"data":{"error":{"code":190,"message":"Malformed access token"},"is_valid":false,"scopes":[]}}"#,
    ),
    (
        "permission_codes",
        ThRefresh,
        500,
        &[],
        r#"{"error":{"message":"Application does not have permission for this action","type":"THApiException","code":10}}"#,
    ),
    (
        "permission_codes",
        Exchange,
        400,
        &[],
        r#"{"error":{"type":"OAuthException","message":"(#200) Permissions error"}}"#,
    ),
    (
        "client_words",
        Oauth2,
        401,
        &[],
        r#"{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys are expired."}"#,
    ),
    ("client_words", Oauth2, 401, &[], r#"{"error":"unauthorized_client","error_description":"Unauthorized"}"#),
    ("client_words", Oauth2, 200, &[], r#"{"error":"incorrect_client_credentials"}"#),
    ("client_words", Exchange, 400, &[], r#"{"error":"unsupported_grant_type"}"#),
    ("outage_words", Oauth2, 400, &[], r#"{"error":"temporarily_unavailable"}"#),
    ("outage_words", Oauth2, 400, &[], r#"{"error":"server_error","error_description":"invalid token store"}"#),
    ("outage_words", Oauth2, 200, &[], r#"{"ok":false,"error":"fatal_error"}"#),
    (
        "outage_words",
        Oauth2,
        400,
        &[],
        r#"{"error":{"code":503,"message":"The service is currently overloaded","status":"UNAVAILABLE"}}"#,
    ),
    (
        "expired_words",
        Oauth2,
        400,
        &[],
        r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#,
    ),
    (
        "expired_words",
        Oauth2,
        400,
        &[],
        r#"{"error":"invalid_grant","error_description":"expired access/refresh token"}"#,
    ),
    (
        "expired_words",
        Oauth2,
        400,
        &[],
        r#"{"error":"invalid_grant","error_description":"AADSTS70008: The provided authorization code or refresh token has expired due to inactivity.","error_codes":[70008]}"#,
    ),
    ("dead_words", Oauth2, 503, &[], r#"{"error":"invalid_grant","error_description":"Bad Request"}"#),
    (
        "dead_words",
        Oauth2,
        401,
        &[],
        r#"{"error":{"code":"access_token_invalid","message":"The access token is invalid or not found in the request.","log_id":"2"}}"#,
    ),
    ("dead_words", Oauth2, 200, &[], r#"{"ok":false,"error":"token_revoked"}"#),
    (
        "dead_words",
        Oauth2,
        200,
        &[],
        r#"{"error":"bad_refresh_token","error_description":"The refresh token passed is incorrect or expired."}"#,
    ),
    ("dead_words", Oauth2, 400, &[], r#"{"status":"BAD_REFRESH_TOKEN","message":"missing or unknown refresh token"}"#),
    (
        "dead_words",
        Oauth2,
        400,
        &[],
        r#"{"errors":[{"errorType":"invalid_grant","message":"Refresh token invalid: x"}],"success":false}"#,
    ),
    ("dead_words", Oauth2, 400, &[], "error=invalid_grant&error_description=gone"),
    (
        "expired_words",
        Oauth2,
        401,
        &[],
        r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#,
    ),
    (
        "dead_words",
        Oauth2,
        400,
        &[],
        r#"{"error":"invalid_grant","error_description":"does not match the redirection URI, or was issued to another client; code 190"}"#,
    ),
    (
        "login_words",
        Oauth2,
        400,
        &[],
        r#"{"error":"interaction_required","error_description":"AADSTS50076: you must use multi-factor authentication"}"#,
    ),
    ("scope_words", Oauth2, 403, &[], r#"{"ok":false,"error":"missing_scope"}"#),
    (
        "object_33",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Unsupported get request. Object with ID 'x' does not exist","code":100,"error_subcode":33}}"#,
    ),
    (
        "object_missing",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"(#100) Object does not exist, cannot be loaded due to missing permission or reviewable feature","code":100}}"#,
    ),
    ("duplicate", Exchange, 400, &[], r#"{"error":{"message":"Duplicate status message","code":506}}"#),
    (
        "refresh_not_supported",
        IgRefresh,
        400,
        &[],
        r#"{"error":{"message":"Unsupported request - method type: get","type":"IGApiException","code":100}}"#,
    ),
    ("permission_100", Exchange, 400, &[], r#"{"error":{"message":"(#100) Missing permissions","code":100}}"#),
    (
        "permission_100_10",
        ThRefresh,
        400,
        &[],
        r#"{"error":{"type":"THApiException","code":100,"error_subcode":10,"message":"This action requires the threads_basic permission."}}"#,
    ),
    (
        "request_phrases",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"An access token is required to request this resource.","type":"OAuthException","code":104}}"#,
    ),
    (
        "request_phrases",
        IgRefresh,
        400,
        &[],
        r#"{"error_type":"OAuthException","code":400,"error_message":"Matching code was not found or was already used"}"#,
    ),
    (
        "permission_phrases",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Requires extended permission: email","type":"OAuthException"}}"#,
    ),
    ("expired_phrases", Oauth2, 401, &[], r#"{"error":{"status":400,"message":"The access token expired"}}"#),
    (
        "dead_phrases",
        IgRefresh,
        400,
        &[],
        r#"{"meta":{"error_type":"OAuthAccessTokenException","code":400,"error_message":"The access_token provided is invalid."}}"#,
    ),
    (
        "dead_phrases",
        Oauth2,
        400,
        &[],
        r#"{"error":"invalid_request","error_description":"Value passed for the token was invalid."}"#,
    ),
    ("dead_phrases", Oauth2, 400, &[], r#"{"reason":"Invalid Token!","error":"invalid_request"}"#),
    ("dead_phrases", Oauth2, 400, &[], r#"{"status":400,"message":"Invalid refresh token"}"#),
    (
        "dead_phrases",
        Oauth2,
        400,
        &[],
        r#"{"message":"Bad Request","errors":[{"resource":"RefreshToken","field":"refresh_token","code":"invalid"}]}"#,
    ),
    (
        "dead_phrases",
        Oauth2,
        401,
        &[],
        r#"{"serviceErrorCode":65601,"message":"The token used in the request has been revoked by the user"}"#,
    ),
    ("dead_phrases", Exchange, 500, &[], r#"{"error":"Invalid OAuth access token."}"#),
    (
        "dead_phrases",
        Oauth2,
        403,
        &[],
        r#"{"errors":[{"code":326,"message":"To protect our users from spam, this account is temporarily locked."}]}"#,
    ),
    ("app_codes", Exchange, 500, &[], r#"{"error":{"message":"x","code":101}}"#),
    (
        "app_codes",
        IgRefresh,
        400,
        &[],
        r#"{"error":{"message":"Application does not have the capability to make this API call.","code":3}}"#,
    ),
    (
        "status_5xx",
        ThRefresh,
        500,
        &[],
        r#"{"error":{"message":"Param x is not valid","type":"THApiException","code":100}}"#,
    ),
    ("status_5xx", Exchange, 502, &[], "{}"),
    ("status_5xx", Oauth2, 500, &[], r#"{"errors":["Bad request"]}"#),
    ("request_codes", Exchange, 400, &[], r#"{"error":{"message":"(#100) Invalid fbid.","type":"OAuthException"}}"#),
    ("request_words", Oauth2, 400, &[], r#"{"error":"invalid_request"}"#),
    ("request_words", Oauth2, 400, &[], r#"{"error":"invalid_scope","error_description":"AADSTS70011: scope x"}"#),
    ("hiccup_phrases", Oauth2, 400, &[], r#"{"error":"oops","error_description":"Something went wrong. Try again."}"#),
    ("silent_oauth_exception", Exchange, 400, &[], r#"{"error":{"type":"OAuthException"}}"#),
    (
        "oauth_exception_401",
        Exchange,
        401,
        &[],
        r#"{"error":{"message":"AuthException","type":"OAuthException","code":0}}"#,
    ),
    ("unauthorized_401", Oauth2, 401, &[], r#"{"error":"unauthorized"}"#),
    ("challenge_token", Exchange, 400, &[CHALLENGE], r#"{"error":{"message":"x"}}"#),
    ("challenge_request", Exchange, 400, &[REQUEST_CHALLENGE], r#"{"error":{"message":"x"}}"#),
    ("inspection_invalid", DebugToken, 200, &[], r#"{"data":{"is_valid":false,"scopes":[]}}"#),
    (
        "kind_permission",
        IgRefresh,
        400,
        &[],
        r#"{"meta":{"error_type":"OAuthPermissionsException","code":400,"error_message":"This request requires scope=basic"}}"#,
    ),
    ("kind_token", Exchange, 400, &[], r#"{"error":{"type":"OAuthInvalidTokenException","message":"no"}}"#),
    ("kind_request", Exchange, 400, &[], r#"{"error":{"type":"OAuthInvalidRequestException","message":"no"}}"#),
    (
        "request_phrases",
        IgRefresh,
        400,
        &[],
        r#"{"error_type":"OAuthException","code":400,"error_message":"Invalid scope field(s): x"}"#,
    ),
    (
        "request_phrases",
        Exchange,
        400,
        &[],
        r#"{"error":{"type":"OAuthException","code":100,"message":"This authorization code has expired."}}"#,
    ),
    ("unknown_error", Exchange, 400, &[], r#"{"error":{"message":"x","code":1,"error_subcode":0}}"#),
    (
        "not_known",
        Exchange,
        400,
        &[],
        r#"{"error":{"code":42,"message":"errmsg","error_subcode":0,"type":"exception"}}"#,
    ),
    (
        "session_codes",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"This Page access token belongs to a Page that has been deleted.","type":"OAuthException","code":190}}"#,
    ),
    (
        "request_codes",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"(#12) notes API is deprecated for versions v2.0 and higher","code":12}}"#,
    ),
    ("session_codes", Exchange, 400, &[], r#"{"error":{"type":"OAuthException","code":452}}"#),
    (
        "parameter_missing",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"fb_exchange_token parameter not specified","type":"OAuthException","code":1}}"#,
    ),
    (
        "app_token_190",
        DebugToken,
        400,
        &[],
        r#"{"error":{"message":"Invalid OAuth access token.","type":"OAuthException","code":190}}"#,
    ),
    ("session_codes", DebugToken, 200, &[], r#"{"is_valid":false,"error":{"message":"gone","code":190}}"#),
    (
        "app_token_wanted",
        DebugToken,
        400,
        &[],
        r#"{"error":{"message":"(#100) You must provide an app access token, or a user access token that is an owner or developer of the app","code":100}}"#,
    ),
    (
        "page_token_wanted",
        Exchange,
        403,
        &[],
        r#"{"error":{"message":"(#210) A page access token is required to request this resource.","type":"OAuthException","code":210}}"#,
    ),
    (
        "message_window",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"(#10) This message is sent outside of allowed window.","code":10,"error_subcode":2018278}}"#,
    ),
    (
        "limit_words",
        IgRefresh,
        400,
        &[],
        r#"{"message":"Please wait","status":"fail","error_type":"rate_limit_error"}"#,
    ),
    (
        "limit_phrases",
        IgRefresh,
        400,
        &[],
        r#"{"message":"Please wait a few minutes before you try again.","status":"fail"}"#,
    ),
    (
        "app_trouble",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"Missing client_id parameter.","type":"OAuthException","code":101}}"#,
    ),
    (
        "not_known",
        IgRefresh,
        400,
        &[],
        r#"{"error":{"message":"Media ID is not available","type":"OAuthException","code":9007,"error_subcode":2207027,"is_transient":false}}"#,
    ),
    ("account_limit", IgRefresh, 400, &[], r#"{"error":{"code":9,"error_subcode":2207042,"type":"OAuthException"}}"#),
    ("token_implausible", IgRefresh, 200, &[], r#"{"access_token":"undefined","expires_in":5184000}"#),
    ("token_implausible", Exchange, 200, &[], "access_token=&expires=5"),
    ("no_token", IgRefresh, 200, &[], r#"{"token_type":"bearer","expires_in":5184000}"#),
    ("no_token", DebugToken, 200, &[], r#"{"access_token":"EAAnew","expires_in":5184000}"#),
    ("no_token", Exchange, 200, &[], r#"{"data":{"is_valid":true,"expires_at":0}}"#),
    ("no_error", Exchange, 400, &[], "{}"),
    ("no_error", Exchange, 404, &[], "[]"),
    (
        "not_known",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"(#803) Cannot query users by their username (x)","code":803}}"#,
    ),
    (
        "not_known",
        Exchange,
        400,
        &[],
        r#"{"error":{"message":"An unknown error occurred","is_transient":false,"code":1,"error_subcode":1234}}"#,
    ),
    ("not_known", Oauth2, 402, &[], r#"{"error":"unauthorized","message":"Comments on this post are closed"}"#),
    ("not_known", Oauth2, 400, &[], r#"{"error":{"code":190,"message":"a code that means something else here"}}"#),
];

#[test]
fn every_answer_is_taken_by_its_rule() {
    let wrong: Vec<_> = CASES
        .iter()
        .map(|(rule, endpoint, status, headers, body)| (rule, answer(*endpoint, *status, headers, body), body))
        .filter(|(rule, verdict, _)| verdict.rule != **rule)
        .map(|(rule, verdict, body)| format!("{body}\n  by `{}`, not by `{rule}`", verdict.rule))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_is_reached() {
    let mut reached: BTreeSet<_> = CASES.iter().map(|case| case.0).collect();
    for kind in [NoAnswerKind::NotSent, NoAnswerKind::Lost] {
        let verdict = judge_no_answer(&NoAnswer { kind, text: "connection reset".to_owned() });
        assert_eq!(verdict.outcome, Transient);
        assert_eq!(verdict.message.as_deref(), Some("connection reset"));
        reached.insert(verdict.rule);
    }
    let cut = Answer { status: 200, headers: Vec::new(), body: b"access_token=EAAcu".to_vec(), truncated: true };
    let verdict = judge(Exchange, &cut, Timestamp::UNIX_EPOCH);
    assert_eq!((verdict.outcome, verdict.granted.is_none()), (Transient, true));
    reached.insert(verdict.rule);
    let missed: Vec<_> = RULES.iter().map(|rule| rule.name).filter(|name| !reached.contains(name)).collect();
    assert!(missed.is_empty(), "no body reaches {missed:?}");
}

#[test]
fn every_outcome_of_an_answer_has_a_rule() {
    let outcomes: BTreeSet<_> = RULES.iter().map(|rule| rule.outcome).collect();
    let expected = [Refreshed, Transient, NeedsReconnect, Unrecognised, TooYoung, RateLimited, Misconfigured];
    assert_eq!(outcomes, expected.into_iter().collect());
}

#[test]
fn one_damaged_token_does_not_hold_the_app() {
    let body = r#"{"error":{"message":"Invalid OAuth access token - Cannot parse access token","code":190}}"#;
    assert_eq!(answer(Exchange, 400, &[], body).scope, Some(Scope::Connection));
    // Asked about a token, the app's own token is at fault if the question itself is refused.
    assert_eq!(answer(DebugToken, 400, &[], body).scope, Some(Scope::App));
    let body = r#"{"error":{"message":"(#4) Application request limit reached","code":4}}"#;
    assert_eq!(answer(Exchange, 400, &[], body).scope, Some(Scope::App));
}

#[test]
fn the_wait_is_the_longest_that_was_asked_for() {
    let limited = r#"{"error":{"message":"x","code":80002}}"#;
    let regain = ("X-Business-Use-Case-Usage", r#"{"1":[{"estimated_time_to_regain_access":10}]}"#);
    let wait = |headers: &[(&str, &str)], status, body: &str| answer(IgRefresh, status, headers, body).retry_after;
    assert_eq!(wait(&[regain], 400, limited), Some(SignedDuration::from_mins(10)));
    assert_eq!(wait(&[regain, ("Retry-After", "30")], 400, limited), Some(SignedDuration::from_mins(10)));
    assert_eq!(wait(&[("RETRY-AFTER", "30")], 503, ""), Some(SignedDuration::from_secs(30)));
    assert_eq!(wait(&[], 400, limited), None);
    // A regain time beside an outage is no answer to it, and a dead token waits for nobody.
    assert_eq!(wait(&[regain], 503, ""), None);
    assert_eq!(wait(&[("Retry-After", "30")], 400, r#"{"error":{"code":190}}"#), None);
    assert_eq!(
        wait(&[], 429, r#"{"message":"You are being rate limited.","retry_after":64.57,"global":false}"#),
        Some(SignedDuration::from_millis(64_570))
    );
}

#[test]
fn an_inspection_tells_what_it_found_also_of_a_dead_token() {
    let body = r#"{"data":{"app_id":"17","error":{"message":"x","code":190,"subcode":460},"is_valid":false,"expires_at":1409655600}}"#;
    let verdict = answer(DebugToken, 200, &[], body);
    assert_eq!(verdict.reason, "password_changed");
    assert!(verdict.inspected.is_some_and(|inspected| !inspected.valid && inspected.app_id.as_deref() == Some("17")));
}

#[test]
fn what_is_no_utf8_still_says_what_it_says() {
    let body = b"{\"error\":{\"message\":\"caf\xe9\",\"code\":190,\"error_subcode\":463}}".to_vec();
    let verdict =
        judge(Exchange, &Answer { status: 400, headers: Vec::new(), body, truncated: false }, Timestamp::UNIX_EPOCH);
    assert_eq!(verdict.reason, "token_expired");
    let body = b"{\"access_token\":\"EAA\xff\xfe\",\"expires_in\":5184000}".to_vec();
    let verdict =
        judge(Exchange, &Answer { status: 200, headers: Vec::new(), body, truncated: false }, Timestamp::UNIX_EPOCH);
    assert_eq!(verdict.rule, "token_implausible");
}

#[test]
fn a_bomb_of_brackets_is_only_unreadable() {
    for body in [
        "[".repeat(60_000),
        "{\"a\":".repeat(10_000),
        format!("{{\"error\":{}1{}}}", "[".repeat(30_000), "]".repeat(30_000)),
    ] {
        assert_eq!(answer(Exchange, 400, &[], &body).outcome, Transient);
    }
    // The token stands outside of it and is taken.
    let body = format!(r#"{{"access_token":"EAAnew","x":{}1{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(answer(Exchange, 200, &[], &body).rule, "token_without_expiry");
}

#[test]
fn a_message_is_one_line_of_the_providers_words() {
    let verdict = answer(Exchange, 400, &[], "{\"error\":{\"message\":\"two\\nlines\\u001b[31m\",\"code\":190}}");
    assert_eq!(verdict.message.as_deref(), Some("two lines[31m"));
    assert_eq!(
        answer(Exchange, 502, &[], "<html><head><TITLE> Bad Gateway </TITLE>").message.as_deref(),
        Some("Bad Gateway")
    );
    assert_eq!(answer(Exchange, 400, &[], "{}").message, None);
}

#[test]
fn an_error_shape_is_told_from_a_success() {
    for body in [
        r#"{"error":{"code":190}}"#,
        r#"{"error":"invalid_grant"}"#,
        "<html>",
        "",
        r#"{"message":"x"}"#,
        r#"{ "error"}"#,
    ] {
        assert!(is_error_shape(body.as_bytes()), "{body}");
    }
    for body in [r#"{"access_token":"a"}"#, "access_token=a", "{}", r#"{"id":"1"}"#, r#"{"data":{"is_valid":true}}"#] {
        assert!(!is_error_shape(body.as_bytes()), "{body}");
    }
}

#[test]
fn a_503_is_the_word_of_a_server_that_took_nothing_up_unless_a_proxy_lost_sight_of_it() {
    let may_be_spent = |body: &str| answer(Oauth2, 503, &[], body).may_be_spent;
    let reset =
        |reason: &str| format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
    assert!(!may_be_spent("<html><title>Service Unavailable</title></html>"));
    assert!(!may_be_spent(r#"{"error":"temporarily_unavailable"}"#));
    assert!(may_be_spent(&reset("connection termination")));
    assert!(may_be_spent(&reset("remote reset")));
    assert!(!may_be_spent(&reset("connection failure")));
    assert!(!may_be_spent(&reset("overflow")));
}
