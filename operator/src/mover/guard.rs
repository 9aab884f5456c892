//! `mover guard`: becomes another program that dies with its parent.
//!
//! restic must not go on writing when the mover was killed. The kernel can see to it, but only the child itself
//! may ask, between fork and exec; a small step of our own in between does so without unsafe code.

use std::{ffi::OsString, io, os::unix::process::CommandExt, process::Command};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Becomes `command`, unless the parent is gone already. Returns only on failure.
pub fn exec(parent: u32, command: &[OsString]) -> io::Error {
    // SIGTERM, so that restic releases its lock.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    // The parent may have died before the kernel was asked.
    let now = getppid().map(|pid| pid.as_raw_nonzero().get());
    if now.and_then(|pid| u32::try_from(pid).ok()) != Some(parent) {
        return io::Error::other("the parent is gone");
    }
    match command.split_first() {
        Some((program, arguments)) => Command::new(program).args(arguments).exec(),
        None => io::Error::other("no program given"),
    }
}
