//! A store, a cloud and the mover's binary, all on loopback.

pub mod cloud;
mod images;
pub mod rest;
pub mod s3;
pub mod swift;
#[path = "../common/tls.rs"]
pub mod tls;
mod versions;

use std::{
    path::PathBuf,
    process::{Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use cloud::FakeCloud;
use rest::FakeRest;
use s3::FakeS3;
use swift::FakeSwift;

pub const UID: &str = "0f5c9a52-6d8f-4a6e-9b6e-3b1f6f0c2a11";
pub const SECRET_KEY: &str = "store-secret-key";
pub const CLOUD_PASSWORD: &str = "cloud-pass-word";
pub const REPOSITORY_PASSWORD: &str = "repository-pass-word";

pub const SEGMENT: &str = "1048576";

/// The start of a backup's command line.
pub fn backup_line<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["backup", "--disk", "0", "--migration-uid", UID], more].concat()
}

/// The start of a restore's command line.
pub fn restore_line<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["restore", "--disk", "0"], more].concat()
}

/// Everything one test needs.
pub struct Bed {
    /// Where the repository is; in `s3` unless a test says otherwise.
    pub repository: String,
    pub s3: FakeS3,
    pub cloud: FakeCloud,
    pub directory: TempDir,
    /// The restic that movers use.
    pub program: PathBuf,
}

/// How a run of the binary ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub outcome: Value,
    pub stdout: String,
    /// Shown when an assertion fails.
    #[expect(dead_code, reason = "read by Debug only")]
    pub stderr: String,
}

impl Ended {
    #[track_caller]
    pub fn ok(&self) -> &Value {
        assert!(self.code == Some(0) && self.outcome["ok"] == true, "{self:?}");
        &self.outcome["result"]
    }

    #[track_caller]
    pub fn failed(&self, reason: &str, code: i32) -> &str {
        assert_eq!(
            (self.outcome["ok"].as_bool(), self.outcome["reason"].as_str()),
            (Some(false), Some(reason)),
            "{self:?}"
        );
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.outcome["retryable"], code != 2, "{self:?}");
        self.outcome["message"].as_str().unwrap()
    }
}

impl Bed {
    pub async fn new() -> Self {
        let s3 = FakeS3::start().await;
        let bed = Self {
            repository: format!("s3:{}/bucket/movers/team-a/{UID}", s3.url),
            s3,
            cloud: FakeCloud::start().await,
            directory: TempDir::new().unwrap(),
            program: restic(),
        };
        for directory in ["config", "scratch"] {
            std::fs::create_dir(bed.path(directory)).unwrap();
        }
        bed.secret("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY);
        bed.secret("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        bed.secret("restic-password", REPOSITORY_PASSWORD);
        let auth = json!({"auth_url": format!("{}/v3", bed.cloud.url), "username": "u", "password": CLOUD_PASSWORD,
            "project_id": cloud::PROJECT, "user_domain_name": "Default"});
        bed.secret(
            "clouds.yaml",
            &json!({"clouds": {"site": {"auth": auth, "region_name": "r"}}}).to_string(),
        );
        bed
    }

    /// Its repository is in Swift.
    pub async fn on_swift() -> (FakeSwift, Self) {
        let server = FakeSwift::start().await;
        let mut bed = Self::new().await;
        bed.repository = format!("swift:moves:/team/ns/{UID}");
        bed.secret("OS_AUTH_URL", &format!("{}/identity", server.url));
        bed.secret("OS_APPLICATION_CREDENTIAL_ID", swift::ID);
        bed.secret("OS_APPLICATION_CREDENTIAL_SECRET", swift::SECRET);
        (server, bed)
    }

    /// Its repository is on a rest-server.
    pub async fn on_rest() -> (FakeRest, Self) {
        let server = FakeRest::start().await;
        let mut bed = Self::new().await;
        bed.repository = format!("rest:{}/team/{UID}", server.url);
        bed.secret("RESTIC_REST_USERNAME", rest::USER);
        bed.secret("RESTIC_REST_PASSWORD", rest::PASSWORD);
        (server, bed)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn secret(&self, key: &str, value: &str) {
        std::fs::write(self.path("config").join(key), value).unwrap();
    }

    /// The prefix of the repository inside of the bucket.
    pub fn prefix(&self) -> String {
        format!("movers/team-a/{UID}/")
    }

    /// Plain restic, as anybody has it who knows the password and the store's keys.
    pub async fn restic(&self, arguments: &[&str], stdin: Stdio) -> Output {
        let mut command = Command::new(restic());
        if self.repository.starts_with("s3:") {
            command.args(["-o", "s3.bucket-lookup=path"]);
        }
        command.args(arguments).stdin(stdin);
        let output = self.plain_environment(&mut command).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output
    }

    /// What plain restic needs to know.
    pub fn plain_environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("RESTIC_REPOSITORY", &self.repository)
            .env("RESTIC_PASSWORD", REPOSITORY_PASSWORD)
            .env("RESTIC_CACHE_DIR", self.path("plain-cache"))
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    }

    /// The mover's command line; every option that names a place is filled in.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_in("", arguments)
    }

    fn command_in(&self, beside: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmmigration"));
        command.arg("mover").arg(arguments[0]).arg("--allow-loopback");
        command.arg("--termination-log").arg(self.path(&format!("termination{beside}")));
        if arguments[0] != "check" {
            command
                .arg("--config-dir")
                .arg(self.path("config"))
                .arg("--scratch-dir")
                .arg(self.path(&format!("scratch{beside}")));
            command.arg("--repository").arg(&self.repository);
        }
        command.args(&arguments[1..]).env("RESTIC", &self.program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// Starts another Job at the same time: with its own scratch directory and termination message.
    pub fn start_beside(&self, arguments: &[&str]) -> Child {
        std::fs::create_dir(self.path("scratch-beside")).unwrap();
        self.command_in("-beside", arguments).spawn().unwrap()
    }

    pub async fn end_beside(&self, child: Child) -> Ended {
        let output = child.wait_with_output().await.unwrap();
        self.ended(output, "termination-beside")
    }

    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let child = self.start(arguments);
        self.end(child).await
    }

    /// Waits, and sees that no secret came out anywhere.
    pub async fn end(&self, child: Child) -> Ended {
        let output = child.wait_with_output().await.unwrap();
        self.ended(output, "termination")
    }

    fn ended(&self, output: Output, termination: &str) -> Ended {
        let Output { status, stdout, stderr } = output;
        let message = std::fs::read_to_string(self.path(termination)).unwrap_or_default();
        let _ = std::fs::remove_file(self.path(termination));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(stdout), text(stderr));
        for secret in [
            SECRET_KEY,
            CLOUD_PASSWORD,
            REPOSITORY_PASSWORD,
            "X-Amz-Signature",
            cloud::TOKEN,
            rest::PASSWORD,
            swift::SECRET,
        ] {
            for said in [&message, &stdout, &stderr] {
                assert!(!said.contains(secret), "{secret} came out: {said}");
            }
        }
        assert!(message.len() <= 4000);
        Ended {
            code: status.code(),
            outcome: serde_json::from_str(&message).unwrap_or_default(),
            stdout,
            stderr,
        }
    }

    pub async fn init(&self) -> Ended {
        self.run(&["init", "--migration-uid", UID, "--object", "team-a/web-1"]).await
    }

    /// Saves an image in segments of one MiB.
    pub async fn backup(&self, image: &str) -> Ended {
        self.run(&backup_line(&["--image", image, "--segment-bytes", SEGMENT])).await
    }

    /// Snapshots in the repository, seen in the store itself.
    pub fn snapshots(&self) -> usize {
        self.s3.keys(&format!("{}snapshots/", self.prefix())).len()
    }

    pub fn locks(&self) -> usize {
        self.s3.keys(&format!("{}locks/", self.prefix())).len()
    }
}

/// The real restic. A test without it would prove nothing, so it fails.
pub fn restic() -> PathBuf {
    let path = std::env::var_os("RESTIC").map(PathBuf::from);
    let path = path.unwrap_or_else(|| panic!("set RESTIC to a restic binary of version 0.19 or later"));
    assert!(path.is_file(), "RESTIC={} is no file", path.display());
    path
}

/// Bytes that neither compress nor repeat, the same in every run.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
