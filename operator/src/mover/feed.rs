//! `mover feed`: what restic starts to read from. Passes on an exact number of bytes, or fails.
//!
//! The agent reads, hashes and retries; it hands the bytes over through a named pipe. An agent that dies leaves a
//! short stream behind: then this fails, and restic saves nothing.

use std::{
    fs::File,
    io::{self, Read},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::source::READ;

/// Copies `bytes` bytes from a file or a named pipe to stdout.
pub fn feed(from: &Path, bytes: u64) -> io::Result<()> {
    let mut out = raw_stdout()?;
    // Not waiting for somebody to open the other end: whoever started restic did, or is dead.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let from = File::options().read(true).custom_flags(flags).open(from)?;
    fcntl_setfl(&from, fcntl_getfl(&from)? - OFlags::NONBLOCK)?;
    let copied = io::copy(&mut from.take(bytes), &mut out)?;
    if copied == bytes {
        return Ok(());
    }
    Err(io::Error::other(format!("{copied} of {bytes} bytes arrived; whoever sent them gave up")))
}

/// Our stdout as a plain file without std's line buffer, its pipe made larger where it is one.
fn raw_stdout() -> io::Result<File> {
    let fd = io::stdout().as_fd().try_clone_to_owned()?;
    // Only speed depends on it: no pipe, or no right to a larger one.
    let _ = rustix::pipe::fcntl_setpipe_size(&fd, READ);
    Ok(File::from(fd))
}
