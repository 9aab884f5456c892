//! The lock that the source's owner had put on it: opened to claim the server, and put back.

use super::Draft;
use crate::{cloud::Server, migration::step::Step};

/// Something came in the way after it was opened.
pub(super) fn put_back(d: &mut Draft<'_>) {
    let server = d.input.seen.inventory.as_ref().and_then(|i| i.candidates.first());
    if let Some(server) = server.filter(|s| d.status.source.as_ref().is_some_and(|o| o.server_id == s.id)) {
        lock_again(d, server);
    }
}

/// Puts it back once: whoever opens it then wants it so.
pub(super) fn lock_again(d: &mut Draft<'_>, server: &Server) {
    match (d.source().unlock_requested_at.is_some(), server.locked) {
        (true, false) => d.step(Step::RelockSource),
        (true, true) => d.source().unlock_requested_at = None,
        (false, _) => {}
    }
}
