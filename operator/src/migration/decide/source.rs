//! The source after the claim: as we left it, or somebody has taken it back.

use super::{
    Draft, gone,
    next::Stop,
    ran::{self, Ran},
};
use crate::{
    cloud::{InstanceAction, Server},
    migration::observed::SourceView,
};

/// The source as seen; one that is gone ends the migration.
pub(super) fn server<'a>(d: &mut Draft<'a>) -> Result<(&'a SourceView, &'a Server), Stop> {
    match gone::source(d)? {
        gone::Source::Found(view, server) => Ok((view, server)),
        gone::Source::Gone => Err(Stop::unrecoverable("the source server is gone")),
    }
}

/// The source, which is still as we left it.
pub(super) fn untouched<'a>(d: &mut Draft<'a>) -> Result<&'a Server, Stop> {
    let (view, server) = self::server(d)?;
    adopt_request_ids(d, server, &view.actions);
    d.source().server_status = server.status.clone();
    match ran::ran_since_our_stop(d.source(), server, &view.actions) {
        Ran::No => Ok(server),
        Ran::Yes(why) => Err(Stop::Held(why)),
        Ran::CannotTell(why) => Err(Stop::trouble("source-history", why)),
    }
}

/// Request ids that a proxy rewrites are learned from the server's history.
pub(super) fn adopt_request_ids(d: &mut Draft<'_>, server: &Server, actions: &[InstanceAction]) {
    let told = "the answers of the source cloud have other request ids than its history (a proxy rewrites them): what this \
                migration did is told by kind and time";
    if ran::adopt_request_ids(d.source(), server, actions)
        && !d.status.timeline.iter().any(|r| r.message == told)
    {
        d.note(told);
    }
}
