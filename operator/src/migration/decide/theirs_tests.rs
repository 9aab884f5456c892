//! What users make of what a migration made is theirs, against the model: clean-up and a new try leave it alone.

use super::{
    Side,
    tests::{World, ask, dice, me, settle},
};
use crate::{
    cloud::{Image, Snapshot, Volume},
    crd::v1alpha1::*,
    migration::names::Role,
};
use serde_json::json;

/// As clouds hand marks on: image properties to volumes and from there to images, metadata with a backup.
fn theirs(w: &mut World) {
    let inherited = |role| me().marks(role, 0);
    for (side, role) in [(Side::Destination, Role::ImportImage), (Side::Source, Role::ExportImage)] {
        let properties = inherited(role).into_iter().map(|(k, v)| (k, v.into())).collect();
        let image = Image {
            id: "theirs".into(),
            name: "my image".into(),
            status: "active".into(),
            properties,
            ..Default::default()
        };
        w.images.push((side, image));
    }
    let volume = |role| Volume {
        id: "theirs".into(),
        name: "my volume".into(),
        status: "available".into(),
        metadata: inherited(role),
        ..Default::default()
    };
    w.made.push(volume(Role::Volume));
    w.volumes.push(volume(Role::ExportVolume));
    let (id, name, status) = ("theirs".into(), "my snapshot".into(), "available".into());
    let metadata = inherited(Role::Snapshot);
    w.snapshots.push(Snapshot { id, name, status, metadata, volume_id: "v0".into(), ..Default::default() });
}

fn left(w: &World) -> [usize; 4] {
    let images = w.images.iter().filter(|(_, i)| i.id == "theirs").count();
    let volumes = |list: &[Volume]| list.iter().filter(|v| v.id == "theirs").count();
    let snapshots = w.snapshots.iter().filter(|s| s.id == "theirs").count();
    [images, volumes(&w.made), volumes(&w.volumes), snapshots]
}

#[test]
fn clean_up_leaves_it_whatever_marks_it_has() {
    for phase in [Phase::Transferring, Phase::Creating, Phase::Verifying, Phase::Succeeded] {
        let mut w = World::new();
        w.run(300, |w| w.phase() == Some(phase), || false);
        theirs(&mut w);
        if phase != Phase::Succeeded {
            ask(&mut w, json!({"requests": {"cancel": "1"}}));
        }
        w.run(900, World::clean, || false);
        assert_eq!(left(&w), [2, 1, 1, 1], "{phase}");
    }
}

#[test]
fn a_move_takes_none_of_it_for_its_own() {
    for by_volume in [false, true] {
        let mut w = World::new().by_volume(by_volume, by_volume);
        w.run(300, |w| w.phase() == Some(Phase::Transferring), || false);
        w.volumes.push(Volume {
            id: "theirs".into(),
            status: "available".into(),
            metadata: me().marks(Role::ExportVolume, 0),
            ..Default::default()
        });
        settle(&mut w, Phase::Succeeded);
        assert_eq!((left(&w), w.made.len()), ([0, 0, 1, 0], 2), "{by_volume}");
    }
}

#[test]
fn a_volume_has_our_name_until_its_id_is_recorded_and_then_its_own() {
    for seed in 0..60 {
        for by_volume in [false, true] {
            let mut w = World::new().by_volume(by_volume, by_volume);
            w.run(3000, World::clean, dice(seed, 2));
            assert_eq!(w.phase(), Some(Phase::Succeeded), "{seed}: {:?}", w.status.failure);
            let names: Vec<_> = w.made.iter().map(|v| v.name.as_str()).collect();
            assert_eq!(names, ["data", "data"], "{seed} {by_volume}");
        }
    }
}
