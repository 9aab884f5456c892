//! Command lines and environment of restic. No secret is ever an argument.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
};

use tokio::process::Command;

use crate::store::StoreKeys;

/// A snapshot's full id: 64 hex digits. "latest" and short ids cannot be named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotId(String);

impl SnapshotId {
    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() == 64 && text.bytes().all(hex) {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(format!("{shown:?} is no full snapshot id: 64 lower-case hex digits are needed"))
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One repository and how restic reaches it.
#[derive(Clone)]
pub struct Restic {
    /// The binary.
    pub program: PathBuf,
    /// In restic's form, without user info.
    pub repository: String,
    /// Our own binary; when set, restic is started through `mover guard`, which ties its life to ours.
    pub guard: Option<PathBuf>,
    /// Holds the repository's password.
    pub password_file: PathBuf,
    /// The store's keys; `None` for a repository that needs none.
    pub keys: Option<StoreKeys>,
    /// The store's CA.
    pub cacert: Option<PathBuf>,
    /// Temporary files and the cache go below.
    pub scratch: PathBuf,
}

/// What a backup of one disk needs besides the repository.
#[derive(Debug, Clone)]
pub struct BackupArgs {
    /// Number of the disk.
    pub disk: u32,
    /// The migration; becomes the snapshot's host and tag.
    pub uid: String,
    /// Saves a second look at every saved blob; the digests cover it.
    pub no_extra_verify: bool,
    /// The command whose stdout is saved.
    pub feed: Vec<OsString>,
}

impl Restic {
    /// `restic cat config`: whether the repository opens.
    pub fn cat_config(&self) -> Command {
        self.command(["--no-lock", "cat", "config"].map(OsString::from))
    }

    /// `restic init`.
    pub fn init(&self) -> Command {
        self.command([OsString::from("init")])
    }

    /// `restic backup` of the feed command's output. Without a parent snapshot, so that all of it is read.
    pub fn backup(&self, args: &BackupArgs) -> Command {
        let mut line = vec!["backup".into(), "--force".into(), "--stdin-from-command".into()];
        line.extend(["--stdin-filename".into(), OsString::from(file_name(args.disk))]);
        line.extend(["--host".into(), OsString::from(&args.uid)]);
        line.extend(["--tag".into(), OsString::from(format!("migration={},disk={}", args.uid, args.disk))]);
        line.push("--no-scan".into());
        if args.no_extra_verify {
            line.push("--no-extra-verify".into());
        }
        line.push("--".into());
        line.extend(args.feed.iter().cloned());
        self.command(line)
    }

    /// `restic dump` of one disk to stdout. Takes no lock; many connections, as it fetches blob by blob.
    pub fn dump(&self, snapshot: &SnapshotId, disk: u32) -> Command {
        let path = format!("/{}", file_name(disk));
        self.command(
            ["--no-lock", "-o", "s3.connections=16", "dump", snapshot.as_str(), &path].map(OsString::from),
        )
    }

    fn command(&self, arguments: impl IntoIterator<Item = OsString>) -> Command {
        let mut command = match &self.guard {
            Some(guard) => {
                let mut command = Command::new(guard);
                command
                    .args(["mover", "guard", "--parent", &std::process::id().to_string(), "--"])
                    .arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.arg("--json");
        if self.repository.starts_with("s3:") {
            // As our own client speaks: with stores that know no bucket names in their host name, too.
            command.args(["-o", "s3.bucket-lookup=path"]);
        }
        if let Some(cacert) = &self.cacert {
            command.arg("--cacert").arg(cacert);
        }
        command.args(arguments);
        self.environment(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Nothing is inherited but what a program needs to run at all.
    fn environment(&self, command: &mut Command) {
        command.env_clear();
        for name in ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", &self.scratch)
            .env("TMPDIR", &self.scratch)
            .env("RESTIC_CACHE_DIR", self.scratch.join("restic-cache"))
            .env("RESTIC_REPOSITORY", &self.repository)
            .env("RESTIC_PASSWORD_FILE", &self.password_file)
            .env("RESTIC_PROGRESS_FPS", "1")
            .env("GOMAXPROCS", "2");
        if let Some(keys) = &self.keys {
            command
                .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
                .env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key)
                .env("AWS_DEFAULT_REGION", keys.region());
            if let Some(token) = &keys.session_token {
                command.env("AWS_SESSION_TOKEN", token);
            }
        }
    }
}

impl fmt::Debug for Restic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restic").field("repository", &self.repository).finish_non_exhaustive()
    }
}

/// The name of a disk inside of its snapshot.
fn file_name(disk: u32) -> String {
    format!("disk-{disk}.img")
}

/// The binary to run: `$RESTIC`, else `restic` from the path.
pub(crate) fn program_from_environment() -> PathBuf {
    std::env::var_os("RESTIC").map_or_else(|| Path::new("restic").to_path_buf(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restic() -> Restic {
        let keys = StoreKeys {
            access_key_id: "key-id".into(),
            secret_access_key: "secret-key".into(),
            session_token: Some("session-token".into()),
            region: None,
        };
        Restic {
            program: "/bin/restic".into(),
            repository: "s3:https://h/b/p/n/u".into(),
            guard: None,
            password_file: "/config/restic-password".into(),
            keys: Some(keys),
            cacert: Some("/config/store-cacert".into()),
            scratch: "/scratch".into(),
        }
    }

    fn words(command: &Command) -> Vec<String> {
        command.as_std().get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    fn snapshot() -> SnapshotId {
        "ab".repeat(32).parse().unwrap()
    }

    #[test]
    fn the_backup_line() {
        let args = BackupArgs {
            disk: 2,
            uid: "u-1".into(),
            no_extra_verify: true,
            feed: vec!["/x".into(), "mover".into()],
        };
        let expected = "--json -o s3.bucket-lookup=path --cacert /config/store-cacert backup --force --stdin-from-command \
            --stdin-filename disk-2.img --host u-1 --tag migration=u-1,disk=2 --no-scan --no-extra-verify -- /x mover";
        assert_eq!(words(&restic().backup(&args)).join(" "), expected);
    }

    #[test]
    fn the_dump_line() {
        let expected = format!(
            "--json -o s3.bucket-lookup=path --cacert /config/store-cacert --no-lock -o s3.connections=16 dump {} /disk-7.img",
            "ab".repeat(32)
        );
        assert_eq!(words(&restic().dump(&snapshot(), 7)).join(" "), expected);
    }

    #[test]
    fn no_secret_in_any_line_and_a_clean_environment() {
        let args = BackupArgs { disk: 0, uid: "u".into(), no_extra_verify: false, feed: vec!["/x".into()] };
        let restic = restic();
        for command in [restic.cat_config(), restic.init(), restic.backup(&args), restic.dump(&snapshot(), 0)]
        {
            let line = words(&command).join(" ");
            for secret in ["key-id", "secret-key", "session-token"] {
                assert!(!line.contains(secret), "{line}");
            }
            let names: Vec<_> = command.as_std().get_envs().map(|(name, _)| name.to_owned()).collect();
            assert!(names.iter().any(|name| name == "AWS_SECRET_ACCESS_KEY"));
            assert!(!names.iter().any(|name| name == "RESTIC_PASSWORD"));
        }
        assert!(!format!("{restic:?}").contains("secret"));
    }

    #[test]
    fn only_full_ids_are_ids() {
        assert!("ab".repeat(32).parse::<SnapshotId>().is_ok());
        let bad =
            ["", "latest", "abababab", &"AB".repeat(32), &"ab".repeat(33), &"zz".repeat(32), &"é".repeat(32)];
        for text in bad {
            assert!(text.parse::<SnapshotId>().is_err(), "{text}");
        }
    }
}
