//! The command line of the client, with help that teaches.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

use super::{
    hooks::ScriptFor,
    verbs::{When, when},
};
use crate::crd::v1alpha1::{HookPhase, Period};

/// Move OpenStack servers between clouds: scaffold, follow, decide, report
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-vmmigration",
    bin_name = "kubectl vmmigration",
    version,
    long_about = "Moves OpenStack servers, with all their disks, between clouds: the part of the work that wants a \
terminal. Everything is in the objects; the client keeps nothing. Kill it, and go on from another machine.\n\n\
As a plugin of kubectl: put kubectl-vmmigration into a directory of PATH. Needed is a kubeconfig and ClusterRole \
vmmigration-tenant in the namespace, no more.",
    after_long_help = "Examples:\n  \
  kubectl vmmigration check\n  \
  kubectl vmmigration run --from site-a --server web-1 --to site-b --hook BeforeStop=./stop-app.sh\n  \
  kubectl vmmigration cutover web-1\n\n\
Exit codes:\n  \
  0    done, or the migration succeeded\n  \
  1    failed, blocked or refused\n  \
  2    the call itself makes no sense\n  \
  3    the migration was cancelled, rolled back or deleted\n  \
  4    not done in the time given\n  \
  130  interrupted; the migration goes on\n\n\
Environment:\n  \
  KUBECONFIG             as for kubectl\n  \
  NO_COLOR               no colours\n  \
  OS_CLIENT_CONFIG_FILE  your clouds.yaml, for `create` and `run`"
)]
pub struct Cli {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: Cluster,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster and namespace.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct Cluster {
    /// The namespace; unset: the context's
    #[arg(long, short, global = true)]
    pub namespace: Option<String>,
    /// The context of the kubeconfig; unset: the current one
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The kubeconfig; unset: KUBECONFIG, then ~/.kube/config
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write or create the VmMigration of a server
    #[command(
        long_about = "Writes the VmMigration of a server and creates it, or with --dry-run=client prints it.\n\n\
If your own clouds.yaml (OS_CLIENT_CONFIG_FILE, ./clouds.yaml, ~/.config/openstack) has entries called as the \
OpenStackClouds, the live server is looked at, and networks, volume types and flavor are filled in. Without them the \
shortest object is written; what is missing then comes up in preflight, before anything is touched.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration create --from site-a --server web-1 --to site-b --dry-run=client\n  \
  kubectl vmmigration create --from site-a --server web-1 --to site-b --network lan=provider\n  \
  kubectl vmmigration create --from site-a --server web-1 --to site-b --cutover 2030-08-29T22:00:00+02:00 \
--not-after 2030-08-30T02:00:00+02:00"
    )]
    Create(CreateArgs),
    /// Create a migration, follow it to its end, and exit with its result
    #[command(
        long_about = "Creates a migration from options or a file, follows it, runs your scripts at the phases that you \
name, and exits with the result. If the same migration is there already, it is followed: after a lost connection run \
the same command again.\n\n\
Unless --cutover Now is given, the server keeps running until `kubectl vmmigration cutover` says the go. A blocked \
migration ends the call with exit code 1; nothing was touched.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration run --from site-a --server web-1 --to site-b --cutover Now\n  \
  kubectl vmmigration run --from site-a --server web-1 --to site-b --hook BeforeStop=./stop-app.sh --timeout 2h\n  \
  kubectl vmmigration run -f migration.yaml --hook stop-app=./stop-app.sh"
    )]
    Run(RunArgs),
    /// Follow a migration: a bar per disk on a terminal, lines elsewhere
    #[command(
        long_about = "Follows a migration to its end and exits with its result. On a terminal there is a bar for each \
disk, with bytes, rate and time left; elsewhere, and with --plain, one line for each thing that happens. Ctrl-C ends \
the watching, never the migration.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration watch web-1\n  \
  kubectl vmmigration watch web-1 --plain --timeout 30m"
    )]
    Watch(WatchArgs),
    /// Wait until migrations have ended, with their result as exit code
    #[command(
        long_about = "Waits until migrations have ended, one by its name or several, and prints a line for each when it \
has. For scripts: the exit code is 0 only if all have succeeded.\n\n\
With -l and --all those are waited for that are there now. A migration that waits for somebody, Blocked, Held or for its \
go, has not ended: give a --timeout. What has ended may still be cleaned up after; condition CleanedUp tells.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration wait web-1 --timeout 2h\n  \
  kubectl vmmigration wait -l app=shop\n  \
  kubectl vmmigration wait --all --timeout 8h\n\n\
Exit codes:\n  \
  0  all have succeeded\n  \
  1  one has failed, or there is none\n  \
  3  none has failed, but one was cancelled, rolled back or deleted\n  \
  4  the time was up before all had ended; they go on"
    )]
    Wait(WaitArgs),
    /// Follow a migration and run its client hooks on this machine
    #[command(
        long_about = "Follows a migration and runs scripts of this machine for its hooks of kind `client`. A hook that \
waits is claimed first, so that of several clients one runs it. The script gets environment VMM_* and the same as \
JSON on standard input; its exit code gates the migration. A file that is not executable is run by bash.\n\n\
If this client dies, its claim ends after 45 seconds, and any other client may attach and run the hook.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration attach web-1 --hook BeforeStop=./stop-app.sh\n  \
  kubectl vmmigration attach web-1 --hook stop-app=./stop-app.sh --hook ready=./ready.sh"
    )]
    Attach(AttachArgs),
    /// Say the go, now or at a time
    #[command(
        long_about = "Says when the source may be stopped: now, or at a time. A time without a zone is of this \
machine's. The server is stopped, locked, copied and started in the destination; it is down meanwhile.\n\n\
A time that was missed waits for you: when something is in the way until --not-after, or for an hour if that is not given.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration cutover web-1\n  \
  kubectl vmmigration cutover web-1 --at 2030-08-29T22:00:00+02:00\n  \
  kubectl vmmigration cutover web-1 --at 2030-08-29T22:00 --not-after 2030-08-30T02:00"
    )]
    Cutover(CutoverArgs),
    /// Begin nothing new until `resume`
    #[command(
        long_about = "Sets spec.suspend: no new step is begun. What was asked of a cloud before goes on, and a failure \
still gives the source back. A server that is stopped stays down meanwhile.",
        after_long_help = "Examples:\n  kubectl vmmigration suspend web-1"
    )]
    Suspend(NamedArgs),
    /// Go on after `suspend`
    #[command(
        long_about = "Takes spec.suspend back: the migration goes on where it was.",
        after_long_help = "Examples:\n  kubectl vmmigration resume web-1"
    )]
    Resume(NamedArgs),
    /// Give the source back, as if the migration had not been tried
    #[command(
        long_about = "Ends a migration before its success: the source is started again if it ran, and what was made is \
removed. Refused once it has succeeded; then `rollback` is the way.",
        after_long_help = "Examples:\n  kubectl vmmigration cancel web-1"
    )]
    Cancel(NamedArgs),
    /// Try again after a failure, or go on from Held
    #[command(
        long_about = "Tries a failed or held migration again, with what is still proven good. Everything that may have \
changed meanwhile is looked at again first.",
        after_long_help = "Examples:\n  kubectl vmmigration retry web-1"
    )]
    Retry(NamedArgs),
    /// Go back to the source, also after success; what was written since is left behind
    #[command(
        long_about = "Stops the server in the destination, keeps it, and starts the source again. Also after success, \
while the source exists. What was written in the destination since it ran there is left behind there: you are told \
since when, and asked to type the server's name.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration rollback web-1\n  \
  kubectl vmmigration rollback web-1 --yes-i-mean web-1"
    )]
    Rollback(SureArgs),
    /// Delete the source after success: server, then volumes
    #[command(
        long_about = "After success: deletes the source's server and then the volumes that were recorded as its own. \
There is no way back after it. You are told what goes, and asked to type the server's name.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration retire web-1\n  \
  kubectl vmmigration retire web-1 --yes-i-mean web-1"
    )]
    Retire(SureArgs),
    /// Start the source although nobody can see whether the destination's server runs
    #[command(
        long_about = "For a destination whose cloud is gone for good. The way back never starts the source while the \
destination's server may be running, and waits until it is seen gone or stopped. Whoever knows that it does not run says so \
by typing the id of the old server. It asks for the way back, too, before and after success. As long as the destination \
answers, its server is stopped first; if it answers again later, a server that runs there is stopped, and kept.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration start-source web-1\n  \
  kubectl vmmigration start-source web-1 --yes-i-mean 5b1b4a3c-8c8d-4b7e-9d5e-0c2f6a7b8c9d"
    )]
    StartSource(StartSourceArgs),
    /// List migrations
    #[command(
        long_about = "Lists the migrations of the namespace, or of all.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration list\n  \
  kubectl vmmigration list -A -o json"
    )]
    List(ListArgs),
    /// Everything about one migration: what matters first, digests last
    #[command(
        long_about = "Shows one migration for people: what it waits for and what to do, what is in the way, hooks, \
checks, what is kept and changed, what happened when; the digests of the disks last.",
        after_long_help = "Examples:\n  kubectl vmmigration describe web-1"
    )]
    Describe(NamedOnly),
    /// The evidence of a finished migration
    #[command(
        long_about = "Prints the VmMigrationReport: when, how long down, every disk's digests on both sides, checks, \
what was kept and changed. It outlives the VmMigration; NAME is that of the migration or of the report.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration report web-1\n  \
  kubectl vmmigration report web-1 -o markdown"
    )]
    Report(ReportArgs),
    /// Can I migrate from here? Cluster, rights, clouds, store
    #[command(
        long_about = "Looks at everything that a migration needs and says what is missing: the cluster and its \
definitions, your rights in the namespace, the clouds and the store as the operator found them, and what client hooks \
need on this machine. Nothing is changed. Exit code 1: something is missing.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration check\n  \
  kubectl vmmigration check --from site-a --to site-b -n team-web"
    )]
    Check(CheckArgs),
    /// Collect what somebody who helps needs, into one archive
    #[command(
        long_about = "Writes a .tar.gz with the migration, its report, clouds, stores, events and, where you may read \
them, the logs of operator and hooks. Secrets are never read; scripts and output of hooks are left out, and what \
looks like a password, a token or a key is masked. Look through it before you send it all the same.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration diagnose web-1\n  \
  kubectl vmmigration diagnose web-1 --file web-1.tar.gz"
    )]
    Diagnose(DiagnoseArgs),
    /// Print a shell's completion script
    #[command(
        long_about = "Prints the script with which a shell completes `kubectl-vmmigration`.",
        after_long_help = "Examples:\n  \
  kubectl vmmigration completion bash\n  \
  kubectl vmmigration completion zsh"
    )]
    Completion(CompletionArgs),
}

/// The server to move, and where.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Migration")]
pub struct Move {
    /// The OpenStackCloud that the server is in
    #[arg(long, value_name = "CLOUD")]
    pub from: Option<String>,
    /// The server: its name or id
    #[arg(long, value_name = "NAME")]
    pub server: Option<String>,
    /// The OpenStackCloud that it goes to
    #[arg(long, value_name = "CLOUD")]
    pub to: Option<String>,
    /// Name of the VmMigration; unset: made from the server's
    #[arg(long)]
    pub name: Option<String>,
    /// When the source may be stopped: Manual, Now, or a time
    #[arg(long, value_name = "WHEN", value_parser = when, default_value = "Manual")]
    pub cutover: When,
    /// With a time in --cutover: until when the source may be stopped; unset: an hour after it
    #[arg(long, value_name = "TIME", value_parser = super::verbs::time)]
    pub not_after: Option<jiff::Timestamp>,
    /// The ObjectStore; unset: the only one of the namespace
    #[arg(long)]
    pub store: Option<String>,
    /// The flavor in the destination; unset: the same name
    #[arg(long)]
    pub flavor: Option<String>,
    /// A network of the source and the one that takes its place; can be repeated
    #[arg(long = "network", value_name = "FROM=TO", value_parser = mapping)]
    pub networks: Vec<(String, String)>,
    /// A volume type of the source and the one that takes its place; can be repeated
    #[arg(long = "volume-type", value_name = "FROM=TO", value_parser = mapping)]
    pub volume_types: Vec<(String, String)>,
    /// Do not look at the live server, even if your clouds.yaml has the clouds
    #[arg(long)]
    pub no_look: bool,
}

/// `create`
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The server to move, and where.
    #[command(flatten)]
    pub moving: Move,
    /// A phase at which a script of a client runs; can be repeated
    #[arg(long = "client-hook", value_name = "PHASE")]
    pub client_hooks: Vec<HookPhase>,
    /// client: print only; server: have the cluster check it, and print
    #[arg(long, value_enum, value_name = "WHERE")]
    pub dry_run: Option<DryRun>,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "yaml")]
    pub output: Document,
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A file with the VmMigration, instead of options; - is standard input
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with_all = ["from", "server", "to"])]
    pub file: Option<PathBuf>,
    /// The server to move, and where.
    #[command(flatten)]
    pub moving: Move,
    /// How it is followed.
    #[command(flatten)]
    pub follow: FollowArgs,
    /// A script for a phase or for a hook of this name; can be repeated
    #[arg(long = "hook", value_name = "PHASE=SCRIPT")]
    pub hooks: Vec<ScriptFor>,
}

/// How a migration is followed.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Following")]
pub struct FollowArgs {
    /// End after this time with exit code 4, such as 90s, 10m, 2h; the migration goes on
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub timeout: Option<Period>,
    /// Lines instead of bars, on a terminal too
    #[arg(long)]
    pub plain: bool,
}

/// `watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The VmMigration
    pub name: String,
    /// How it is followed.
    #[command(flatten)]
    pub follow: FollowArgs,
}

/// `wait`
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Which migrations.
    #[command(flatten)]
    pub which: Several,
    /// Wait no longer than this, such as 90s, 10m, 2h; unset: for ever
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub timeout: Option<Period>,
}

/// One migration or several.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Several {
    /// The VmMigration
    pub name: Option<String>,
    /// Those with these labels
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// All of the namespace
    #[arg(long)]
    pub all: bool,
}

/// `attach`
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The VmMigration
    pub name: String,
    /// A script for a phase or for a hook of this name; can be repeated
    #[arg(long = "hook", value_name = "PHASE=SCRIPT", required = true)]
    pub hooks: Vec<ScriptFor>,
    /// How it is followed.
    #[command(flatten)]
    pub follow: FollowArgs,
}

/// `cutover`
#[derive(Debug, Args)]
pub struct CutoverArgs {
    /// The VmMigration, and how long its answer is waited for.
    #[command(flatten)]
    pub named: NamedArgs,
    /// Not now but at this time, such as 2030-08-29T22:00:00+02:00
    #[arg(long, value_name = "TIME", value_parser = super::verbs::time)]
    pub at: Option<jiff::Timestamp>,
    /// Until when the source may be stopped for that time, later it waits for you; unset: an hour after it
    #[arg(long, value_name = "TIME", value_parser = super::verbs::time, requires = "at")]
    pub not_after: Option<jiff::Timestamp>,
}

/// A migration that is asked for something.
#[derive(Debug, Args)]
pub struct NamedArgs {
    /// The VmMigration
    pub name: String,
    /// How long the operator's answer is waited for
    #[arg(long, value_name = "TIME", value_parser = period, default_value = "60s")]
    pub wait: Period,
}

/// A migration.
#[derive(Debug, Args)]
pub struct NamedOnly {
    /// The VmMigration
    pub name: String,
}

/// What cannot be taken back.
#[derive(Debug, Args)]
pub struct SureArgs {
    /// The VmMigration, and how long its answer is waited for.
    #[command(flatten)]
    pub named: NamedArgs,
    /// The server's name, instead of typing it when asked
    #[arg(long, value_name = "SERVER")]
    pub yes_i_mean: Option<String>,
}

/// `start-source`
#[derive(Debug, Args)]
pub struct StartSourceArgs {
    /// The VmMigration, and how long its answer is waited for.
    #[command(flatten)]
    pub named: NamedArgs,
    /// The id of the old server, instead of typing it when asked
    #[arg(long, value_name = "SERVER-ID")]
    pub yes_i_mean: Option<String>,
}

/// `list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// How to print them
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Listing,
}

/// `report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The VmMigration or the VmMigrationReport
    pub name: String,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Evidence,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The OpenStackCloud to migrate from; unset: all are looked at
    #[arg(long, value_name = "CLOUD")]
    pub from: Option<String>,
    /// The OpenStackCloud to migrate to
    #[arg(long, value_name = "CLOUD")]
    pub to: Option<String>,
    /// The ObjectStore; unset: the only one of the namespace
    #[arg(long)]
    pub store: Option<String>,
}

/// `diagnose`
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// The VmMigration
    pub name: String,
    /// Where to write it; unset: diagnose-NAME-TIME.tar.gz here
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The operator's namespace, whose logs are taken if you may read them
    #[arg(long, value_name = "NAMESPACE", default_value = "vmmigration-system")]
    pub operator_namespace: String,
}

/// `completion`
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell
    pub shell: Shell,
}

/// Where a dry run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Here.
    Client,
    /// In the cluster, which checks it.
    Server,
}

/// How one object is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// For people.
    Table,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Evidence {
    /// For people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// For a ticket or a page.
    Markdown,
}

/// A time as the API writes it, and more than none.
fn period(text: &str) -> Result<Period, String> {
    let period = Period(text.into());
    if period.seconds() > 0 { Ok(period) } else { Err("needed is a time such as 90s, 10m, 1h30m, 2d".into()) }
}

fn mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.into(), to.into())),
        _ => Err("needed is FROM=TO".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// Every example of every help text is a call that is understood.
    #[test]
    fn every_help_text_teaches_by_examples_that_work() {
        let scripts = tempfile::tempdir().unwrap();
        for name in ["stop-app.sh", "ready.sh"] {
            std::fs::write(scripts.path().join(name), "true\n").unwrap();
        }
        let mut command = Cli::command();
        command.build();
        let all =
            std::iter::once(&command).chain(command.get_subcommands().filter(|c| c.get_name() != "help"));
        for one in all {
            let name = one.get_name();
            assert!(one.get_about().is_some() && one.get_long_about().is_some(), "{name} has no help");
            let after = one.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> = after.lines().filter(|l| l.starts_with("  kubectl ")).collect();
            assert!(!examples.is_empty(), "{name} has no example");
            for example in examples {
                let here = example.replace("./", &format!("{}/", scripts.path().display()));
                let words = here.split_whitespace().skip(1);
                assert!(Cli::try_parse_from(words).is_ok(), "{name}: {example}");
            }
        }
    }

    #[test]
    fn every_help_text_can_be_printed() {
        let mut command = Cli::command();
        command.build();
        for one in command.get_subcommands_mut() {
            let help = one.render_long_help().to_string();
            assert!(help.contains("Usage: kubectl vmmigration"), "{help}");
        }
    }

    #[test]
    fn nonsense_is_refused_before_anything_is_asked() {
        for words in [
            "watch web-1 --timeout never",
            "watch web-1 --timeout 0s",
            "create --from a --server s --to b --network lan",
            "create --from a --server s --to b --cutover soon",
            "attach web-1",
            "attach web-1 --hook ./no-phase.sh",
            "attach web-1 --hook BeforeStop=./does-not-exist.sh",
            "run -f x.yaml --from a",
            "create --client-hook Sometime --from a --server s --to b",
            "cutover web-1 --at yesterday",
            "cutover web-1 --not-after 2999-01-01T00:00:00Z",
            "create --from a --server s --to b --cutover Now --not-after soon",
            "start-source web-1 --yes-i-mean",
        ] {
            let words = std::iter::once("kubectl-vmmigration").chain(words.split(' '));
            let error = Cli::try_parse_from(words.clone()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{words:?}: {error}");
        }
    }
}
