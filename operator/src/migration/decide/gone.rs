//! Absence: a server counts as gone when that is proven in more than one look. Until then it is waited for.

use super::{
    Draft,
    next::{Stop, seen},
};
use crate::{
    cloud::{Proof, Server, Sighting},
    migration::observed::{DestinationView, SourceView},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

/// How long after the first look that proved it another one counts, in seconds.
pub(super) const AGAIN_SECONDS: i64 = 10;
/// The same where the project has no other server: what answers so may be another project, or have lost its memory.
pub(super) const EMPTY_SECONDS: i64 = 180;

/// The source's server.
pub(super) enum Source<'a> {
    /// It is there.
    Found(&'a SourceView, &'a Server),
    /// It is gone: proven.
    Gone,
}

/// The source's server in this look, unless it was not seen, or its absence is not proven yet.
pub(super) fn source<'a>(d: &mut Draft<'a>) -> Result<Source<'a>, Stop> {
    let view = seen(&d.input.seen.source)?;
    let now = d.input.now;
    match &view.server {
        Some(Sighting::Found(server)) => {
            d.source().gone_since = None;
            Ok(Source::Found(view, server))
        }
        Some(Sighting::Gone(proof)) if believed(&mut d.source().gone_since, *proof, now) => Ok(Source::Gone),
        Some(Sighting::Gone(_)) => {
            let (cloud, s) = (d.input.spec.source.cloud.clone(), d.source().clone());
            Err(looking(&cloud, &format!("server {} ({})", s.server_name, s.server_id)))
        }
        None => Err(Stop::as_said()),
    }
}

/// The server in the destination.
pub(super) enum Destination<'a> {
    /// It is there.
    Found(&'a Server),
    /// It is gone, or was never made: proven.
    Gone,
}

/// The server in the destination, which was asked for, unless its absence is not proven yet.
pub(super) fn destination<'a>(d: &mut Draft<'_>, view: &'a DestinationView) -> Result<Destination<'a>, Stop> {
    if let Some(server) = view.server() {
        d.destination().gone_since = None;
        return Ok(Destination::Found(server));
    }
    let now = d.input.now;
    if view.absent.is_some_and(|proof| believed(&mut d.destination().gone_since, proof, now)) {
        return Ok(Destination::Gone);
    }
    let cloud = d.input.spec.destination.cloud.clone();
    let what = match d.destination().server_id.clone() {
        Some(id) => format!("server {id}"),
        None => "the server that was asked for".into(),
    };
    Err(looking(&cloud, &what))
}

fn believed(since: &mut Option<Time>, proof: Proof, now: Timestamp) -> bool {
    let first = since.get_or_insert(Time(now)).0;
    let apart = match proof {
        Proof::NotListed { others: 0 } => EMPTY_SECONDS,
        _ => AGAIN_SECONDS,
    };
    now.duration_since(first).as_secs() >= apart
}

fn looking(cloud: &str, what: &str) -> Stop {
    Stop::looking(format!("{cloud} does not have {what} now; looking again before that is believed"))
}
