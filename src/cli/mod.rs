//! The command line: one file a command.

pub mod args;
mod assemble;
mod demo;
pub mod exit;
mod explain;
mod failure;
mod ids;
mod migrate;
mod out;
mod progress;
mod refresh;
mod rehearse;
mod run;
mod sandbox;
mod signal;
mod simulate;
mod status;
mod table;
mod token;
mod written;

use args::{Cli, Command, Global};
use exit::Exit;
use failure::Failure;

use crate::config::{self, Config, Log};
use crate::telemetry;

/// Carries out a command and says how the process ends. What went wrong stands on standard error, a line each.
pub async fn execute(cli: Cli) -> Exit {
    let result = match cli.command {
        Command::Demo(args) => demo::demo(&args, &cli.global).await,
        Command::Run => run::run(&cli.global).await,
        Command::Refresh(args) => refresh::refresh(&args, &cli.global).await,
        Command::Migrate(args) => migrate::migrate(&args, &cli.global).await,
        Command::Status(args) => status::status(&args, &cli.global).await,
        Command::Explain(args) => explain::explain(&args),
        Command::Token(args) => token::token(&args, &cli.global).await,
        Command::Simulate(args) => simulate::simulate(&args, &cli.global).await,
        Command::Sandbox(args) => sandbox::sandbox(&args, &cli.global).await,
    };
    match result {
        Ok(Exit::Done) if out::is_lost() => Exit::CouldNotWork,
        Ok(exit) => exit,
        Err(failure) => {
            failure.tell();
            failure.exit
        }
    }
}

/// Loads the configuration and begins to log as it says.
fn load(global: &Global) -> Result<Config, Failure> {
    let config = configuration(global)?;
    telemetry::init(&config.log);
    Ok(config)
}

/// Loads the configuration, and logs nothing unless the command line asks for it.
fn load_quietly(global: &Global) -> Result<Config, Failure> {
    let config = configuration(global)?;
    log_without_configuration(global, config::Level::Off);
    Ok(config)
}

fn configuration(global: &Global) -> Result<Config, Failure> {
    let cwd = std::env::current_dir()
        .map_err(|error| Failure::could_not_work(format!("the working directory cannot be read: {error}")))?;
    Ok(Config::load(&global.overrides(), &config::environment(), &cwd)?)
}

/// Begins to log where no configuration is needed.
fn log_without_configuration(global: &Global, otherwise: config::Level) {
    let level = global.log_level.unwrap_or(otherwise);
    telemetry::init(&Log { level, ..Log::default() });
}
