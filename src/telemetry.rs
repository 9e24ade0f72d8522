//! Logs, on standard error: one event is one line, and nothing that a library may know in secret is in it.
//!
//! At `debug` and `trace` libraries log SQL with its values, headers and URLs with tokens in them. Therefore
//! only Perene's own events pass below `info`, whatever `RUST_LOG` says. What Perene logs names a connection by
//! its id. Never logged: tokens, secrets, passwords, URLs, bodies of requests and answers, SQL values.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Level as TraceLevel, Metadata, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{Log, LogFormat};

/// The crates whose events pass at every level: the two of this workspace.
const OWN: [&str; 2] = ["perene", "perene_policy"];

/// What the server says in a notice is written by the app's own triggers, which may quote a row.
const SERVER_NOTICES: &str = "sqlx::postgres::notice";

/// Begins to log, once in a process; a second call changes nothing.
pub fn init(log: &Log) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // Fails only where a subscriber is set already: then that one stays.
    let _ = Registry::default().with(layer(log, colour, std::io::stderr)).try_init();
}

/// The directives in the syntax of `RUST_LOG`. Without `RUST_LOG` libraries speak up from `warn`.
pub fn directives(log: &Log) -> String {
    match &log.directives {
        Some(directives) => directives.clone(),
        None if log.level == crate::config::Level::Off => "off".to_owned(),
        None => {
            let word = log.level.word();
            let others = if word == "error" { "error" } else { "warn" };
            format!("{others},perene={word},perene_policy={word}")
        }
    }
}

/// Whether an event of that target and level may be written at all, whatever the directives say.
pub fn may_pass(target: &str, level: TraceLevel) -> bool {
    let of = |name: &str| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    if OWN.into_iter().any(of) {
        return true;
    }
    level <= TraceLevel::INFO && !of(SERVER_NOTICES)
}

fn layer<S, W>(log: &Log, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(directives(log))
        .unwrap_or_else(|_| EnvFilter::new("info"))
        .and(filter_fn(|metadata: &Metadata<'_>| may_pass(metadata.target(), *metadata.level())));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match log.format {
        LogFormat::Text => lines.with_ansi(colour).fmt_fields(OneLine).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    }
}

/// Writes fields as usual, with every control character escaped: no text from outside can break a line,
/// forge another, or command a terminal.
struct OneLine;

impl<'writer> FormatFields<'writer> for OneLine {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        for c in text.chars() {
            // Line and paragraph separators, and what turns the direction of text, are not control characters.
            if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                write!(writer, "{}", c.escape_default())?;
            } else {
                write!(writer, "{c}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::Level;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: &Log, events: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = Registry::default().with(layer(log, false, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, events);
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    fn rust_log(text: &str) -> Log {
        Log { directives: Some(text.to_owned()), ..Log::default() }
    }

    #[test]
    fn the_level_speaks_for_perene_and_libraries_stay_quiet() {
        assert_eq!(directives(&Log::default()), "warn,perene=info,perene_policy=info");
        assert_eq!(directives(&Log { level: Level::Trace, ..Log::default() }), "warn,perene=trace,perene_policy=trace");
        assert_eq!(directives(&Log { level: Level::Off, ..Log::default() }), "off");
        assert_eq!(directives(&rust_log("trace")), "trace");
    }

    #[test]
    fn below_info_only_perene_may_pass() {
        for target in ["perene", "perene::engine::run", "perene_policy::decide"] {
            assert!(may_pass(target, TraceLevel::TRACE), "{target}");
        }
        let libraries =
            ["sqlx::query", "reqwest::connect", "hyper_util", "h2::codec", "rustls", "lettre", "log", "perenes"];
        for target in libraries {
            assert!(!may_pass(target, TraceLevel::DEBUG), "{target}");
            assert!(!may_pass(target, TraceLevel::TRACE), "{target}");
            assert!(may_pass(target, TraceLevel::WARN), "{target}");
        }
        assert!(!may_pass("sqlx::postgres::notice", TraceLevel::WARN));
    }

    #[test]
    fn no_directive_opens_what_is_shut() {
        for directive in
            ["trace", "sqlx=trace", "sqlx::query=trace,hyper=trace,h2[{stream}]=trace", "info,lettre=debug"]
        {
            let text = logged(&rust_log(directive), || {
                tracing::debug!(target: "sqlx::query", token = "hunter2");
                tracing::trace!(target: "hyper::client", "hunter2");
                tracing::trace!(target: "h2", "hunter2");
                tracing::debug!(target: "lettre::transport", "hunter2");
                let _span = tracing::debug_span!(target: "h2", "hunter2", stream = 1).entered();
                tracing::info!(target: "perene::engine", "seen");
            });
            assert!(!text.contains("hunter2"), "{directive}: {text}");
        }
        assert!(logged(&rust_log("trace"), || tracing::trace!(target: "perene::engine", "seen")).contains("seen"));
    }

    #[test]
    fn one_event_is_one_line_of_text() {
        let text = logged(&Log::default(), || {
            let _span = tracing::info_span!(target: "perene::x", "span", name = "a\nb").entered();
            tracing::info!(target: "perene::x", error = "one\r\ntwo \u{1b}[31mred", "first\nsecond\u{85}\u{2028}");
        });
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.contains(['\r', '\u{1b}', '\u{85}', '\u{2028}']), "{text:?}");
        assert!(text.contains("first\\nsecond"), "{text:?}");
    }

    #[test]
    fn one_event_is_one_line_of_json() {
        let log = Log { format: LogFormat::Json, ..Log::default() };
        let text = logged(&log, || tracing::info!(target: "perene::x", id = "7", "first\nsecond\u{1b}"));
        let event: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert_eq!(event["message"], "first\nsecond\u{1b}");
        assert_eq!(event["id"], "7");
    }
}
