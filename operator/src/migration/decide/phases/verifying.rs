//! `Verifying`: the new server is asked its checks; then the report; then success.

use crate::{
    cloud::Server,
    crd::v1alpha1::*,
    migration::{
        decide::{
            Draft, addresses, checks, gone, hooks,
            next::{Next, Stop, VERIFICATION_FAILED, seen},
            proven,
        },
        step::Step,
    },
};

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    if let Some(source) = d.input.seen.source.view().and_then(|v| v.found())
        && source.status == "ACTIVE"
    {
        let name = &source.name;
        let why =
            format!("server {name} was started in the source although the destination has been asked for");
        return Err(Stop::Held(why));
    }
    let view = seen(&d.input.seen.destination)?;
    let server = match gone::destination(d, view)? {
        gone::Destination::Found(server) => server,
        gone::Destination::Gone => {
            return Err(Stop::unrecoverable("the server in the destination is gone"));
        }
    };
    d.destination().server_status = Some(server.status.clone());
    d.destination().addresses = addresses(server);
    hooks::gate(d, HookPhase::AfterStart)?;
    if d.source().was_running {
        checks::of_destination(d, server)?;
    } else {
        as_stopped_as_before(d, server)?;
    }
    let now = d.now();
    d.destination().ready_at.get_or_insert(now);
    hooks::gate(d, HookPhase::AfterVerification)?;
    succeed(d)
}

/// A source that was stopped arrives stopped: Nova cannot create a stopped server, so its ports were down.
fn as_stopped_as_before(d: &mut Draft<'_>, server: &Server) -> Result<(), Stop> {
    let now = d.now();
    if d.destination().stop_requested_at.is_none() {
        d.destination().stop_requested_at = Some(now);
        return Err(Stop::written_first());
    }
    let stopping = "Stopping the server in the destination: its source was stopped, too";
    if server.status == "ACTIVE" && server.task_state.is_none() {
        d.step(Step::StopDestination { server_id: server.id.clone() });
    }
    if server.status != "SHUTOFF" {
        return Err(Stop::waiting(stopping));
    }
    d.status.running_in = Some(RunningIn::None);
    let ports = d.input.seen.destination.view().map(|v| v.ports.as_slice()).unwrap_or_default();
    let down: Vec<_> = ports.iter().filter(|(_, p)| !p.admin_state_up).map(|(_, p)| p.id.clone()).collect();
    if !down.is_empty() {
        down.into_iter().for_each(|port_id| d.step(Step::RaisePort { port_id }));
        return Err(Stop::waiting(stopping));
    }
    d.say(stopping);
    let message = "was ACTIVE, then stopped as its source was; no check can be asked of a stopped server";
    d.status.checks = vec![CheckRow { name: "active".into(), passed: true, message: message.into() }];
    Ok(())
}

fn succeed(d: &mut Draft<'_>) -> Result<Next, Stop> {
    proven::all(&d.status).map_err(|why| Stop::failed(VERIFICATION_FAILED, why))?;
    proven::record(&mut d.status.disks);
    let now = d.now();
    d.destination().ready_at.get_or_insert(now.clone());
    if !d.input.seen.report_exists {
        d.step(Step::CreateReport);
        return Err(Stop::waiting("Writing the report"));
    }
    d.status.finished_at = Some(now);
    d.status.trouble = None;
    d.status.clean_looks = 0;
    let server = d.destination().server_id.clone().unwrap_or_default();
    let (name, to) = (&d.input.spec.source.server, &d.input.spec.destination.cloud);
    d.say(format!("{name} runs in {to} as {server}; removing what was temporary"));
    Ok(Next::enter(Phase::Succeeded, "every disk has equal digests and all checks passed"))
}
