//! The one binary: `run` the operator, print `crd`s, or act as a `mover` inside a Job.

use std::process::ExitCode;

use clap::Parser;
use vmmigration::mover::cli::{MoverCommand, run};

#[derive(Parser)]
#[command(version)]
enum Cli {
    /// What runs inside of a Job
    #[command(subcommand)]
    Mover(MoverCommand),
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse() {
        Cli::Mover(command) => run(command).await,
    }
}
