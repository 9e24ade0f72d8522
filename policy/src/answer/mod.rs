//! Reads what a provider answered. (Types only, for the moment.)
#![allow(missing_docs, clippy::allow_attributes)]
use crate::{Grant, Outcome, Scope, Secret};
use jiff::{SignedDuration, Timestamp};
pub mod plausible {
    pub fn plausible(token: &str) -> Result<(), &'static str> {
        if token.contains('\0') { Err("token_with_nul") } else { Ok(()) }
    }
}
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub truncated: bool,
}
#[derive(Debug, Clone)]
pub struct NoAnswer {
    pub kind: NoAnswerKind,
    pub text: String,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswerKind {
    NotSent,
    Lost,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Exchange,
    IgRefresh,
    ThRefresh,
    Oauth2,
    DebugToken,
}
impl Endpoint {
    pub const fn of_grant(grant: Grant) -> Self {
        match grant {
            Grant::Facebook => Self::Exchange,
            Grant::Instagram => Self::IgRefresh,
            Grant::Threads => Self::ThRefresh,
            Grant::Oauth2 => Self::Oauth2,
        }
    }
}
#[derive(Debug, Clone)]
pub struct Verdict {
    pub outcome: Outcome,
    pub reason: &'static str,
    pub rule: &'static str,
    pub scope: Option<Scope>,
    pub retry_after: Option<SignedDuration>,
    pub message: Option<String>,
    pub granted: Option<Granted>,
    pub inspected: Option<Inspected>,
    pub usage: Usage,
}
#[derive(Debug, Clone)]
pub struct Granted {
    pub token: Secret,
    pub refresh_token: Option<Secret>,
    pub expires: Expires,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    In(SignedDuration),
    Unknown,
    Unbelievable,
}
#[derive(Debug, Clone)]
pub struct Inspected {
    pub valid: bool,
    pub expires: InspectedExpiry,
    pub data_access_expires_at: Option<Timestamp>,
    pub issued_at: Option<Timestamp>,
    pub app_id: Option<String>,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InspectedExpiry {
    At(Timestamp),
    Never,
    Unknown,
}
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub app_percent: Option<u8>,
    pub connection_percent: Option<u8>,
    pub regain: Option<SignedDuration>,
}
