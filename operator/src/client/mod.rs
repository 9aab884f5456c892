//! `kubectl vmmigration`: what a person at a terminal has besides `kubectl`. Stateless: everything that must outlive a
//! call is in the object, so that any machine can go on where another one ended.

pub mod attach;
pub mod check;
pub mod cli;
pub mod connect;
pub mod create;
pub mod describe;
pub mod diagnose;
pub mod end;
pub mod follow;
pub mod hooks;
pub mod list;
pub mod local;
pub mod mask;
pub mod proxy;
pub mod report;
pub mod run;
pub mod screen;
pub mod script;
pub mod table;
pub mod text;
pub mod verbs;
pub mod wait;
pub mod watch;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use connect::Session;
use end::{Done, Ended};
use std::process::ExitCode;

/// Runs one call.
pub async fn main() -> ExitCode {
    text::set_colours();
    match run(Cli::parse()).await {
        Ok(ended) => ended.into(),
        Err(stop) => {
            eprintln!("{} {stop}", text::bad("error:"));
            stop.ended.into()
        }
    }
}

async fn run(cli: Cli) -> Done {
    if let Command::Completion(args) = cli.command {
        let mut command = Cli::command().bin_name("kubectl-vmmigration");
        clap_complete::generate(args.shell, &mut command, "kubectl-vmmigration", &mut std::io::stdout());
        return Ok(Ended::Well);
    }
    let session = || Session::open(&cli.cluster);
    match &cli.command {
        Command::Create(args) => create::run(&cli.cluster, args).await,
        Command::Run(args) => run::run(session().await?, args).await,
        Command::Watch(args) => watch::run(session().await?, args).await,
        Command::Wait(args) => wait::run(session().await?, args).await,
        Command::Attach(args) => attach::run(session().await?, args).await,
        Command::Cutover(args) => verbs::cutover(session().await?, args).await,
        Command::Suspend(args) => verbs::suspend(session().await?, args, true).await,
        Command::Resume(args) => verbs::suspend(session().await?, args, false).await,
        Command::Cancel(args) => verbs::cancel(session().await?, args).await,
        Command::Retry(args) => verbs::retry(session().await?, args).await,
        Command::Rollback(args) => verbs::rollback(session().await?, args).await,
        Command::Retire(args) => verbs::retire(session().await?, args).await,
        Command::StartSource(args) => verbs::start_source(session().await?, args).await,
        Command::List(args) => list::run(session().await?, args).await,
        Command::Describe(args) => describe::run(session().await?, args).await,
        Command::Report(args) => report::run(session().await?, args).await,
        Command::Check(args) => check::run(session().await?, args).await,
        Command::Diagnose(args) => diagnose::run(session().await?, args).await,
        Command::Completion(_) => Ok(Ended::Well),
    }
}
