//! `mover ssh`: runs a script in a guest with the OpenSSH client, which trusts no host key but the given ones.
//!
//! Script and variables travel on the session's input, before the document that the script reads there: nothing of
//! them is an argument, here or in the guest, and a server's limit for the length of a command does not matter.

use std::{
    fmt::Write as _,
    fs, io,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    process::Command,
    time::{sleep, timeout},
};

use crate::{
    contract::{host_key, shorten},
    net::AddressCheck,
};

/// Between two tries to get a connection.
const INTERVAL: Duration = Duration::from_secs(2);
/// For one connection, up to the server's greeting, in seconds.
const CONNECT_SECONDS: u64 = 10;
/// What ssh itself ends with when it fails.
const SSH_FAILED: i32 = 255;
/// The script's last line: without it, not all of it has arrived.
const WHOLE: &str = "#vmmigration-end";
/// Under which the host keys are filed, whatever the address is.
const ALIAS: &str = "guest";

/// Files in the private directory, which is ssh's working directory.
const KEY: &str = "key";
const KNOWN_HOSTS: &str = "known_hosts";
const LOG: &str = "log";

/// Whom to speak to, and how to know him.
#[derive(Debug, Clone)]
pub struct Target {
    /// The user to log in as.
    pub user: String,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The private key.
    pub key_file: PathBuf,
    /// Public host keys; one of them must be the server's.
    pub host_keys: Vec<String>,
}

/// What the guest's `sh` runs.
#[derive(Clone, Default)]
pub struct Script {
    /// The script.
    pub text: String,
    /// Exported to it.
    pub variables: Vec<(String, String)>,
    /// What it reads on its standard input.
    pub document: Vec<u8>,
}

/// Where the script's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// To our own.
    Inherited,
    /// Nowhere.
    Discarded,
}

/// Why there is no exit code of the script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshError {
    /// Time was up.
    #[error("{0}")]
    TimedOut(String),
    /// No other try would help.
    #[error("{0}")]
    Failed(String),
}

/// Runs the script and gives its exit code. Until the server has let us in it is tried again; after that, never.
pub async fn run(
    target: &Target,
    script: &Script,
    output: Output,
    limit: Duration,
    policy: &AddressCheck,
) -> Result<i32, SshError> {
    let session = Session::open(target).map_err(SshError::Failed)?;
    let mut last = "nothing was tried".to_string();
    let work = async {
        for attempt in 0.. {
            match session.attempt(attempt, script, output, policy).await {
                Ended::Exit(code) => return Ok(code),
                Ended::Failed(why) => return Err(SshError::Failed(why)),
                Ended::Again(why) => {
                    tracing::debug!(attempt, why, "no SSH session yet");
                    last = why;
                }
            }
            sleep(INTERVAL).await;
        }
        Err(SshError::Failed("tried too often".into()))
    };
    let ended = timeout(limit, work).await;
    ended.unwrap_or_else(|_| Err(SshError::TimedOut(session.late(limit, &last))))
}

/// How one run of ssh ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Exit(i32),
    Again(String),
    Failed(String),
}

/// The private directory with the key as ssh wants it (a mounted Secret is readable by a group, which ssh refuses) and
/// the file of known hosts.
struct Session<'a> {
    target: &'a Target,
    directory: TempDir,
}

impl<'a> Session<'a> {
    fn open(target: &'a Target) -> Result<Self, String> {
        let key = fs::read_to_string(&target.key_file)
            .map_err(|e| format!("the private key {} cannot be read: {e}", target.key_file.display()))?;
        let hosts = known_hosts(&target.host_keys)?;
        let directory = TempDir::new().map_err(|e| format!("no private directory can be made: {e}"))?;
        let write = |name, text: &str| {
            private_file(&directory.path().join(name), text).map_err(|e| format!("{name}: {e}"))
        };
        // Editors and web forms lose the last line's end, and ssh then finds the key broken.
        write(KEY, &format!("{}\n", key.replace("\r\n", "\n").trim_end()))?;
        write(KNOWN_HOSTS, &hosts)?;
        Ok(Self { target, directory })
    }

    async fn attempt(&self, attempt: usize, script: &Script, output: Output, policy: &AddressCheck) -> Ended {
        let address = match self.address(attempt, policy).await {
            Ok(address) => address,
            Err(ended) => return ended,
        };
        match self.run_once(address, script, output).await {
            Ok(code) => judge(code, &self.log(), &self.at(address)),
            Err(error) => Ended::Failed(format!("ssh cannot be run: {error}")),
        }
    }

    /// The addresses of a name are tried one after the other. One that is refused refuses the name.
    async fn address(&self, attempt: usize, policy: &AddressCheck) -> Result<IpAddr, Ended> {
        let host = self.target.host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((host, self.target.port)).await;
        let found: Vec<IpAddr> = found
            .map_err(|e| Ended::Again(format!("{host} has no address: {e}")))?
            .map(|socket| socket.ip())
            .collect();
        found.iter().try_for_each(|ip| policy(*ip)).map_err(Ended::Failed)?;
        let one = attempt.checked_rem(found.len()).and_then(|n| found.get(n));
        one.copied().ok_or_else(|| Ended::Again(format!("{host} has no address")))
    }

    async fn run_once(&self, address: IpAddr, script: &Script, output: Output) -> io::Result<Option<i32>> {
        let _ = fs::remove_file(self.directory.path().join(LOG));
        let sent = script.sent();
        let mut command = self.command(address, sent.len());
        if output == Output::Discarded {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        let feed = async {
            if let Some(mut input) = input {
                // A script need not read what it is given, and ssh may end before it took anything.
                let _ = input.write_all(sent.as_bytes()).await;
                let _ = input.write_all(&script.document).await;
            }
            // A script that waits for more waits for the end of its time.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            status = child.wait() => status.map(|s| s.code()),
            () = feed => Ok(None),
        }
    }

    /// No setting of the image, no agent, no password, no forwarding. ssh's own words go to a file, so that the
    /// script's are not mixed with them.
    fn command(&self, address: IpAddr, bytes: usize) -> Command {
        let mut command = Command::new(program_from_environment());
        command.args(["-F", "/dev/null", "-T", "-x", "-a", "-E", LOG, "-i", KEY]);
        let file = |name: &str| format!("UserKnownHostsFile={name}");
        let options = [
            "StrictHostKeyChecking=yes".to_string(),
            file(KNOWN_HOSTS),
            "GlobalKnownHostsFile=/dev/null".into(),
            format!("HostKeyAlias={ALIAS}"),
            "UpdateHostKeys=no".into(),
            "BatchMode=yes".into(),
            "PreferredAuthentications=publickey".into(),
            "IdentitiesOnly=yes".into(),
            "IdentityAgent=none".into(),
            "ControlPath=none".into(),
            "LogLevel=VERBOSE".into(),
            "ConnectionAttempts=1".into(),
            format!("ConnectTimeout={CONNECT_SECONDS}"),
            "ServerAliveInterval=15".into(),
            "ServerAliveCountMax=4".into(),
        ];
        command.args(options.iter().flat_map(|o| ["-o", o]));
        command.args(["-l", &self.target.user, "-p", &self.target.port.to_string(), "--"]);
        command.arg(address.to_string()).arg(bootstrap(bytes));
        command.env_clear().env("HOME", self.directory.path());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.current_dir(self.directory.path()).stdin(Stdio::piped()).kill_on_drop(true);
        command
    }

    fn log(&self) -> String {
        fs::read(self.directory.path().join(LOG))
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default()
    }

    fn at(&self, address: IpAddr) -> String {
        format!("{}@{}", self.target.user, std::net::SocketAddr::new(address, self.target.port))
    }

    fn late(&self, limit: Duration, last: &str) -> String {
        let (user, host, seconds) = (&self.target.user, &self.target.host, limit.as_secs());
        if let_in(&self.log()) {
            return format!("the script did not end within {seconds} s; it may still run in {user}@{host}");
        }
        format!("no SSH session with {user}@{host} within {seconds} s; the last answer: {last}")
    }
}

impl Script {
    /// What the guest's shell reads and runs; ends with [`WHOLE`].
    fn sent(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.variables {
            let _ = writeln!(text, "export {name}={}", shell_words::quote(value));
        }
        text + &self.text + "\n" + WHOLE
    }
}

/// Reads exactly the script and leaves the rest of the input to it. A script that arrived in part is not run. Works in
/// whatever shell the user has; the script itself is run by `sh`.
fn bootstrap(bytes: usize) -> String {
    format!(
        "exec sh -c 's=$(dd bs=1 count={bytes} 2>/dev/null); case $s in *{end}) eval \"$s\";; \
         *) echo \"the script did not arrive\" >&2; exit 255;; esac'",
        end = WHOLE.replace('#', "\\#")
    )
}

fn known_hosts(keys: &[String]) -> Result<String, String> {
    if keys.is_empty() {
        return Err("no host key is known: the server could not be told from any other".into());
    }
    keys.iter().map(|key| Ok(format!("{ALIAS} {}\n", host_key(key)?))).collect()
}

fn private_file(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}

fn let_in(log: &str) -> bool {
    log.lines().any(|line| line.starts_with("Authenticated to "))
}

/// What an end of ssh means, by its own words.
fn judge(code: Option<i32>, log: &str, at: &str) -> Ended {
    let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let last = shorten(last.trim(), 200);
    match code {
        None => Ended::Failed("ssh was killed".into()),
        Some(code) if code != SSH_FAILED => Ended::Exit(code),
        Some(_) if let_in(log) => Ended::Failed(format!(
            "the connection to {at} ended before the script's exit code came, or the code was 255; \
             whether the script did its work is not known"
        )),
        Some(_) if log.contains("Host key verification failed") => Ended::Failed(wrong_host_key(log, at)),
        Some(_) if log.contains("Load key ") => Ended::Failed(format!(
            "the private key cannot be used: {}; it must be unencrypted and in OpenSSH's or PEM form",
            line_with(log, "Load key ").rsplit(": ").next().unwrap_or_default()
        )),
        Some(_) if log.contains("Permission denied (") => Ended::Failed(format!(
            "{at} refused the private key; put its public key into this user's authorized_keys in the guest"
        )),
        Some(_) if log.contains("Unable to negotiate") => {
            Ended::Failed(format!("{at}: {}", shorten(line_with(log, "Unable to negotiate"), 200)))
        }
        Some(_) => Ended::Again(last),
    }
}

fn wrong_host_key(log: &str, at: &str) -> String {
    let mut words = log.split_whitespace().map(|word| word.trim_end_matches('.'));
    let shown = words.rfind(|word| word.starts_with("SHA256:"));
    let shown = shown.map_or(String::new(), |key| format!(" ({key})"));
    format!(
        "{at} has a host key{shown} that is none of the known ones; nothing was sent. cloud-init makes new ones for a new \
         instance: let the guest print them on its console, have it keep the old ones, or name the new one in hostKey"
    )
}

fn line_with<'a>(log: &'a str, text: &str) -> &'a str {
    log.lines().find(|line| line.contains(text)).unwrap_or_default().trim()
}

/// The variables that a script in the guest gets: our own `VMM_*`.
pub(super) fn variables() -> Vec<(String, String)> {
    let name =
        |name: &str| name.starts_with("VMM_") && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let all = std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
    let mut found: Vec<_> = all.filter(|(n, _)| name(n)).collect();
    found.sort();
    found
}

/// The client to run: `$SSH`, else `ssh` from the path.
fn program_from_environment() -> PathBuf {
    std::env::var_os("SSH").map_or_else(|| PathBuf::from("ssh"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHxVNrdUMyEeQmxaOXLMud0uwgOFNu0sqwMoly0uKS0C";

    #[test]
    fn the_line_trusts_nothing_and_shows_nothing() {
        let directory = TempDir::new().unwrap();
        let key_file = directory.path().join("mounted");
        fs::write(&key_file, "secret-key\r\nmore").unwrap();
        let host_keys = vec![format!("{HOST_KEY} root@vm")];
        let target =
            Target { user: "admin".into(), host: "guest.test".into(), port: 2222, key_file, host_keys };
        let session = Session::open(&target).unwrap();
        let command = session.command("2001:db8::1".parse().unwrap(), 12);
        let words: Vec<_> = command.as_std().get_args().map(|w| w.to_string_lossy().into_owned()).collect();
        let expected = "-F /dev/null -T -x -a -E log -i key -o StrictHostKeyChecking=yes -o UserKnownHostsFile=known_hosts \
            -o GlobalKnownHostsFile=/dev/null -o HostKeyAlias=guest -o UpdateHostKeys=no -o BatchMode=yes \
            -o PreferredAuthentications=publickey -o IdentitiesOnly=yes -o IdentityAgent=none -o ControlPath=none \
            -o LogLevel=VERBOSE -o ConnectionAttempts=1 -o ConnectTimeout=10 -o ServerAliveInterval=15 \
            -o ServerAliveCountMax=4 -l admin -p 2222 -- 2001:db8::1";
        assert_eq!(words[..words.len() - 1].join(" "), expected);
        assert_eq!(words.last(), Some(&bootstrap(12)));
        let file = |name: &str| session.directory.path().join(name);
        assert_eq!(fs::read_to_string(file(KNOWN_HOSTS)).unwrap(), format!("guest {HOST_KEY}\n"));
        assert_eq!(fs::read_to_string(file(KEY)).unwrap(), "secret-key\nmore\n");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(file(KEY)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let names: Vec<_> = command.as_std().get_envs().map(|(name, _)| name.to_owned()).collect();
        assert!(names.iter().all(|name| name == "HOME" || name == "PATH"), "{names:?}");
    }

    #[test]
    fn without_a_good_host_key_nothing_begins() {
        assert!(known_hosts(&[]).unwrap_err().contains("no host key"));
        assert!(known_hosts(&[HOST_KEY.into(), "ssh-ed25519 AAAA".into()]).is_err());
    }

    /// The same bytes through a shell, as the guest's server starts it.
    fn through_a_shell(script: &Script, cut: usize) -> (Option<i32>, String) {
        let sent = script.sent();
        let mut input = sent.as_bytes()[..sent.len() - cut].to_vec();
        input.extend(&script.document);
        let mut child = std::process::Command::new("sh")
            .args(["-c", &bootstrap(sent.len())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _ = io::Write::write_all(&mut child.stdin.take().unwrap(), &input);
        let ended = child.wait_with_output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stdout).unwrap())
    }

    #[test]
    fn variables_script_and_document_arrive_as_they_are() {
        let odd = "it's \"odd\" $HOME `id` \\ \n #x!";
        let text = "cat\nprintf '%s|' \"$VMM_ODD\" \"$VMM_EMPTY\"\nexit 7 # it's over";
        let script = Script {
            text: text.into(),
            variables: vec![("VMM_ODD".into(), odd.into()), ("VMM_EMPTY".into(), String::new())],
            document: b"{\"a\": \"b\"}\n\n".to_vec(),
        };
        assert_eq!(through_a_shell(&script, 0), (Some(7), format!("{{\"a\": \"b\"}}\n\n{odd}||")));
    }

    #[test]
    fn half_a_script_is_not_run() {
        let script = Script { text: "echo begun\necho done\n".into(), ..Default::default() };
        assert_eq!(through_a_shell(&script, 0), (Some(0), "begun\ndone\n".into()));
        assert_eq!(through_a_shell(&script, 1), (Some(255), String::new()));
        assert_eq!(through_a_shell(&script, 24), (Some(255), String::new()));
    }

    #[test]
    fn ends_are_judged_by_what_ssh_says() {
        let failed = |log: &str| match judge(Some(255), log, "root@h:22") {
            Ended::Failed(why) => why,
            other => panic!("{log}: {other:?}"),
        };
        let inside =
            "Authenticated to h ([h]:22) using \"publickey\".\nBytes per second: sent 1, received 1\n";
        assert_eq!(judge(Some(7), inside, ""), Ended::Exit(7));
        assert_eq!(judge(Some(0), "", ""), Ended::Exit(0));
        assert!(failed(inside).contains("not known"));
        assert!(
            failed("No RSA host key is known for guest\nHost key verification failed.")
                .contains("nothing was sent")
        );
        let changed = failed(
            "The fingerprint for the ED25519 key sent by the remote host is\nSHA256:abc.\nHost key verification failed.",
        );
        assert!(changed.contains("(SHA256:abc)"), "{changed}");
        assert!(failed("root@h: Permission denied (publickey).").contains("authorized_keys"));
        let broken = failed("Load key \"key\": error in libcrypto\nroot@h: Permission denied (publickey).");
        assert!(broken.contains("cannot be used: error in libcrypto"), "{broken}");
        for passing in [
            "ssh: connect to host h port 22: Connection refused",
            "kex_exchange_identification: read: Connection reset by peer\nConnection reset by h port 22\n\n",
            "",
        ] {
            assert!(matches!(judge(Some(255), passing, "h"), Ended::Again(_)), "{passing}");
        }
        assert!(matches!(judge(None, inside, "h"), Ended::Failed(_)));
    }
}
