//! Whether an image service judges what disks hold: the operator knows, the mover acts on it.

/// What is known of the image service that a disk enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum ImageChecks {
    /// It judges what raw images hold.
    Checked,
    /// It does not.
    Unchecked,
    /// That cannot be told.
    Unknown,
}
