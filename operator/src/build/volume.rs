//! How a volume of a cloud becomes a block device of a Job: a static PersistentVolume and its claim.
//!
//! The volume itself stays whatever happens to them: `Retain`, and a handle that no provisioner made.

use super::job::anchor;
use crate::migration::{
    block_storage::DRIVER,
    names::{Identity, LABEL_MIGRATION, LABEL_SIDE, Side},
};
use k8s_openapi::{
    api::core::v1::*,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use std::collections::BTreeMap;

/// One pod, never two: neither attempts of a Job nor somebody else's.
const MODE: &str = "ReadWriteOncePod";

/// The PersistentVolume of a volume. It is promised to our claim, so that no other can take it.
pub fn persistent_volume(
    me: &Identity,
    side: Side,
    disk: i32,
    volume_id: &str,
    size_gib: i64,
    namespace: &str,
) -> PersistentVolume {
    let csi = CSIPersistentVolumeSource {
        driver: DRIVER.into(),
        volume_handle: volume_id.into(),
        ..Default::default()
    };
    let claim = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: Some(namespace.into()),
        name: Some(me.device(side, disk)),
        ..Default::default()
    };
    PersistentVolume {
        metadata: metadata(me, side, disk),
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(vec![MODE.into()]),
            capacity: Some(size(size_gib)),
            claim_ref: Some(claim),
            csi: Some(csi),
            persistent_volume_reclaim_policy: Some("Retain".into()),
            storage_class_name: Some(String::new()),
            volume_mode: Some("Block".into()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The claim of that PersistentVolume and of no other.
pub fn claim(me: &Identity, side: Side, disk: i32, size_gib: i64, anchor_uid: &str) -> PersistentVolumeClaim {
    let owner = anchor(me, side, anchor_uid);
    PersistentVolumeClaim {
        metadata: ObjectMeta { owner_references: Some(vec![owner]), ..metadata(me, side, disk) },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![MODE.into()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(size(size_gib)),
                ..Default::default()
            }),
            // No default class may make a volume for it.
            storage_class_name: Some(String::new()),
            volume_mode: Some("Block".into()),
            volume_name: Some(me.device(side, disk)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn metadata(me: &Identity, side: Side, disk: i32) -> ObjectMeta {
    let labels = [
        (LABEL_MIGRATION, me.uid.clone()),
        (LABEL_SIDE, side.to_string()),
        ("app.kubernetes.io/managed-by", "vmmigration".into()),
    ];
    ObjectMeta {
        name: Some(me.device(side, disk)),
        labels: Some(labels.map(|(k, v)| (k.into(), v)).into()),
        ..Default::default()
    }
}

fn size(gib: i64) -> BTreeMap<String, Quantity> {
    BTreeMap::from([("storage".into(), Quantity(format!("{gib}Gi")))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_and_claim_are_for_each_other_and_the_cloud_s_volume_stays() {
        let me = Identity { uid: "u-1".into(), namespace: "team".into(), name: "web".into() };
        let volume = persistent_volume(&me, Side::Source, 1, "cinder-id", 3, "movers");
        let claim = claim(&me, Side::Source, 1, 3, "anchor-uid");
        let (v, c) = (volume.spec.unwrap(), claim.spec.unwrap());
        assert_eq!(volume.metadata.name.as_deref(), Some("vmm-u-1-disk-source-1"));
        assert_eq!((&c.volume_name, &claim.metadata.name), (&volume.metadata.name, &volume.metadata.name));
        let to = v.claim_ref.unwrap();
        assert_eq!((&to.name, to.namespace.as_deref()), (&claim.metadata.name, Some("movers")));
        assert_eq!(v.persistent_volume_reclaim_policy.as_deref(), Some("Retain"));
        assert_eq!(v.csi.unwrap().volume_handle, "cinder-id");
        let of = [
            (v.access_modes, v.volume_mode, v.storage_class_name),
            (c.access_modes, c.volume_mode, c.storage_class_name),
        ];
        for (modes, mode, class) in of {
            assert_eq!(modes, Some(vec!["ReadWriteOncePod".to_string()]));
            assert_eq!((mode.as_deref(), class.as_deref()), (Some("Block"), Some("")));
        }
        assert_eq!(claim.metadata.owner_references.unwrap()[0].uid, "anchor-uid");
        assert!(
            volume.metadata.owner_references.is_none(),
            "it is cluster-scoped: nothing namespaced can own it"
        );
    }
}
