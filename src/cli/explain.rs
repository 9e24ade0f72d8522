//! `perene explain`: what a provider's answer means.

use std::io::Read;

use perene_policy::answer::{self, Answer, Verdict, customer_action, operator_action};
use perene_policy::{Scope, redact};
use serde_json::json;

use super::args::{self, Explain, Format};
use super::exit::Exit;
use super::failure::Failure;
use super::{assemble, out};
use crate::provider::http::BODY_BYTES_MAX;

pub(super) fn explain(args: &Explain) -> Result<Exit, Failure> {
    let mut body = Vec::new();
    let limit = BODY_BYTES_MAX as u64 + 1;
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut body)
        .map_err(|error| Failure::could_not_work(format!("standard input cannot be read: {error}")))?;
    let truncated = body.len() > BODY_BYTES_MAX;
    body.truncate(BODY_BYTES_MAX);
    let status = args.status.unwrap_or(if answer::is_error_shape(&body) { 400 } else { 200 });
    let headers = args.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect();
    let verdict =
        answer::judge(endpoint(args.endpoint), &Answer { status, headers, body, truncated }, assemble::clock().now());
    match args.report.format {
        Format::Json => out::say(&to_json(&verdict).to_string()),
        Format::Text => out::say(&to_text(&verdict)),
    }
    Ok(Exit::Done)
}

fn to_json(verdict: &Verdict) -> serde_json::Value {
    json!({
        "outcome": verdict.outcome.name(),
        "reason": verdict.reason,
        "rule": verdict.rule,
        "retry_after_s": verdict.retry_after.map(|wait| wait.as_secs()),
        "scope": verdict.scope.map(Scope::name),
        "customer_action": customer_action(verdict),
        "operator_action": operator_action(verdict),
    })
}

fn to_text(verdict: &Verdict) -> String {
    let mut lines = vec![
        format!("{}: {}", verdict.outcome, super::table::meaning(verdict.outcome)),
        format!("  reason    {}", verdict.reason),
        format!("  rule      {}", verdict.rule),
    ];
    let mut add = |name: &str, value: Option<String>| lines.extend(value.map(|value| format!("  {name:<9} {value}")));
    add(
        "about",
        verdict.scope.map(|scope| match scope {
            Scope::Connection => "this connection alone".to_owned(),
            Scope::App => "every connection of the app".to_owned(),
        }),
    );
    add("message", verdict.message.as_deref().map(|message| redact::for_row(message, &[])));
    add("wait", verdict.retry_after.map(|wait| format!("{} s", wait.as_secs())));
    add("customer", customer_action(verdict).map(str::to_owned));
    add("operator", operator_action(verdict).map(str::to_owned));
    lines.join("\n")
}

fn endpoint(endpoint: args::Endpoint) -> perene_policy::Endpoint {
    match endpoint {
        args::Endpoint::Exchange => perene_policy::Endpoint::Exchange,
        args::Endpoint::IgRefresh => perene_policy::Endpoint::IgRefresh,
        args::Endpoint::ThRefresh => perene_policy::Endpoint::ThRefresh,
        args::Endpoint::Oauth2 => perene_policy::Endpoint::Oauth2,
        args::Endpoint::DebugToken => perene_policy::Endpoint::DebugToken,
    }
}
