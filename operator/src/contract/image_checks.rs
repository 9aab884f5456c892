//! Whether an image service judges what disks hold: the operator knows, the mover acts on it.

use clap::ValueEnum;
use serde::Serialize;

/// What is known of the image service that a disk enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageChecks {
    /// It judges what raw images hold
    Checked,
    /// It does not
    Unchecked,
    /// That cannot be told
    Unknown,
}
