//! Which project, region and cloud a side of a migration is in: recorded by preflight, and held to as soon as something of
//! ours is there.

use super::{block_storage::fills_while_copying, names::Side};
use crate::crd::v1alpha1::VmMigrationStatus;

/// Where a session works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The project.
    pub project_id: String,
    /// The region, where the catalog has regions.
    pub region: Option<String>,
    /// Addresses of the cloud's identity service; the first one is recorded.
    pub identities: Vec<String>,
}

/// Where a side was when preflight looked. An older release recorded only the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded<'a> {
    project_id: &'a str,
    /// The region.
    pub region: Option<&'a str>,
    identity: Option<&'a str>,
}

/// What is recorded of a side in which something of ours may be: what is seen and done there must be there.
pub fn settled(status: &VmMigrationStatus, side: Side) -> Option<Recorded<'_>> {
    let claimed = status.source.as_ref().is_some_and(|s| s.claimed_at.is_some());
    match side {
        Side::Source if claimed || status.copying.is_some() => {
            let s = status.source.as_ref()?;
            Some(Recorded {
                project_id: &s.project_id,
                region: s.region.as_deref(),
                identity: s.identity.as_deref(),
            })
        }
        Side::Destination if claimed || fills_while_copying(status) => {
            let x = status.destination.as_ref()?;
            Some(Recorded {
                project_id: &x.project_id,
                region: x.region.as_deref(),
                identity: x.identity.as_deref(),
            })
        }
        _ => None,
    }
}

impl Recorded<'_> {
    /// How the place that was found is another one. What is not recorded is not compared.
    pub fn differs(&self, found: &Place) -> Option<String> {
        if !self.project_id.is_empty() && self.project_id != found.project_id {
            let (now, then) = (&found.project_id, self.project_id);
            return Some(format!("the credentials open project {now}, this migration belongs to {then}"));
        }
        if self.region.is_some_and(|region| found.region.as_deref() != Some(region)) {
            let now = found.region.as_deref().unwrap_or("none");
            let then = self.region.unwrap_or_default();
            return Some(format!("the credentials lead to region {now}, this migration belongs to {then}"));
        }
        let then = self.identity.filter(|then| !found.identities.iter().any(|known| known == then))?;
        let now = found.identities.first().map_or("unknown", String::as_str);
        Some(format!("the credentials are for the cloud of {now}, this migration belongs to that of {then}"))
    }
}

/// Records a place: as it is found until something of ours is there, then only what an older release left out.
pub fn record(status: &mut VmMigrationStatus, side: Side, found: &Place) {
    let differs = |then: Recorded<'_>| then.identity.is_some() || then.differs(found).is_some();
    if settled(status, side).is_some_and(differs) {
        return;
    }
    let (project_id, region, identity) = match side {
        Side::Source => {
            let s = status.source.get_or_insert_default();
            (&mut s.project_id, &mut s.region, &mut s.identity)
        }
        Side::Destination => {
            let x = status.destination.get_or_insert_default();
            (&mut x.project_id, &mut x.region, &mut x.identity)
        }
    };
    project_id.clone_from(&found.project_id);
    region.clone_from(&found.region);
    *identity = found.identities.first().cloned();
}

/// An object of an older release goes on where it is found, in its project.
pub fn complete(status: &mut VmMigrationStatus, side: Side, found: &Place) {
    if settled(status, side).is_some() {
        record(status, side, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SIDES: [Side; 2] = [Side::Source, Side::Destination];

    fn place(project: &str, region: Option<&str>, identities: &[&str]) -> Place {
        Place {
            project_id: project.into(),
            region: region.map(String::from),
            identities: identities.iter().map(ToString::to_string).collect(),
        }
    }

    /// A claimed source; both sides are in the project.
    fn claimed() -> VmMigrationStatus {
        let source = json!({"projectId": "p", "claimedAt": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({"source": source, "destination": {"projectId": "p"}})).unwrap()
    }

    #[test]
    fn another_place_is_told_by_what_is_another() {
        let there = place("p", Some("R1"), &["https://a/v3/", "https://inner/v3/"]);
        let table = [
            (there.clone(), None),
            (place("p", Some("R1"), &["https://new/v3/", "https://a/v3/"]), None),
            (place("q", Some("R1"), &["https://a/v3/"]), Some("project q")),
            (place("p", Some("R2"), &["https://a/v3/"]), Some("region R2")),
            (place("p", None, &["https://a/v3/"]), Some("region none")),
            (place("p", Some("R1"), &["https://b/v3/"]), Some("cloud of https://b/v3/")),
        ];
        for side in SIDES {
            let mut status = claimed();
            record(&mut status, side, &there);
            for (found, told) in &table {
                let differs = settled(&status, side).unwrap().differs(found);
                assert_eq!(differs.is_some(), told.is_some(), "{found:?}: {differs:?}");
                assert!(differs.unwrap_or_default().contains(told.unwrap_or_default()), "{found:?}");
            }
        }
    }

    #[test]
    fn an_object_of_an_older_release_goes_on_where_it_is_found() {
        let found = place("p", Some("R1"), &["https://a/v3/"]);
        for side in SIDES {
            let mut status = claimed();
            assert_eq!(settled(&status, side).unwrap().differs(&found), None);
            complete(&mut status, side, &place("q", Some("R2"), &["https://b/v3/"]));
            assert_eq!(status, claimed(), "another project is not recorded");
            complete(&mut status, side, &found);
            let then = settled(&status, side).unwrap();
            assert_eq!((then.region, then.identity), (Some("R1"), Some("https://a/v3/")));
            complete(&mut status, side, &place("p", Some("R1"), &["https://b/v3/"]));
            assert_eq!(settled(&status, side).unwrap().identity, Some("https://a/v3/"), "recorded once");
        }
    }

    #[test]
    fn nothing_is_held_to_a_place_before_something_of_ours_is_there() {
        let mut status = claimed();
        status.source.as_mut().unwrap().claimed_at = None;
        assert!(SIDES.iter().all(|side| settled(&status, *side).is_none()));
        complete(&mut status, Side::Source, &place("p", Some("R1"), &["https://a/v3/"]));
        assert_eq!(status.source.as_ref().unwrap().region, None);
        // Warm passes leave snapshots in A, long before the claim.
        status.copying = Some(Default::default());
        assert_eq!(SIDES.map(|side| settled(&status, side).is_some()), [true, false]);
    }
}
