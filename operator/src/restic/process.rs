//! A running restic: its output is read, SIGTERM is passed on, its end is judged.

use std::{io, os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::output::{Complaints, StderrTail, says_expired, says_skewed};
use crate::store::says_full;

/// How long restic may take to release its lock after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(20);

/// How restic failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResticError {
    /// The binary could not be started or waited for.
    #[error("restic could not be run: {0}")]
    Spawn(String),
    /// Exit code 10.
    #[error("there is no restic repository at this location ({0})")]
    NoRepository(String),
    /// Exit code 11.
    #[error("the repository is locked ({0})")]
    Locked(String),
    /// Exit code 12.
    #[error("the repository does not open with this password ({0})")]
    WrongPassword(String),
    /// The snapshot or the disk inside of it is not there.
    #[error("restic did not find the snapshot or the disk in it ({0})")]
    SnapshotNotFound(String),
    /// The store refused the keys.
    #[error("the store refused restic's keys ({0})")]
    Unauthorized(String),
    /// The store has no room; we stopped it.
    #[error("the store is full ({0}); make room there, or raise its quota")]
    StoreFull(String),
    /// The store's clock and ours differ too much for signatures; we stopped it.
    #[error(
        "the store refused restic's signatures ({0}); set the clock that is wrong, the store's or this node's"
    )]
    ClockSkew(String),
    /// We stopped it (exit code 130, or killed after its time).
    #[error("restic was stopped by SIGTERM")]
    Terminated,
    /// Somebody else killed it.
    #[error("restic was killed by signal {0}; the memory limit of the Job may be too small")]
    Killed(i32),
    /// Any other exit code, 3 (something was not read) among them.
    #[error("restic failed with exit code {code}: {message}")]
    Failed {
        /// The exit code.
        code: i32,
        /// What restic gave as the cause.
        message: String,
    },
}

/// A restic that has ended.
#[derive(Debug)]
pub struct Finished {
    status: ExitStatus,
    stderr: StderrTail,
    stopped_by_us: bool,
}

impl Finished {
    /// Only exit code 0 is success: 3 means that a snapshot was made of less than everything.
    pub fn into_result(self) -> Result<(), ResticError> {
        if self.status.success() {
            return Ok(());
        }
        if let Some(answer) = self.stderr.full() {
            return Err(ResticError::StoreFull(answer.to_owned()));
        }
        if let Some(answer) = self.stderr.expired() {
            return Err(ResticError::Unauthorized(answer.to_owned()));
        }
        if let Some(answer) = self.stderr.skewed() {
            return Err(ResticError::ClockSkew(answer.to_owned()));
        }
        if self.stopped_by_us {
            return Err(ResticError::Terminated);
        }
        if let Some(signal) = self.status.signal() {
            return Err(ResticError::Killed(signal));
        }
        Err(judge(self.status.code().unwrap_or(-1), &self.stderr))
    }
}

fn judge(code: i32, stderr: &StderrTail) -> ResticError {
    let message = stderr.message();
    let any = |texts: &[&str]| texts.iter().any(|text| stderr.mentions(text));
    match code {
        10 => ResticError::NoRepository(message),
        11 => ResticError::Locked(message),
        12 => ResticError::WrongPassword(message),
        _ if says_full(&message) => ResticError::StoreFull(message),
        _ if says_skewed(&message) => ResticError::ClockSkew(message),
        _ if any(&["Access Denied", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
            || any(&["The Access Key Id you provided", "The request signature we calculated"])
            || says_expired(&message) =>
        {
            ResticError::Unauthorized(message)
        }
        _ if any(&["failed to find snapshot", "not found in snapshot"])
            && !any(&["timeout", "connection re"]) =>
        {
            ResticError::SnapshotNotFound(message)
        }
        code => ResticError::Failed { code, message },
    }
}

/// A running restic. Dropping it kills the process.
pub struct Child {
    child: tokio::process::Child,
    stdout: Option<ChildStdout>,
    stderr: JoinHandle<StderrTail>,
    /// It would try for a quarter of an hour what cannot work.
    hopeless: CancellationToken,
}

impl Child {
    /// Starts a command line of [`super::Restic`]. What it says about calls that it makes again goes to `complaints`.
    pub fn spawn(command: &mut Command, complaints: &Complaints) -> Result<Self, ResticError> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(|error| ResticError::Spawn(format!("{program}: {error}")))?;
        let stdout = child.stdout.take();
        let hopeless = CancellationToken::new();
        let stderr = tokio::spawn(read_stderr(child.stderr.take(), hopeless.clone(), complaints.clone()));
        Ok(Self { child, stdout, stderr, hopeless })
    }

    /// Its output; to be taken once.
    pub fn take_stdout(&mut self) -> Result<ChildStdout, ResticError> {
        self.stdout.take().ok_or_else(|| ResticError::Spawn("its output is not connected".to_owned()))
    }

    /// Waits for the end. On `cancel`, or when the store is full, its token has run out or clocks differ, it gets SIGTERM, and SIGKILL when it does not end in
    /// time.
    pub async fn wait(mut self, cancel: &CancellationToken) -> Result<Finished, ResticError> {
        let lost = |error: io::Error| ResticError::Spawn(format!("waiting for it failed: {error}"));
        let (status, stopped_by_us) = tokio::select! {
            status = self.child.wait() => (status.map_err(lost)?, false),
            () = self.hopeless.cancelled() => (self.terminate().await.map_err(lost)?, true),
            () = cancel.cancelled() => (self.terminate().await.map_err(lost)?, true),
        };
        // A grandchild may hold stderr open; what was read until now is enough then.
        let stderr = match timeout(Duration::from_secs(2), &mut self.stderr).await {
            Ok(Ok(tail)) => tail,
            _ => StderrTail::default(),
        };
        Ok(Finished { status, stderr, stopped_by_us })
    }

    /// Reads stdout line by line until its end, then waits as [`Child::wait`] does.
    pub async fn run_lines(
        mut self,
        cancel: &CancellationToken,
        mut on_line: impl FnMut(&str),
    ) -> Result<Finished, ResticError> {
        let mut lines = BufReader::new(self.take_stdout()?).lines();
        let read = async {
            while let Ok(Some(line)) = lines.next_line().await {
                on_line(&line);
            }
        };
        let (finished, ()) = tokio::join!(self.wait(cancel), read);
        finished
    }

    /// Reads stdout to its end, then waits as [`Child::wait`] does. More than `limit` bytes are an error.
    pub async fn run_output(
        mut self,
        cancel: &CancellationToken,
        limit: u64,
    ) -> Result<(Finished, Vec<u8>), ResticError> {
        let stdout = self.take_stdout()?;
        let mut output = Vec::new();
        let read = async {
            let mut bounded = stdout.take(limit + 1);
            let read = bounded.read_to_end(&mut output).await;
            // restic must not wait for ever for somebody who takes the rest.
            drop(bounded);
            read
        };
        let (finished, read) = tokio::join!(self.wait(cancel), read);
        let lost = |why: String| ResticError::Spawn(format!("its output: {why}"));
        read.map_err(|error| lost(error.to_string()))?;
        if output.len() as u64 > limit {
            return Err(lost(format!("more than {limit} bytes")));
        }
        Ok((finished?, output))
    }

    async fn terminate(&mut self) -> io::Result<ExitStatus> {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            // It may have ended in this moment; then the wait below says so.
            let _ = kill_process(pid, Signal::TERM);
        }
        match timeout(TERM_GRACE, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.child.start_kill()?;
                self.child.wait().await
            }
        }
    }
}

async fn read_stderr(
    stderr: Option<impl AsyncRead + Unpin>,
    hopeless: CancellationToken,
    complaints: Complaints,
) -> StderrTail {
    let mut tail = StderrTail::default();
    let Some(stderr) = stderr else { return tail };
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        if let Some(complaint) = tail.push(&String::from_utf8_lossy(&line)) {
            complaints.tell(complaint);
        }
        if tail.full().or(tail.expired()).or(tail.skewed()).is_some() {
            hopeless.cancel();
        }
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(line: &str) -> StderrTail {
        let mut tail = StderrTail::default();
        let _ = tail.push(line);
        tail
    }

    #[test]
    fn exit_codes() {
        assert!(matches!(judge(10, &tail("x")), ResticError::NoRepository(_)));
        assert!(matches!(judge(11, &tail("x")), ResticError::Locked(_)));
        assert!(matches!(judge(12, &tail("x")), ResticError::WrongPassword(_)));
        assert!(matches!(judge(3, &tail("x")), ResticError::Failed { code: 3, .. }));
        assert!(matches!(judge(1, &tail("Fatal: Access Denied.")), ResticError::Unauthorized(_)));
        let expired = tail("Fatal: unable to open config file: Stat: The provided token has expired.");
        assert!(matches!(judge(1, &expired), ResticError::Unauthorized(_)));
        assert!(matches!(
            judge(1, &tail("Fatal: client.PutObject: Upload exceeds quota.")),
            ResticError::StoreFull(_)
        ));
        let missing =
            tail(r#"{"message_type":"exit_error","code":1,"message":"Fatal: failed to find snapshot: x"}"#);
        assert!(matches!(judge(1, &missing), ResticError::SnapshotNotFound(_)));
        assert!(matches!(judge(1, &tail("failed to find snapshot: timeout")), ResticError::Failed { .. }));
    }

    #[tokio::test]
    async fn a_child_is_stopped_and_judged() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap 'exit 130' TERM; echo up; while :; do sleep 0.05; done"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
        let cancel = CancellationToken::new();
        let child = Child::spawn(&mut command, &Complaints::default()).unwrap();
        let finished = child.run_lines(&cancel, |_| cancel.cancel()).await.unwrap();
        assert_eq!(finished.into_result(), Err(ResticError::Terminated));
    }
}
