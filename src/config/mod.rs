//! The configuration: defaults, file, variables, flags, in this order, the last one wins. Loading reads the
//! files that are named, and neither the environment nor the command line: both are arguments.
//!
//! ```
//! use perene::config::{Config, DatabaseUrl, Environment, Overrides};
//!
//! let env = Environment::from([("DATABASE_URL".to_owned(), "sqlite:/srv/app.db".to_owned())]);
//! let config = Config::load(&Overrides::default(), &env, std::path::Path::new("/nowhere")).unwrap();
//! assert_eq!(config.database.url, DatabaseUrl::Sqlite("/srv/app.db".into()));
//! assert_eq!(config.refresh.concurrency, 64);
//! ```
//!
//! # Errors
//! Every fault found is a line of its own in [`ConfigError`]: it names the key, where its value came from and
//! what is allowed. No line repeats a secret.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use figment::Figment;

mod address;
mod alarm;
mod database;
pub mod duration;
mod error;
mod found;
mod journal;
pub mod keys;
mod layer;
mod log;
mod mail;
mod mapping;
mod provider;
mod refresh;
mod schedule;
mod source;
mod webhook;

pub use alarm::Alarm;
pub use database::{Database, DatabaseUrl};
pub use error::ConfigError;
pub use journal::Journal;
pub use layer::{Environment, environment};
pub use log::{Level, Log, LogFormat};
pub use mail::{Locale, Mail, Reconnect};
pub use provider::{App, Oauth2, Providers};
pub use refresh::Refresh;
pub use schedule::Schedule;
pub use source::{Columns, META, Source, TableName, UserTable};
pub use webhook::Webhook;

use found::Found;

/// Everything that can be set. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the tables are.
    pub database: Database,
    /// When the daily run starts.
    pub schedule: Schedule,
    /// What is due, how much at once, when people hear of it.
    pub refresh: Refresh,
    /// The apps and the OAuth 2.0 providers.
    pub providers: Providers,
    /// How customers are written to. `None` without `mail.smtp_url`.
    pub mail: Option<Mail>,
    /// Where customers reconnect.
    pub reconnect: Reconnect,
    /// Where events are posted. `None` without `webhook.url`.
    pub webhook: Option<Webhook>,
    /// Where the operator hears of trouble.
    pub alarm: Alarm,
    /// Where answers are kept until the database has confirmed them.
    pub journal: Journal,
    /// How much is logged, and in which shape.
    pub log: Log,
    /// The mapped tables, at least one.
    pub sources: Vec<Source>,
}

/// What the command line sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--log-level`.
    pub log_level: Option<Level>,
}

impl Config {
    /// Loads `perene.toml` from `cwd` if it is there, or the file that `--config` or `PERENE_CONFIG` names,
    /// and puts the variables and the flags above it. Relative paths count from `cwd`.
    ///
    /// # Errors
    /// Whatever is wrong, all at once; exit code 2.
    pub fn load(overrides: &Overrides, env: &Environment, cwd: &Path) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let asked = match (&overrides.config, env.get("PERENE_CONFIG").filter(|path| !path.is_empty())) {
            (Some(path), _) => Some((path.clone(), "`--config`")),
            (None, Some(path)) => Some((PathBuf::from(path), "variable `PERENE_CONFIG`")),
            (None, None) => None,
        };
        let figment = layer::defaults(Figment::new());
        let figment = layer::file(figment, asked, cwd, &mut faults);
        let figment = layer::plain_variables(figment, env, &mut faults);
        let figment = layer::prefixed_variables(figment, env, &mut faults);
        let found = Found { figment, faults: RefCell::new(faults), cwd };
        let config = Self::read(&found, overrides, env);
        ConfigError::check(found.faults.into_inner())?;
        config.ok_or_else(|| ConfigError::one("the configuration could not be read"))
    }

    fn read(found: &Found<'_>, overrides: &Overrides, env: &Environment) -> Option<Self> {
        let database = database::read(found);
        let schedule = schedule::read(found);
        let refresh = refresh::read(found);
        let providers = provider::read(found);
        let (mail, reconnect) = mail::read(found);
        let webhook = webhook::read(found);
        let alarm = alarm::read(found);
        let journal = journal::read(found, env);
        let log = log::read(found, overrides.log_level, env);
        let sources = mapping::read(found, &provider::names(found));
        Some(Self {
            database: database?,
            schedule: schedule?,
            refresh: refresh?,
            providers: providers?,
            mail,
            reconnect,
            webhook,
            alarm,
            journal,
            log: log?,
            sources,
        })
    }
}

#[cfg(test)]
mod tests;
