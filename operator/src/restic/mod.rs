//! restic as a child process: command lines, JSON output, exit codes.

mod command;
pub mod key_file;
mod output;
mod process;

pub use command::{BackupArgs, Restic, Traffic, program_from_environment};
pub use output::{BackupSummary, Complaints, Line, StderrTail};
pub use process::{Child, Finished, ResticError};
