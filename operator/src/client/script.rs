//! Runs one script of this machine: its input, its output to the terminal, and its end.

use crate::{crd::v1alpha1::OUTPUT_BYTES, migration::hook_context::HookContext};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{sleep, timeout},
};

/// How long a script has between the request to end and the end.
const GRACE: Duration = Duration::from_secs(5);

/// How long output is waited for that something in the background may still write.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Of a line that does not end this much is printed at once.
const LONGEST_LINE: usize = 8192;

/// The exit code of a script that took too long, as of `timeout`.
pub const TOOK_TOO_LONG: i32 = 124;

/// A script that runs, with everything that it has started.
pub struct Running {
    child: Child,
    group: Option<Pid>,
    output: UnboundedReceiver<Vec<u8>>,
    tail: Vec<u8>,
    line: Vec<u8>,
    print: UnboundedSender<String>,
}

/// Starts a script: the file itself if it is executable, else by bash. It is the head of a process group of its own.
pub fn start(path: &Path, context: &HookContext, print: UnboundedSender<String>) -> std::io::Result<Running> {
    let executable = std::fs::metadata(path)?.permissions().mode() & 0o111 != 0;
    let mut command = Command::new(if executable { path } else { Path::new("bash") });
    if !executable {
        command.arg(path);
    }
    command.envs(&context.env).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(mut input) = child.stdin.take() {
        let document = context.document.to_string();
        // A script that does not read it closes it; that is no error.
        tokio::spawn(async move { input.write_all(document.as_bytes()).await });
    }
    let (sender, output) = unbounded_channel();
    forward(child.stdout.take(), sender.clone());
    forward(child.stderr.take(), sender);
    Ok(Running { child, group, output, tail: vec![], line: vec![], print })
}

fn forward(from: Option<impl AsyncRead + Unpin + Send + 'static>, to: UnboundedSender<Vec<u8>>) {
    let Some(mut from) = from else { return };
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if to.send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
}

impl Running {
    /// Waits for its end and gives its exit code. Can be dropped and called again.
    pub async fn wait(&mut self) -> std::io::Result<i32> {
        let status = loop {
            tokio::select! {
                Some(bytes) = self.output.recv() => self.take(&bytes),
                status = self.child.wait() => break status?,
            }
        };
        // Something in the background may keep the output open for ever.
        while let Ok(Some(bytes)) = timeout(LAST_WORDS, self.output.recv()).await {
            self.take(&bytes);
        }
        self.flush();
        Ok(exit_code(status))
    }

    /// Ends it, with everything that it has started.
    pub async fn kill(&mut self) {
        self.signal(Signal::TERM);
        tokio::select! {
            _ = self.wait() => {}
            () = sleep(GRACE) => {}
        }
        self.signal(Signal::KILL);
        let _ = self.child.kill().await;
    }

    /// The end of what it wrote.
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // An error: the group is empty.
            let _ = kill_process_group(group, signal);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        // Twice as much is kept: the first bytes may be the rest of a character.
        let surplus = self.tail.len().saturating_sub(2 * OUTPUT_BYTES);
        self.tail.drain(..surplus);
        for byte in bytes {
            if *byte == b'\n' || self.line.len() >= LONGEST_LINE {
                self.flush();
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
    }

    fn flush(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            // Nobody listens any more: the client is ending.
            let _ = self.print.send(String::from_utf8_lossy(&line).into_owned());
        }
    }
}

/// As a shell tells it: 128 and the signal, where one ended it.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn context() -> HookContext {
        let name = "it's \"web\" 1";
        HookContext {
            env: BTreeMap::from([("VMM_SOURCE_SERVER_NAME", name.to_string())]),
            document: json!({"source": {"serverName": name}}),
        }
    }

    async fn run(text: &str, mode: u32) -> (i32, String, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a script");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let (sender, mut lines) = unbounded_channel();
        let mut running = start(&path, &context(), sender).unwrap();
        let code = running.wait().await.unwrap();
        let tail = String::from_utf8_lossy(running.tail()).into_owned();
        drop(running);
        let mut printed = vec![];
        while let Some(line) = lines.recv().await {
            printed.push(line);
        }
        (code, tail, printed)
    }

    #[tokio::test]
    async fn environment_input_output_and_exit_code() {
        let (code, tail, printed) = run("echo \"$VMM_SOURCE_SERVER_NAME\"; cat; exit 7", 0o600).await;
        assert_eq!(code, 7);
        assert_eq!(tail, "it's \"web\" 1\n{\"source\":{\"serverName\":\"it's \\\"web\\\" 1\"}}");
        assert_eq!(printed.len(), 2);
    }

    #[tokio::test]
    async fn an_executable_file_runs_by_itself() {
        let (code, _, printed) = run("#!/bin/sh\necho \"${BASH_VERSION:-no bash}\"\n", 0o700).await;
        assert_eq!((code, printed), (0, vec!["no bash".to_string()]));
    }

    #[tokio::test]
    async fn a_megabyte_in_one_line_is_printed_in_pieces_and_its_end_is_kept() {
        let (code, tail, printed) = run("head -c 1000000 /dev/zero | tr '\\0' x; echo end >&2", 0o600).await;
        assert_eq!(code, 0);
        assert!(tail.len() <= 2 * OUTPUT_BYTES && printed.iter().all(|l| l.len() <= LONGEST_LINE));
    }

    #[tokio::test]
    async fn what_ends_by_a_signal_has_failed() {
        assert_eq!(run("kill -TERM $$", 0o600).await.0, 143);
    }

    #[tokio::test]
    async fn a_daemon_in_the_background_does_not_hold_the_end_up() {
        let (code, _, printed) = run("sleep 600 & echo $!", 0o600).await;
        assert_eq!(code, 0);
        let daemon = Pid::from_raw(printed[0].parse().unwrap()).unwrap();
        rustix::process::kill_process(daemon, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn killing_ends_its_children_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("script");
        std::fs::write(&path, "sleep 600 & echo $!; wait").unwrap();
        let (sender, mut lines) = unbounded_channel();
        let mut running = start(&path, &context(), sender).unwrap();
        let child = tokio::select! {
            line = lines.recv() => line.unwrap(),
            _ = running.wait() => panic!("it ended"),
        };
        running.kill().await;
        let child = Pid::from_raw(child.parse().unwrap()).unwrap();
        // The signal is on its way; a process that nobody waits for stays a zombie, and is dead all the same.
        let lives = || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero()));
            state.is_ok_and(|s| !s.contains(") Z "))
        };
        tokio::time::timeout(GRACE, async {
            while lives() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}
