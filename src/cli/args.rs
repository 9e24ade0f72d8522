//! The command line as it may be typed. Nothing is done here, and no file or variable is read.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::config::{Level, Overrides, duration};

/// Keeps every Instagram connection of a SaaS alive.
#[derive(Debug, Parser)]
#[command(
    name = "perene",
    version,
    max_term_width = 100,
    after_help = "Begin with `perene demo`: it needs nothing.\n\
                  Exit codes: 0 done; 1 could not work (database, network, provider); 2 wrong use (command line, configuration); \
                  3 completed with trouble."
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Default, Args)]
pub struct Global {
    /// The configuration file (default: `perene.toml` in the working directory, if it is there)
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub config: Option<PathBuf>,
    /// How much is logged to standard error: off, error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL", hide_possible_values = true, help_heading = "Everywhere")]
    pub log_level: Option<Level>,
}

impl Global {
    /// For [`Config::load`](crate::config::Config::load).
    pub fn overrides(&self) -> Overrides {
        Overrides { config: self.config.clone(), log_level: self.log_level }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what Perene does, on a simulated Meta and a database of its own
    Demo(Demo),
    /// Keep the connections alive until SIGTERM or SIGINT
    Run,
    /// Make one run now, then exit
    Refresh(Refresh),
    /// Add what the app's tables lack, and Perene's own tables
    Migrate(Migrate),
    /// Show counts, soonest expiries and alarms, from the database alone
    Status(Status),
    /// Say what a provider's answer means (its body on standard input)
    Explain(Explain),
    /// Print a token of a connection, refreshed first if it does not live long enough
    Token(Token),
    /// Serve the simulated Meta
    Sandbox(Sandbox),
    /// Live through months in seconds: what would become of the connections, whatever goes wrong
    Simulate(Simulate),
}

/// The shape of a report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
}

/// For commands that report on standard output.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Report {
    /// The shape of the report on standard output: text or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true, value_name = "FORMAT")]
    pub format: Format,
}

/// `perene demo`
#[derive(Debug, Args)]
#[command(after_help = "Example: perene demo --keep")]
pub struct Demo {
    /// Leave the folder with its database behind, and say where it is
    #[arg(long)]
    pub keep: bool,
}

/// `perene refresh`
#[derive(Debug, Args)]
#[command(after_help = "Example: perene refresh --id 17 --id 18 --force")]
pub struct Refresh {
    /// Only this connection (repeatable; `TABLE:ID` where several tables are mapped)
    #[arg(long = "id", value_name = "ID", value_parser = id)]
    pub ids: Vec<String>,
    /// Also those that are not due or waiting
    #[arg(long)]
    pub force: bool,
    /// Make no call and no change
    #[arg(long)]
    pub dry_run: bool,
    /// The report.
    #[command(flatten)]
    pub report: Report,
}

/// `perene token`
#[derive(Debug, Args)]
#[command(after_help = "Example: perene token 17 --min-life 30m")]
pub struct Token {
    /// The connection (`TABLE:ID` where several tables are mapped)
    #[arg(value_parser = id)]
    pub id: String,
    /// How long it must live at least, such as 10m or 1h
    #[arg(long, default_value = "10m", value_name = "DURATION", value_parser = duration::parse)]
    pub min_life: SignedDuration,
}

/// `perene migrate`
#[derive(Debug, Args)]
#[command(after_help = "Example: perene migrate --check")]
#[group(multiple = false)]
pub struct Migrate {
    /// Change nothing; exit 1 if something is missing
    #[arg(long)]
    pub check: bool,
    /// Write the SQL to standard output and change nothing
    #[arg(long)]
    pub print: bool,
    /// Print the grants that this role needs, and make them
    #[arg(long, value_name = "ROLE", value_parser = id)]
    pub grant_to: Option<String>,
}

/// `perene status`
#[derive(Debug, Args)]
#[command(after_help = "Example: perene status --id 17 --format json")]
pub struct Status {
    /// One connection with its history (`TABLE:ID` where several tables are mapped)
    #[arg(long, value_name = "ID", value_parser = id)]
    pub id: Option<String>,
    /// The report.
    #[command(flatten)]
    pub report: Report,
}

/// `perene explain`
#[derive(Debug, Args)]
#[command(after_help = "Example: perene explain --status 400 --header 'Retry-After: 60' < answer.json")]
pub struct Explain {
    /// The HTTP status (default: 400 if the body is an error, else 200)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(100..=599))]
    pub status: Option<u16>,
    /// A header of the answer (repeatable)
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<Header>,
    /// The endpoint that answered: exchange, ig_refresh, th_refresh, oauth2 or debug_token
    #[arg(long, value_enum, default_value_t, hide_possible_values = true, value_name = "ENDPOINT")]
    pub endpoint: Endpoint,
    /// The report.
    #[command(flatten)]
    pub report: Report,
}

/// A header of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name, in small letters.
    pub name: String,
    /// Its value, without blanks around it.
    pub value: String,
}

/// The endpoint whose answer is explained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Endpoint {
    /// Facebook Login's exchange.
    #[default]
    #[value(name = "exchange")]
    Exchange,
    /// Instagram Login's refresh.
    #[value(name = "ig_refresh")]
    IgRefresh,
    /// Threads' refresh.
    #[value(name = "th_refresh")]
    ThRefresh,
    /// A token endpoint of OAuth 2.0.
    #[value(name = "oauth2")]
    Oauth2,
    /// Meta's inspection of a token.
    #[value(name = "debug_token")]
    DebugToken,
}

/// `perene sandbox`
#[derive(Debug, Args)]
#[command(after_help = "Example: perene sandbox --listen 127.0.0.1:8080 --latency 50ms\n\
                        A token's text says how it is treated: `EAA-ok-1`, `IG-dead-460-1`, `TH-flaky-1`.")]
pub struct Sandbox {
    /// Where to listen; port 0 picks a free one. The URL is the first line on standard output
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The same seed gives the same answers
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// How long each answer takes
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = duration::parse)]
    pub latency: SignedDuration,
    /// How many of a hundred tokens without a kind in their text are of which kind, such as `dead=2,flaky=10`
    #[arg(long, value_name = "KIND=PERCENT,..")]
    pub shares: Option<String>,
}

/// `perene simulate`
#[derive(Debug, Args)]
#[command(after_help = "Example: perene simulate --days 120 --faults meta-outage:12h@day30\n\
                        Exit 0: every promise held; 1: one did not, and the command that takes the same course again is shown.")]
pub struct Simulate {
    /// How many connections are invented
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub connections: u64,
    /// How many days are lived through
    #[arg(long, value_name = "D", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// From which all chance follows: the same seed gives the same bytes
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// What goes wrong: none, all, or `NAME[:DURATION][@dayN],..` (`help` lists the names)
    #[arg(long, value_name = "LIST", default_value = "none")]
    pub faults: String,
    /// Take the connections of the configured database, as they are now: nothing is called, nothing is written
    #[arg(long)]
    pub from_database: bool,
    /// Draw a calendar of what would happen into this file, in SVG
    #[arg(long, value_name = "FILE")]
    pub calendar: Option<PathBuf>,
    /// Write everything that happens into this file, a line each
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// The report.
    #[command(flatten)]
    pub report: Report,
}

fn id(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn header(text: &str) -> Result<Header, String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok(Header { name: name.trim().to_ascii_lowercase(), value: value.trim().to_owned() })
        }
        _ => Err("it must be written `Name: value`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_that_parses() {
        for command in Cli::command().get_subcommands() {
            let Some(help) = command.get_after_help().map(ToString::to_string) else {
                assert_eq!(command.get_name(), "run", "no example");
                continue;
            };
            let example = help.lines().next().and_then(|line| line.strip_prefix("Example: ")).unwrap();
            let example = example.split(" < ").next().unwrap().replace("'Retry-After: 60'", "Retry-After:60");
            assert!(parse(&example).is_ok(), "{example}: {:?}", parse(&example).unwrap_err());
        }
    }

    #[test]
    fn the_contract_is_understood() {
        for line in [
            "perene demo --keep",
            "perene run --config x.toml --log-level debug",
            "perene --log-level trace run",
            "perene refresh --id 1 --id instagram_connections:2 --force --dry-run --format json",
            "perene migrate",
            "perene migrate --print",
            "perene migrate --grant-to perene",
            "perene status --id 9f1c",
            "perene explain --status 400 --header A:b --header C:d --endpoint debug_token --format json",
            "perene simulate --connections 50 --days 90 --seed 3 --faults meta-outage:12h@day30,pause --trace t.txt",
            "perene simulate --from-database --days 120 --calendar c.svg --format json",
            "perene sandbox --listen 127.0.0.1:0 --seed 7 --latency 50ms --shares dead=2",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn wrong_use_ends_with_two() {
        for line in [
            "perene",
            "perene refesh",
            "perene refresh --all",
            "perene migrate --check --print",
            "perene explain --status 99",
            "perene explain --endpoint ig-refresh",
            "perene explain --header nothing",
            "perene sandbox --listen nowhere",
            "perene run --log-level loud",
            "perene run --format json",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
        assert_eq!(parse("perene --help").unwrap_err().kind(), ErrorKind::DisplayHelp);
        assert_eq!(parse("perene --version").unwrap_err().exit_code(), 0);
    }
}
