//! The signals that ask any of our programs to end: SIGTERM, and SIGINT of a Ctrl-C.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, caught from [`StopSignals::listen`] on. Who asks again and again keeps one: what comes while nobody
/// waits is remembered by it, and lost to one that is made anew.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Starts to catch them; an error where the system does not let us.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them. Nothing is lost when this is dropped and called again.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
