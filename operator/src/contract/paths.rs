//! Where things are in the pod of a mover or a hook, and what the files are called.

/// The Secret with the cloud's and the store's keys.
pub const CONFIG: &str = "/etc/vmmigration";
/// A directory that may be written to.
pub const SCRATCH: &str = "/scratch";
/// The private keys of checks, by their number.
pub const CHECK_KEYS: &str = "/etc/vmmigration-check";
/// The block device.
pub const DEVICE: &str = "/dev/vmm-disk";
/// Where the outcome is written.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// The Secrets of a job hook, each in a directory of its own.
pub const HOOK_SECRETS: &str = "/secrets";
/// The directory with the private key of an SSH hook.
pub const SSH_KEYS: &str = "/key";
/// The private key of an SSH hook, in that directory.
pub const SSH_KEY: &str = "key";
/// The script of a hook.
pub const SCRIPT: &str = "/scratch/script";
/// What a hook reads on its standard input.
pub const CONTEXT: &str = "/scratch/context.json";

/// In [`CONFIG`]: the cloud's entry.
pub const CLOUDS_YAML: &str = "clouds.yaml";
/// In [`CONFIG`]: the cloud's CA.
pub const CLOUD_CACERT: &str = "cloud-cacert";
/// In [`CONFIG`]: the store's CA.
pub const STORE_CACERT: &str = "store-cacert";
/// In [`CONFIG`]: the repository's password.
pub const RESTIC_PASSWORD: &str = "restic-password";
