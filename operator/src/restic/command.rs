//! Command lines and environment of restic. No secret is ever an argument.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use super::output::Complaints;
use crate::{contract::SnapshotId, store::StoreKeys};

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
    /// The store's keys.
    pub keys: StoreKeys,
    /// The store's CA.
    pub cacert: Option<PathBuf>,
    /// Temporary files and the cache go below.
    pub scratch: PathBuf,
    /// For each process.
    pub traffic: Traffic,
    /// What its processes say about calls that they make again.
    pub complaints: Complaints,
}

/// How one restic process may use network and store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Connections to the store at once.
    pub connections: u16,
    /// KiB a second to the store; 0 for no limit.
    pub upload_kib: u64,
    /// KiB a second from the store; 0 for no limit.
    pub download_kib: u64,
}

/// A stream that becomes the only file of a snapshot.
#[derive(Debug, Clone)]
pub struct BackupArgs {
    /// The file's name.
    pub file: String,
    /// Becomes the snapshot's host.
    pub host: String,
    /// Joined by commas.
    pub tags: String,
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
        line.extend(["--stdin-filename".into(), OsString::from(&args.file)]);
        line.extend(["--host".into(), OsString::from(&args.host)]);
        line.extend(["--tag".into(), OsString::from(&args.tags)]);
        line.push("--no-scan".into());
        if args.no_extra_verify {
            line.push("--no-extra-verify".into());
        }
        line.push("--".into());
        line.extend(args.feed.iter().cloned());
        self.command(line)
    }

    /// `restic dump` of a snapshot's file to stdout. Takes no lock.
    pub fn dump(&self, snapshot: &SnapshotId, file: &str) -> Command {
        self.command(["--no-lock", "dump", snapshot.as_str(), &format!("/{file}")].map(OsString::from))
    }

    /// `restic snapshots` of those that have all of the tags. Takes no lock.
    pub fn snapshots(&self, tags: &str) -> Command {
        self.command(["--no-lock", "snapshots", "--tag", tags].map(OsString::from))
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
        let backend = self.repository.split(':').next().unwrap_or_default();
        if backend == "s3" {
            // As our own client speaks: with stores that know no bucket names in their host name, too.
            command.args(["-o", "s3.bucket-lookup=path"]);
        }
        if matches!(backend, "s3" | "rest" | "swift") {
            command.arg("-o").arg(format!("{backend}.connections={}", self.traffic.connections));
        }
        for (option, kib) in
            [("--limit-upload", self.traffic.upload_kib), ("--limit-download", self.traffic.download_kib)]
        {
            if kib > 0 {
                command.arg(option).arg(kib.to_string());
            }
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
            .env("GOMAXPROCS", "2")
            // A soft limit: the collector works harder before the Job's own limit is reached.
            .env("GOMEMLIMIT", "200MiB");
        command.envs(self.keys.environment());
    }
}

impl fmt::Debug for Restic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restic").field("repository", &self.repository).finish_non_exhaustive()
    }
}

/// The binary to run: `$RESTIC`, else `restic` from the path.
pub fn program_from_environment() -> PathBuf {
    std::env::var_os("RESTIC").map_or_else(|| Path::new("restic").to_path_buf(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restic() -> Restic {
        let location = crate::store::ObjectStoreLocation::parse("s3:https://h/b/p/n/u").unwrap();
        let value = |name| match name {
            "AWS_ACCESS_KEY_ID" => Some("key-id".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("secret-key".to_owned()),
            "AWS_SESSION_TOKEN" => Some("session-token".to_owned()),
            "AWS_DEFAULT_REGION" => Some("eu-north-7".to_owned()),
            _ => None,
        };
        let keys = StoreKeys::find(&location, |name| Ok::<_, crate::store::StoreError>(value(name))).unwrap();
        Restic {
            program: "/bin/restic".into(),
            repository: "s3:https://h/b/p/n/u".into(),
            guard: None,
            password_file: "/config/restic-password".into(),
            keys,
            cacert: Some("/config/store-cacert".into()),
            scratch: "/scratch".into(),
            traffic: Traffic { connections: 16, upload_kib: 0, download_kib: 100 },
            complaints: Complaints::default(),
        }
    }

    fn words(command: &Command) -> Vec<String> {
        command.as_std().get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    fn snapshot() -> SnapshotId {
        "ab".repeat(32).parse().unwrap()
    }

    fn backup_args() -> BackupArgs {
        BackupArgs {
            file: "segment".into(),
            host: "u-1".into(),
            tags: "mig=u-1,disk=2".into(),
            no_extra_verify: true,
            feed: vec!["/x".into(), "mover".into()],
        }
    }

    const GLOBAL: &str = "--json -o s3.bucket-lookup=path -o s3.connections=16 --limit-download 100 --cacert /config/store-cacert";

    #[test]
    fn the_backup_line() {
        let expected = "backup --force --stdin-from-command --stdin-filename segment --host u-1 \
            --tag mig=u-1,disk=2 --no-scan --no-extra-verify -- /x mover";
        assert_eq!(words(&restic().backup(&backup_args())).join(" "), format!("{GLOBAL} {expected}"));
    }

    #[test]
    fn the_lines_that_read() {
        let expected = format!("{GLOBAL} --no-lock dump {} /segment", "ab".repeat(32));
        assert_eq!(words(&restic().dump(&snapshot(), "segment")).join(" "), expected);
        let expected = format!("{GLOBAL} --no-lock snapshots --tag a=1,b=2");
        assert_eq!(words(&restic().snapshots("a=1,b=2")).join(" "), expected);
        let rest = Restic { repository: "rest:https://h/p".into(), ..restic() };
        assert!(words(&rest.snapshots("a")).join(" ").starts_with("--json -o rest.connections=16 "));
    }

    #[test]
    fn no_secret_in_any_line_and_a_clean_environment() {
        let restic = restic();
        for command in [
            restic.cat_config(),
            restic.init(),
            restic.backup(&backup_args()),
            restic.dump(&snapshot(), "segment"),
            restic.snapshots("a"),
        ] {
            let line = words(&command).join(" ");
            for secret in ["key-id", "secret-key", "session-token"] {
                assert!(!line.contains(secret), "{line}");
            }
            let names: Vec<_> = command.as_std().get_envs().map(|(name, _)| name.to_owned()).collect();
            for name in ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"] {
                assert!(names.iter().any(|other| other == name), "{name}");
            }
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
