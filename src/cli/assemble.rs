//! Puts the parts together that a configuration names.

use std::collections::BTreeMap;
use std::sync::Arc;

use perene_policy::schedule::Schedule;

use super::failure::Failure;
use crate::clock::{Clock, SystemClock};
use crate::config::{App, Config, DatabaseUrl, META, Oauth2};
use crate::engine::{Engine, Parts};
use crate::journal::Folders;
use crate::notify::{Channel, Email, MailSettings, Webhook, WebhookSettings};
use crate::provider::Provider;
use crate::provider::meta::{Meta, MetaApp};
use crate::provider::oauth2::{Oauth2App, Oauth2Provider};
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

/// Opens the database. An SQLite file that is not there is made only by a command that makes tables.
pub(super) async fn store(
    config: &Config,
    clock: &Arc<dyn Clock>,
    may_create: bool,
) -> Result<Arc<dyn Store>, StoreError> {
    let sources = config.sources.clone();
    Ok(match &config.database.url {
        DatabaseUrl::Postgres(url) => Arc::new(PostgresStore::connect(url, sources).await?),
        DatabaseUrl::Sqlite(path) => Arc::new(SqliteStore::open(path, sources, Arc::clone(clock), may_create).await?),
    })
}

/// The machine's clock, until a database tells a better time.
pub(super) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

/// The engine that a configuration describes, on an open database.
pub(super) fn engine(config: &Config, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Engine, Failure> {
    let providers = providers(config)?;
    let schedule = Schedule::parse(&config.schedule.cron, config.schedule.time_zone.clone(), clock.now())
        .map_err(|error| Failure::wrong_use(format!("`schedule.cron`: {error}")))?;
    Ok(Engine::new(Parts {
        store,
        providers,
        clock,
        sources: config.sources.clone(),
        settings: config.refresh.settings(),
        schedule,
        concurrency: config.refresh.concurrency,
        channels: channels(config)?,
        journal: None,
        new_id: Arc::new(uuid::Uuid::new_v4),
    }))
}

/// Has the engine keep answers in a journal of this database, once Perene's own tables are there. Where none can be
/// had, only a provider that punishes reuse is a reason not to go on.
pub(super) async fn journal(config: &Config, engine: &Engine) -> Result<(), Failure> {
    engine.store().prepare().await?;
    let database = engine.store().identity().await?;
    let opened = match config.journal.folder_for(&config.database.url) {
        Some(folder) => {
            Folders::of(&folder, &database, config.journal.key.clone()).take().map_err(|error| error.to_string())
        }
        None => Err("no folder is known for it: set `journal.folder`".to_owned()),
    };
    match opened {
        Ok(journal) => engine.keep_answers_in(Arc::new(journal)),
        Err(error) if engine.needs_journal() => {
            return Err(Failure::could_not_work(format!(
                "{error}; without a journal nothing can be sent to a provider of class `strict`"
            )));
        }
        Err(error) => tracing::warn!("{error}; answers are not kept while the database is away"),
    }
    Ok(())
}

/// A run needs an app: without one there is nothing to refresh with.
fn providers(config: &Config) -> Result<BTreeMap<String, Arc<dyn Provider>>, Failure> {
    let mut providers: BTreeMap<String, Arc<dyn Provider>> = BTreeMap::new();
    for source in &config.sources {
        let name = &source.provider;
        if providers.contains_key(name) {
            continue;
        }
        let provider: Arc<dyn Provider> = match config.providers.oauth2.get(name) {
            _ if name == META => Arc::new(meta(config)?),
            Some(known) => Arc::new(oauth2(known, config.refresh.concurrency)?),
            None => {
                return Err(Failure::wrong_use(format!(
                    "provider `{name}` of table `{}` is not configured: declare `[providers.{name}]`",
                    source.table
                )));
            }
        };
        providers.insert(name.clone(), provider);
    }
    Ok(providers)
}

fn oauth2(known: &Oauth2, connections: usize) -> Result<Oauth2Provider, Failure> {
    let definition = known.definition;
    let headers = definition.map_or(&[][..], |definition| definition.headers);
    let app = Oauth2App {
        name: known.name.clone(),
        token_url: known.token_url.clone(),
        client_id: known.client_id.clone(),
        client_secret: known.client_secret.clone(),
        client_auth: known.client_auth,
        client_id_field: definition.map_or("client_id", |definition| definition.client_id_field).to_owned(),
        class: known.class,
        scope: known.scope.clone(),
        extra: known.extra.clone(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        usual_life: known.usual_life(),
    };
    Oauth2Provider::new(app, connections).map_err(|error| Failure::could_not_work(error.to_string()))
}

fn meta(config: &Config) -> Result<Meta, Failure> {
    let known = &config.providers;
    // Instagram and Threads renew without an app's secret: with one of their ids set, Facebook's may be absent.
    if known.instagram.app_id.is_none() && known.threads.app_id.is_none() {
        known.facebook_credentials()?;
    }
    let app = |app: &App| MetaApp {
        id: app.app_id.clone(),
        secret: app.app_secret.clone(),
        base_url: app.base_url.as_str().trim_end_matches('/').to_owned(),
    };
    let version = known.facebook.api_version.clone();
    Meta::new(app(&known.facebook), version, app(&known.instagram), app(&known.threads), config.refresh.concurrency)
        .map_err(|error| Failure::could_not_work(error.to_string()))
}

fn channels(config: &Config) -> Result<Vec<Arc<dyn Channel>>, Failure> {
    let mut channels: Vec<Arc<dyn Channel>> = Vec::new();
    if let Some(mail) = &config.mail {
        let settings = MailSettings {
            smtp_url: mail.smtp_url.clone(),
            from: mail.from.to_string(),
            locale: mail.locale,
            reconnect_url: config.reconnect.url.clone(),
            link_secret: config.reconnect.link_secret.clone(),
            ca_file: mail.ca_file.clone(),
        };
        channels.push(Arc::new(Email::new(settings).map_err(|error| Failure::wrong_use(error.to_string()))?));
    }
    if let Some(webhook) = &config.webhook {
        let settings = WebhookSettings {
            url: webhook.url.as_str().into(),
            secret: Some(webhook.secret.clone()),
            allow_private: webhook.allow_private,
        };
        channels.push(Arc::new(Webhook::new(settings).map_err(|error| Failure::wrong_use(error.to_string()))?));
    }
    Ok(channels)
}
