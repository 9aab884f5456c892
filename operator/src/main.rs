//! The one binary: `run` the operator, print `crd`s, or act as a `mover` inside a Job.

use clap::Parser;
use std::process::ExitCode;
use vmmigration::{
    cli::{Cli, Command},
    definitions, mover, operator,
};

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Mover(args) => return mover::cli::run(args).await,
        Command::Crd(args) => definitions::write(&args),
        Command::Run(args) => operator::run(*args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmmigration: {error:#}");
            ExitCode::FAILURE
        }
    }
}
