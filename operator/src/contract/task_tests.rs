//! A task that is written is read as the same task, whatever it holds.

use super::*;
use clap::{Args, Parser, error::ErrorKind};

/// A command line as a pod gets it, after `vmmigration mover`.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    pod: Pod,
    #[command(subcommand)]
    task: Task,
}

fn checks() -> Vec<Check> {
    let header = Some(Header { name: "x".into(), pattern: Some("y z".into()) });
    let kinds = [
        CheckKind::Tcp { address: "10.0.0.5".into(), port: 22 },
        CheckKind::Http {
            url: "http://x/".into(),
            status: 204,
            contains: Some("a \"b\"".into()),
            pattern: None,
            header,
        },
        CheckKind::Ssh {
            user: "u".into(),
            address: "x".into(),
            port: 2,
            key_file: format!("{}/0", paths::CHECK_KEYS).into(),
            host_keys: vec!["ssh-ed25519 A".into()],
            command: "test -e \"$HOME\"".into(),
        },
    ];
    let check = |(n, kind)| Check { name: format!("check-{n}"), timeout_seconds: Some(5), kind };
    kinds.into_iter().enumerate().map(check).collect()
}

fn transfer() -> Transfer {
    Transfer { processes: Some(3), connections: Some(7), limit_upload: Some(10), limit_download: Some(20) }
}

/// Every task, with as much and as little as it can have.
fn tasks() -> Vec<Task> {
    let repository = || "s3:https://x/b/team/uid".to_string();
    let id = || "ab".repeat(32);
    vec![
        Task::Probe(Probe { repository: repository() }),
        Task::Init(Init { repository: repository(), migration_uid: "u".into(), object: "team/web".into() }),
        Task::Backup(Backup {
            repository: repository(),
            migration_uid: "u".into(),
            disk: 1,
            image: Some("i".into()),
            ..Default::default()
        }),
        Task::Backup(Backup {
            repository: repository(),
            migration_uid: "u".into(),
            disk: 0,
            device: Some(paths::DEVICE.into()),
            device_id: Some("volume".into()),
            no_extra_verify: true,
            pass: Some(2),
            base_manifest: Some(id()),
            keep_digests: true,
            images: Some(ImageChecks::Unchecked),
            transfer: transfer(),
            segment_bytes: Some(1 << 20),
            patch_bytes: Some(1 << 21),
            ..Default::default()
        }),
        Task::Restore(Restore { repository: repository(), image: Some("i".into()), ..Default::default() }),
        Task::Restore(Restore {
            repository: repository(),
            disk: 3,
            pass: 2,
            device: Some(paths::DEVICE.into()),
            verify_disk: true,
            holds: Some(id()),
            resume: true,
            snapshot: Some(id()),
            bytes: Some(u64::MAX),
            sha256: Some(id()),
            hash_algo: Some("sha512".into()),
            hash_value: Some(id()),
            transfer: transfer(),
            patience_seconds: Some(60),
            ..Default::default()
        }),
        Task::Restore(Restore {
            repository: repository(),
            device: Some(paths::DEVICE.into()),
            target_is_zero: true,
            origin: Some("volume".into()),
            ..Default::default()
        }),
        Task::Seal(Seal { repository: repository(), snapshot: id(), disk: 1, pass: 1, transfer: transfer() }),
        Task::Purge(Purge { repository: repository(), migration_uid: "u".into() }),
        Task::Check(Checks::new(&checks(), 300)),
        Task::Ssh(Ssh {
            user: "root".into(),
            host: "fd00::5".into(),
            port: 22,
            key_file: "/key/key".into(),
            script_file: paths::SCRIPT.into(),
            context_file: Some(paths::CONTEXT.into()),
            timeout_seconds: 30,
            host_key: vec!["ssh-ed25519 A".into(), "ssh-rsa B".into()],
        }),
    ]
}

#[test]
fn what_is_written_is_read() {
    let denied = ["10.0.0.0/8".to_string(), "fd00::/8".to_string()];
    for task in tasks() {
        for denied in [&denied[..], &[]] {
            let line = task.command_line(denied);
            let read = Line::try_parse_from(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
            assert_eq!(read.task, task, "{line:?}");
            let networks: Vec<String> = read.pod.denied_cidr.iter().map(ToString::to_string).collect();
            assert_eq!(networks, denied, "{line:?}");
            assert_eq!(read.pod.config_dir.to_str(), Some(paths::CONFIG));
        }
    }
    assert_eq!(Checks::new(&checks(), 300).read().unwrap(), checks());
}

/// An option that begins with a hyphen would be read as another option.
#[test]
fn a_value_is_never_read_as_an_option() {
    let refused = Line::try_parse_from(["purge", "--repository", "--config-dir", "--migration-uid", "u"]);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidValue);
}

#[test]
fn a_probe_has_no_other_option_than_its_own() {
    let probe = Probe::augment_args(clap::Command::new("probe"));
    let names: Vec<_> = probe.get_arguments().filter_map(|a| a.get_long()).collect();
    assert_eq!(names, ["repository"]);
}

/// Jobs of the release before run with its image; but a tag may be moved while a pod waits, so its lines are read, too.
#[test]
fn command_lines_of_the_release_before_are_read() {
    let id = "ab".repeat(32);
    let lines = [
        "probe --repository s3:https://x/b/team/uid --denied-cidr 10.0.0.0/8".to_string(),
        "init --repository s3:https://x/b/team/uid --migration-uid u --object team/web-1".into(),
        "backup --repository r --migration-uid u --disk 0 --image i --no-extra-verify --limit-upload 10240".into(),
        "backup --repository r --migration-uid u --disk 0 --image i --no-extra-verify --keep-digests --images checked --limit-upload 5".into(),
        format!("backup --repository r --migration-uid u --disk 0 --device /dev/vmm-disk --device-id v --no-extra-verify --pass 1 --base-manifest {id} --keep-digests"),
        "restore --repository r --disk 0 --pass 0 --image i --origin o".into(),
        format!("restore --repository r --disk 0 --pass 1 --device /dev/vmm-disk --verify-disk --holds {id} --snapshot {id} --bytes 5 --sha256 x --hash-algo sha512 --hash-value y"),
        "purge --repository r --migration-uid u".into(),
        r#"check --checks [{"http":{"status":200,"url":"http://10.0.0.5:80/"},"name":"page","timeoutSeconds":300}] --deadline-seconds 300"#.into(),
    ];
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let read = Line::try_parse_from(&words).unwrap_or_else(|e| panic!("{line}: {e}"));
        let denied: Vec<String> = read.pod.denied_cidr.iter().map(ToString::to_string).collect();
        assert_eq!(read.task.command_line(&denied), words, "it is written as before");
    }
}
