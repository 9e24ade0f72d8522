//! Section `log`: how much is logged, and in which shape.

use super::error::shown;
use super::found::Found;
use super::layer::Environment;

/// Section `log`, with the flag and `RUST_LOG` taken into account: `--log-level` beats `PERENE_LOG__LEVEL`,
/// that beats `RUST_LOG`, that beats the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Key `log.level`, default `info`: what Perene itself logs.
    pub level: Level,
    /// What `RUST_LOG` says, where it beats `level`. It reads as a filter.
    pub directives: Option<String>,
    /// Key `log.format`, default `text`.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info, directives: None, format: LogFormat::Text }
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// Nothing.
    Off,
    /// What could not be done.
    Error,
    /// What somebody should look at.
    Warn,
    /// What was done.
    Info,
    /// Why it was done.
    Debug,
    /// Every step.
    Trace,
}

impl Level {
    /// The word in the configuration and in `RUST_LOG`.
    pub fn word(self) -> &'static str {
        LEVELS.iter().find(|(_, level)| *level == self).map_or("info", |(word, _)| word)
    }
}

const LEVELS: [(&str, Level); 6] = [
    ("off", Level::Off),
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) fn read(found: &Found<'_>, flag: Option<Level>, env: &Environment) -> Option<Log> {
    let level = found.choice("log.level", &LEVELS);
    let format = found.choice("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let beaten = flag.is_some() || env.get("PERENE_LOG__LEVEL").is_some_and(|value| !value.is_empty());
    let directives = env.get("RUST_LOG").filter(|value| !value.is_empty() && !beaten).cloned();
    if let Some(text) = &directives
        && tracing_subscriber::EnvFilter::builder().parse(text).is_err()
    {
        found.faults.borrow_mut().push(format!(
            "`log.level` (variable `RUST_LOG`) must be a level or directives such as `perene=debug`, not `{}`",
            shown(text)
        ));
    }
    Some(Log { level: flag.or(level)?, directives, format: format? })
}
