//! What of ours is deleted in the clouds: by mark and role, and in the order in which a cloud lets it go.

use super::{
    super::{
        Draft,
        deletions::{self, Ours, remove},
        gone, retirement,
    },
    Scope,
};
use crate::{
    cloud::{Snapshot, Volume},
    crd::v1alpha1::*,
    migration::{
        names::{Role, Side, Tagged},
        observed::{DestinationView, Seen, SourceView, find},
        step::ObjectKind,
    },
};
use std::collections::BTreeSet;

/// Names the deletes of one cloud. True: nothing is left there.
pub(super) fn are_gone(d: &mut Draft<'_>, side: Side, scope: Scope) -> bool {
    let before = d.steps.len();
    let seen = d.input.seen;
    let waiting = match (side, &seen.source, &seen.destination) {
        (Side::Source, Seen::View(v), _) => {
            retirement::left(d, v);
            source_objects(d, v, &|_| true)
        }
        (Side::Destination, _, Seen::View(v)) => destination_objects(d, v, scope),
        (Side::Source, Seen::Unseen(p), _) | (Side::Destination, _, Seen::Unseen(p)) => {
            d.stopped(p.into());
            true
        }
        _ => true,
    };
    d.steps.len() == before && !waiting
}

/// A volume in these states cannot be deleted yet.
fn busy(status: &str) -> bool {
    ["creating", "downloading", "uploading", "deleting", "attaching", "detaching"].contains(&status)
}

/// Removes what `goes` says. True: something has to be waited for.
pub(in super::super) fn source_objects(
    d: &mut Draft<'_>,
    view: &SourceView,
    goes: &dyn Fn(&Tagged) -> bool,
) -> bool {
    let goes = |t: &Tagged| t.role.is_temporary() && goes(t);
    let (side, mut waiting) = (Side::Source, false);
    let (images, volumes) = (view.images.iter().map(|(_, i)| &i.id), view.volumes.iter().map(|(_, v)| &v.id));
    let there = images.chain(volumes).chain(view.snapshots.iter().map(|(_, s)| &s.id));
    deletions::forget_gone(d, side, there.map(String::as_str));
    for (tagged, image) in view.images.iter().filter(|(t, _)| goes(t)) {
        waiting |= remove(d, &Ours { side, kind: ObjectKind::Image, role: tagged.role, id: &image.id }, "");
    }
    for (tagged, volume) in view.volumes.iter().filter(|(t, _)| goes(t)) {
        let ours = Ours { side, kind: ObjectKind::Volume, role: tagged.role, id: &volume.id };
        waiting |= busy(&volume.status) || remove(d, &ours, "");
    }
    // Volumes that were made of a snapshot go before it.
    waiting || source_snapshots(d, view, &goes)
}

/// Removes those snapshots of ours that `goes` says. True: something has to be waited for.
fn source_snapshots(d: &mut Draft<'_>, view: &SourceView, goes: &dyn Fn(&Tagged) -> bool) -> bool {
    let (side, mut waiting) = (Side::Source, false);
    let keeps = d.source().keeps_snapshots;
    let runs = view.found().is_none_or(|s| s.status == "ACTIVE" && s.task_state.is_none());
    let cloud = d.input.spec.source.cloud.clone();
    // On file storage qemu itself removes a running server's snapshots: of two at the same time it died, and the server
    // with it (tried with qemu 7.2).
    let lane = |s: &Snapshot| if keeps { String::new() } else { s.volume_id.clone() };
    let under_way = view.snapshots.iter().map(|(_, s)| s).filter(|s| busy(&s.status));
    let mut taken: BTreeSet<_> = under_way.map(lane).collect();
    for (tagged, snapshot) in view.snapshots.iter().filter(|(t, _)| goes(t)) {
        let stays = if snapshot.status == "error_deleting" {
            Some("the cloud failed to delete it; only its operator can repair that")
        } else if keeps && !runs {
            Some("on this storage a snapshot can be deleted only while the server runs or after it is gone")
        } else {
            None
        };
        if let Some(why) = stays {
            let what = format!("snapshot {} of volume {} in {cloud}", snapshot.id, snapshot.volume_id);
            d.status.retained.push(RetainedRow { what, why: why.into() });
        } else {
            let ours = Ours { side, kind: ObjectKind::Snapshot, role: tagged.role, id: &snapshot.id };
            let turn = deletions::rests(d, &ours) || taken.insert(lane(snapshot));
            waiting |= !turn || remove(d, &ours, "");
        }
    }
    waiting
}

/// True: something has to be waited for.
fn destination_objects(d: &mut Draft<'_>, view: &DestinationView, scope: Scope) -> bool {
    let asked = d.destination().server_requested_at.is_some();
    if asked
        && scope == Scope::All
        && let Err(stop) = gone::destination(d, view)
    {
        d.stopped(stop);
        return true;
    }
    // A server that is still there was ACTIVE once and is kept, with all that it uses.
    let keep_final = scope == Scope::Temporary || !view.servers.is_empty();
    let goes = |role: Role| role.is_temporary() || !keep_final;
    let (side, mut waiting) = (Side::Destination, false);
    let (images, volumes) = (view.images.iter().map(|(_, i)| &i.id), view.volumes.iter().map(|(_, v)| &v.id));
    let there = images.chain(volumes).chain(view.ports.iter().map(|(_, p)| &p.id));
    deletions::forget_gone(d, side, there.map(String::as_str));
    for (tagged, image) in view.images.iter().filter(|(t, _)| goes(t.role)) {
        let volume = find(&view.volumes, Role::Volume, tagged.index);
        let ours = Ours { side, kind: ObjectKind::Image, role: tagged.role, id: &image.id };
        waiting |= remove(d, &ours, &parent(volume));
    }
    for (tagged, volume) in view.volumes.iter().filter(|(t, _)| goes(t.role)) {
        let ours = Ours { side, kind: ObjectKind::Volume, role: tagged.role, id: &volume.id };
        waiting |= busy(&volume.status) || remove(d, &ours, "");
    }
    for (tagged, port) in view.ports.iter().filter(|(t, _)| goes(t.role)) {
        waiting |= remove(d, &Ours { side, kind: ObjectKind::Port, role: tagged.role, id: &port.id }, "");
    }
    if scope == Scope::All && !view.servers.is_empty() {
        let cloud = d.input.spec.destination.cloud.clone();
        for server in &view.servers {
            d.status.retained.push(RetainedRow {
                what: format!("server {} with its volumes and ports in {cloud}", server.id),
                why: "it was ACTIVE and may hold new writes; delete it yourself when they are not needed"
                    .into(),
            });
        }
    }
    waiting
}

/// Why an image may have to stay: on Ceph a volume that was made of it is its clone.
fn parent(volume: Option<&Volume>) -> String {
    let lives_on_it = |v: &Volume| {
        format!(
            "; volume {} was made of it and may live on it: delete the image when that volume is gone",
            v.id
        )
    };
    volume.map(lives_on_it).unwrap_or_default()
}
