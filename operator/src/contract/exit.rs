//! Exit codes of a mover. They say what the termination message says, for people who look at pods.

use super::{FailureReason, Outcome};

/// Another attempt may work.
pub const RETRYABLE: u8 = 1;
/// Somebody has to change something first.
pub const TERMINAL: u8 = 2;
/// Ended by SIGTERM.
pub const TERMINATED: u8 = 143;
/// A script took too long; as `timeout` of coreutils has it.
pub const TIMED_OUT: u8 = 124;
/// There was no SSH session; as ssh itself has it.
pub const SSH_FAILED: u8 = 255;

/// The exit code that belongs to an outcome.
pub fn code<T>(outcome: &Outcome<T>) -> u8 {
    match outcome {
        Outcome::Ok(_) => 0,
        Outcome::Failed(failure) if failure.reason == FailureReason::Terminated => TERMINATED,
        Outcome::Failed(failure) if failure.retryable => RETRYABLE,
        Outcome::Failed(_) => TERMINAL,
    }
}
