//! The one binary.

use std::process::ExitCode;

use clap::Parser;
use perene::cli;
use perene::cli::args::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::execute(cli).await.into()
}
