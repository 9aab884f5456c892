//! The one place where phases are entered. A pass goes through the phase that it finds, and through those that what it
//! has seen is enough for, until nothing more can be decided.

use super::{
    AT_ONCE, Decision, Draft, cutover, downtime, edges, hooks, lock, look, next::*, pause, phases, requests,
};
use crate::crd::v1alpha1::*;

/// The next steps.
pub(super) fn decide(mut d: Draft<'_>, first_seen: bool) -> Decision {
    let mut next = match before_any_phase(&mut d, first_seen) {
        Ok(()) => phases::next(&mut d),
        Err(stop) => Err(stop),
    };
    loop {
        match next {
            Ok(Next::Stay) => break,
            Ok(Next::Release) => return d.released(),
            Ok(Next::Enter(phase, why)) => {
                enter(&mut d, phase, why);
                d.recheck = Some(AT_ONCE);
                break;
            }
            Ok(Next::EnterAndGoOn(phase, why)) => {
                enter(&mut d, phase, why);
                next = phases::next(&mut d);
            }
            Err(stop) => {
                d.stopped(stop);
                break;
            }
        }
    }
    d.decided()
}

/// What somebody wants in the middle, and what counts in more than one phase.
fn before_any_phase(d: &mut Draft<'_>, first_seen: bool) -> Result<(), Stop> {
    if d.input.deleting {
        return Ok(());
    }
    hooks::rows(d);
    cutover::remember(d);
    requests::answer(d, first_seen);
    // Whatever is found here, the way back begins in the same pass.
    let limit = downtime::limit(d);
    d.is_through(limit);
    if requests::suspended(d) {
        if d.status.phase.is_none() {
            enter(d, Phase::Pending, "first seen".into());
        }
        return Err(requests::hold(d));
    }
    Ok(())
}

/// Enters a phase, by an edge of the table; a change is a row in the timeline.
fn enter(d: &mut Draft<'_>, phase: Phase, why: String) {
    let from = d.status.phase;
    if from == Some(phase) {
        return;
    }
    debug_assert!(edges::is_allowed(from, phase), "{from:?} -> {phase:?} is not in edges.rs");
    #[cfg(test)]
    super::trace::took(from, phase);
    d.status.phase = Some(phase);
    d.status.phase_since = Some(d.now());
    d.note(why);
}

impl Draft<'_> {
    /// Records why something does not go on; what is beside it may.
    pub(super) fn stopped(&mut self, stop: Stop) {
        match stop {
            Stop::Waiting { what, again } => {
                what.into_iter().for_each(|what| self.say(what));
                self.recheck = again.or(self.recheck);
            }
            Stop::Trouble { what, message } => self.trouble(&what, &message),
            Stop::Failed { reason, message } => self.fail(&reason, message),
            Stop::Blocked => block(self),
            Stop::Held(why) => hold(self, &why),
        }
    }

    /// The same for what may or may not have been stopped; what follows depends on that.
    pub(super) fn is_through(&mut self, result: Result<(), Stop>) -> bool {
        result.map_err(|stop| self.stopped(stop)).is_ok()
    }
}

/// Something is in the way. Each look reads all of both clouds; who corrects the spec is heard at once.
fn block(d: &mut Draft<'_>) {
    let (first, whole) = look::blockers(d);
    enter(d, Phase::Blocked, first);
    lock::put_back(d);
    d.say(format!("Blocked, nothing was touched: {whole}"));
    let lasted = d.status.phase_since.as_ref().map_or(0, |t| d.input.now.duration_since(t.0).as_secs());
    d.recheck = Some(pause(lasted, 15..=60));
}

/// Somebody took the source back. Nothing of theirs is undone.
fn hold(d: &mut Draft<'_>, why: &str) {
    enter(d, Phase::Held, why.into());
    let name = format!("{} -n {}", d.input.me.name, d.input.me.namespace);
    let retry = requests::command(d, RequestName::Retry);
    d.say(format!(
        "Held: {why}. The source stays as it is; kubectl delete vmm {name} removes what was made in B; to stop it again and go on: {retry}"
    ));
    d.source().taken_back = true;
    d.steps.clear();
    d.recheck = Some(AT_ONCE);
}
