//! `Succeeded`: what was only on the way goes, both servers stay; until the source is retired, or the way back is wanted.

use crate::{
    crd::v1alpha1::*,
    migration::{
        decide::{
            AT_ONCE, Draft, ROLLED_BACK, cleanup, gone,
            next::{Next, Stop},
            recheck, requests, retirement, way_back, words,
        },
        names::MARK_CLAIM,
        step::Step,
    },
};

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    if d.status.rollback.is_some() {
        return go_back(d);
    }
    if d.status.cleaned_up_at.is_some() {
        d.recheck = None;
        if retirement::wanted(d) {
            return Ok(retire(d));
        }
        words::of_success(d);
        return Ok(Next::Stay);
    }
    cleanup::after_success(d)
}

fn retire(d: &mut Draft<'_>) -> Next {
    requests::look_again(d);
    d.renew_job(recheck::OF_DESTINATION);
    d.say("Retiring the source: looking at both sides again");
    let by_policy = d.status.retirement.as_ref().is_some_and(|r| r.by_policy);
    Next::enter(Phase::Retiring, if by_policy { "by spec.sourcePolicy" } else { "by spec.requests.retire" })
}

/// A rollback was asked for: is there a way back? Only then the destination is stopped.
fn go_back(d: &mut Draft<'_>) -> Result<Next, Stop> {
    let closed = match gone::source(d) {
        Ok(gone::Source::Found(_, server)) => closed(d, server.metadata.get(MARK_CLAIM), &server.name),
        Ok(gone::Source::Gone) => Some(format!("the old server is gone from {}", d.input.spec.source.cloud)),
        Err(stop) => {
            d.back_waits = Some(WayBackStage::Source);
            return Err(stop);
        }
    };
    d.status.way_back = None;
    let to = d.input.spec.destination.cloud.clone();
    if let Some(why) = closed {
        let text = format!("not rolled back, {} in {to} is left as it is: {why}", d.input.spec.source.server);
        requests::refuse_later(d, RequestName::Rollback, &text);
        d.status.rollback = None;
        d.note(text.clone());
        return Err(Stop::waiting(text).again(AT_ONCE));
    }
    let x = d.destination().clone();
    let (since, id) = (x.active_at.or(x.ready_at).map(|t| t.0.to_string()), x.server_id.unwrap_or_default());
    d.status.finished_at = None;
    requests::look_again(d);
    d.fail(
        ROLLED_BACK,
        format!(
            "rolled back by request: what was written in {to} since {} stays behind in server {id}, which is stopped and kept",
            since.unwrap_or_default()
        ),
    );
    if way_back::starts_anyway(d) && d.input.seen.report_exists {
        d.step(Step::FinishReport);
    }
    Ok(Next::enter(Phase::RollingBack, "going back to the source"))
}

/// Why there is no way back to a source with this claim.
fn closed(d: &Draft<'_>, claim: Option<&String>, name: &str) -> Option<String> {
    let from = &d.input.spec.source.cloud;
    match claim {
        Some(uid) if *uid == d.input.me.uid => None,
        Some(uid) => Some(format!("server {name} in {from} is claimed by another migration, {uid}")),
        None => Some(format!("server {name} in {from} does not carry this migration's mark any more")),
    }
}
