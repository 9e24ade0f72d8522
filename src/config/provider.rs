//! Section `providers`: the apps that speak for the customers at Meta, and OAuth 2.0 providers by name.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use perene_policy::{Class, Secret};
use url::Url;
use url::form_urlencoded;

use super::address;
use super::error::{ConfigError, listed};
use super::found::Found;
use super::keys::META_APPS;
use crate::provider::oauth2::ClientAuth;
use crate::provider::oauth2::definitions::{self, Definition};

/// Section `providers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Providers {
    /// Facebook Login. Variables `FACEBOOK_APP_ID` and `FACEBOOK_APP_SECRET`.
    pub facebook: App,
    /// Instagram Login. Its refresh needs neither id nor secret.
    pub instagram: App,
    /// Threads. Its refresh needs neither id nor secret.
    pub threads: App,
    /// Every other table below `providers`, by its name.
    pub oauth2: BTreeMap<String, Oauth2>,
}

/// One app at Meta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Key `app_id`.
    pub app_id: Option<String>,
    /// Key `app_secret`.
    pub app_secret: Option<Secret>,
    /// Key `base_url`: `https`, or `http` to this machine; no query, no fragment, and no slash at the end of
    /// a path that is more than `/`.
    pub base_url: Url,
    /// Key `api_version`, such as `v26.0`; Facebook only, empty elsewhere.
    pub api_version: String,
}

impl Providers {
    /// Facebook's app id and secret, without which no Facebook token can be refreshed.
    ///
    /// # Errors
    /// One line that names the keys and variables which are not set (exit code 2).
    pub fn facebook_credentials(&self) -> Result<(&str, &Secret), ConfigError> {
        match (&self.facebook.app_id, &self.facebook.app_secret) {
            (Some(id), Some(secret)) => Ok((id, secret)),
            (id, secret) => {
                let missing: Vec<&str> = [
                    id.is_none().then_some("`providers.facebook.app_id` (variable `FACEBOOK_APP_ID`)"),
                    secret.is_none().then_some("`providers.facebook.app_secret` (variable `FACEBOOK_APP_SECRET`)"),
                ]
                .into_iter()
                .flatten()
                .collect();
                Err(ConfigError::one(format!(
                    "{} not set: take it from your app's basic settings at developers.facebook.com",
                    missing.join(" and ") + if missing.len() == 1 { " is" } else { " are" }
                )))
            }
        }
    }
}

/// One OAuth 2.0 provider (table `[providers.NAME]`, `kind = "oauth2"`).
///
/// <https://datatracker.ietf.org/doc/html/rfc6749#section-6>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oauth2 {
    /// The NAME in `[providers.NAME]`.
    pub name: String,
    /// What is known of a provider of that name: the defaults of the keys below.
    pub definition: Option<&'static Definition>,
    /// Key `token_url`: `https`, or `http` to this machine.
    pub token_url: Url,
    /// Key `client_id`.
    pub client_id: String,
    /// Key `client_secret`.
    pub client_secret: Secret,
    /// Key `client_auth`; without it and a definition, `body`.
    pub client_auth: ClientAuth,
    /// Key `class`; without it and a definition, `strict`: the one that can lose nothing.
    pub class: Class,
    /// Key `scope`: sent with each refresh, by providers that need it.
    pub scope: Option<String>,
    /// Key `extra`: further fields of the form.
    pub extra: Vec<(String, String)>,
}

impl Oauth2 {
    /// How long an access token of a known provider usually lives.
    pub fn usual_life(&self) -> Option<SignedDuration> {
        self.definition.map(|definition| SignedDuration::from_secs(definition.usual_life_s.into()))
    }
}

pub(super) fn read(found: &Found<'_>) -> Option<Providers> {
    let [facebook, instagram, threads] = ["facebook", "instagram", "threads"].map(|name| app(found, name));
    // All are read before any is missed, so that every fault is noted.
    let oauth2: Vec<Option<Oauth2>> = names(found).iter().map(|name| oauth2(found, name)).collect();
    let oauth2 = oauth2.into_iter().map(|one| one.map(|one| (one.name.clone(), one))).collect::<Option<_>>()?;
    Some(Providers { facebook: facebook?, instagram: instagram?, threads: threads?, oauth2 })
}

/// The names of the OAuth 2.0 providers that are declared.
pub(super) fn names(found: &Found<'_>) -> Vec<String> {
    let all = found.value("providers").and_then(figment::value::Value::into_dict).unwrap_or_default();
    all.into_keys().filter(|name| !META_APPS.contains(&name.as_str())).collect()
}

fn app(found: &Found<'_>, name: &str) -> Option<App> {
    let key = |key: &str| format!("providers.{name}.{key}");
    let base_url = found.read(&key("base_url"), address::provider_base);
    let api_version =
        if name == "facebook" { found.read(&key("api_version"), api_version) } else { Some(String::new()) };
    let app_id = found.read(&key("app_id"), plain);
    let app_secret = found.read_secret(&key("app_secret"), plain_secret);
    Some(App { app_id, app_secret, base_url: base_url?, api_version: api_version? })
}

fn oauth2(found: &Found<'_>, name: &str) -> Option<Oauth2> {
    let key = |key: &str| format!("providers.{name}.{key}");
    let definition = definitions::of(name);
    for needed in ["kind", "token_url", "client_id", "client_secret"] {
        if found.is_set(&key(needed)) || (needed == "token_url" && definition.is_some()) {
            continue;
        }
        let why = match needed {
            "kind" => "the one kind there is is `oauth2`".to_owned(),
            "token_url" => {
                format!(
                    "an OAuth 2.0 provider needs it, unless its name is a known one ({})",
                    listed(definitions::names())
                )
            }
            _ => "an OAuth 2.0 provider needs it".to_owned(),
        };
        found.missing(&key(needed), why);
    }
    let kind = found.choice(&key("kind"), &[("oauth2", ())]);
    let token_url = match definition.filter(|_| !found.is_set(&key("token_url"))) {
        Some(definition) => Url::parse(definition.token_url).ok(),
        None => found.read(&key("token_url"), address::provider),
    };
    let client_id = found.read(&key("client_id"), plain);
    let client_secret = found.read_secret(&key("client_secret"), plain_secret);
    let default = definition.map_or(ClientAuth::Body, |definition| definition.client_auth);
    let client_auth = or(found, &key("client_auth"), default, &CLIENT_AUTHS);
    let default = definition.map_or(Class::Strict, |definition| definition.class);
    let class = or(found, &key("class"), default, &CLASSES);
    let scope = optional(found, &key("scope"), |text| Ok(text.to_owned()));
    let extra = optional(found, &key("extra"), form_fields);
    kind?;
    Some(Oauth2 {
        name: name.to_owned(),
        definition,
        token_url: token_url?,
        client_id: client_id?,
        client_secret: client_secret?,
        client_auth: client_auth?,
        class: class?,
        scope: scope?,
        extra: extra?.unwrap_or_default(),
    })
}

/// `Some(None)` where the key is unset, `None` where it is wrong.
fn optional<T>(found: &Found<'_>, key: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<Option<T>> {
    if found.is_set(key) { found.read(key, read).map(Some) } else { Some(None) }
}

/// `a=b&c=d` as in a form. The fields that each refresh has by itself cannot be among them.
fn form_fields(text: &str) -> Result<Vec<(String, String)>, String> {
    const OWN: [&str; 6] = ["grant_type", "refresh_token", "client_id", "client_key", "client_secret", "scope"];
    if text.split('&').any(|pair| pair.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
        return Err("must be form fields such as `audience=https%3A%2F%2Fapi.example.com&lang=en`".to_owned());
    }
    let fields: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    match fields.iter().find(|(name, _)| OWN.contains(&name.as_str())) {
        Some((name, _)) => Err(format!("cannot hold the field `{name}`: it has a key of its own, or is set by itself")),
        None => Ok(fields),
    }
}

const CLIENT_AUTHS: [(&str, ClientAuth); 2] = [("body", ClientAuth::Body), ("basic", ClientAuth::Basic)];
const CLASSES: [(&str, Class); 3] = [("extend", Class::Extend), ("grace", Class::Grace), ("strict", Class::Strict)];

fn or<T: Copy>(found: &Found<'_>, key: &str, default: T, known: &[(&str, T)]) -> Option<T> {
    if found.is_set(key) { found.choice(key, known) } else { Some(default) }
}

/// Ids and secrets go into forms and headers: a blank in one is a slip of copying, not a part of it.
fn plain(text: &str) -> Result<String, String> {
    if text.chars().all(|c| c.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("holds a blank, a line break or a character that is not ASCII".to_owned())
    }
}

fn plain_secret(secret: &Secret) -> Result<Secret, String> {
    plain(secret.expose()).map(Secret::new)
}

fn api_version(text: &str) -> Result<String, String> {
    let digits = |text: &str| !text.is_empty() && text.len() <= 4 && text.chars().all(|c| c.is_ascii_digit());
    match text.strip_prefix('v').and_then(|rest| rest.split_once('.')) {
        Some((major, minor)) if digits(major) && digits(minor) => Ok(text.to_owned()),
        _ => Err(format!("must be a version of the Graph API such as `v26.0`, not `{}`", super::error::shown(text))),
    }
}
