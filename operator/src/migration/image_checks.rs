//! Does a cloud's image service judge what raw images hold? The versions of its services tell, where they can.

use super::names::Side;
use crate::{
    cloud::ServiceVersion,
    contract::ImageChecks,
    crd::v1alpha1::{Finding, Severity},
};

/// Glance does since 2025.1. Its API is 2.16 or older before 2024.2, 2.17 from then on, and 2.18 with 2026.2 where it
/// caches; Nova's newest microversion is 2.96 with 2024.2, and more with 2025.1. `None`: it cannot be told, as when an old
/// Nova stands beside a Glance of 2.17.
pub fn judges(versions: &[ServiceVersion]) -> Option<bool> {
    let of = |service: &str| versions.iter().find(|v| v.service == service);
    let image = number(&of("image")?.version)?;
    let compute = of("compute").and_then(|v| number(v.microversion.as_ref()?));
    match (image, compute) {
        (image, _) if image < (2, 17) => Some(false),
        (image, _) if image > (2, 17) => Some(true),
        (_, Some(compute)) if compute > (2, 96) => Some(true),
        _ => None,
    }
}

fn number(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.trim_start_matches('v').split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The same as an option of a mover.
pub fn checks(judges: Option<bool>) -> ImageChecks {
    match judges {
        Some(true) => ImageChecks::Checked,
        Some(false) => ImageChecks::Unchecked,
        None => ImageChecks::Unknown,
    }
}

/// Where nothing can be read of the disks before the stop.
pub fn late(side: Side, cloud: &str) -> Finding {
    Finding {
        id: format!("{side}-image-checks"),
        severity: Severity::Info,
        message: format!(
            "the image service of {cloud} refuses disks for what they begin with, such as LUKS2 or NTFS on a whole disk \
             (docs/clouds.md); that is known only after the stop, and then the source is given back at once"
        ),
        suggestion: Some(format!(
            "to know it before: strategy Warm; to carry such disks: transfer.mode Volume of OpenStackCloud {cloud}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_versions_tell() {
        let cases = [
            ("2.15", Some("2.93"), Some(false)),
            ("2.16", Some("2.96"), Some(false)),
            ("2.17", Some("2.96"), None),
            ("2.17", None, None),
            ("2.17", Some("2.100"), Some(true)),
            ("2.17", Some("2.104"), Some(true)),
            ("2.18", None, Some(true)),
            ("v2.17", Some("2.97"), Some(true)),
            ("2", Some("2.104"), None),
        ];
        for (image, compute, wanted) in cases {
            let one = |service: &str, version: &str, microversion: Option<&str>| ServiceVersion {
                service: service.into(),
                version: version.into(),
                microversion: microversion.map(String::from),
            };
            let versions = [one("compute", "2.1", compute), one("image", image, None)];
            assert_eq!(judges(&versions), wanted, "{image} {compute:?}");
        }
        assert_eq!(judges(&[]), None);
    }
}
