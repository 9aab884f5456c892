//! `Creating`: the disks are proven, then ports and server are made in the destination.

use crate::{
    cloud::Server,
    crd::v1alpha1::*,
    migration::{
        decide::{
            AT_ONCE, Draft, addresses, clock, disks, gone, hooks,
            next::{Next, Stop, seen},
            parse_time, set_at, source,
        },
        names::Role,
        observed::{DestinationView, find},
        step::Step,
    },
};

/// The step that asks for the server.
const CREATE_SERVER: &str = "create-server";
/// So many seconds after it was decided to ask for the server nobody can have asked before, unless that is told.
const FIRST_ASK_SECONDS: i64 = 15;

pub(super) fn next(d: &mut Draft<'_>) -> Result<Next, Stop> {
    let requested = d.destination().server_requested_at.is_some();
    if requested
        && let Some(view) = d.input.seen.destination.view()
        && let Some(server) = view.server()
    {
        return built(d, server);
    }
    let source = source::untouched(d)?;
    disks::all(d)?;
    let view = seen(&d.input.seen.destination)?;
    // What was not looked for must not be made.
    if !view.whole {
        let what = "All disks are in the destination; looking for ports and server there";
        return Err(Stop::waiting(what).again(AT_ONCE));
    }
    hooks::gate(d, HookPhase::BeforeCreate)?;
    ports(d, view)?;
    asked_once(d, view)?;
    // B is asked for only when A is seen SHUTOFF and was not run since: both were seen in this very pass.
    debug_assert_eq!(source.status, "SHUTOFF");
    let (now, waiting) = (d.now(), Stop::waiting("Creating the server in the destination"));
    if d.destination().server_requested_at.is_none() {
        d.destination().server_requested_at = Some(now);
        d.note("asking for the server");
        return Err(waiting.again(AT_ONCE));
    }
    d.destination().gone_since = None;
    d.step(Step::CreateServer);
    Err(waiting)
}

/// The server is asked for once. Where an answer may have been lost it is asked for again only when it is proven that
/// none was made.
fn asked_once(d: &mut Draft<'_>, view: &DestinationView) -> Result<(), Stop> {
    let Some(asked) = d.destination().server_requested_at.clone() else { return Ok(()) };
    let failed = d.status.trouble.clone().filter(|t| t.what == CREATE_SERVER);
    if failed.is_none() && !d.overdue(asked.0, FIRST_ASK_SECONDS) {
        return Ok(());
    }
    match gone::destination(d, view) {
        Ok(gone::Destination::Gone) => Ok(()),
        _ => {
            let lost = format!("the server was asked for at {}, and its answer is not known", clock(asked.0));
            Err(Stop::trouble(CREATE_SERVER, failed.map_or(lost, |t| t.message)))
        }
    }
}

fn ports(d: &mut Draft<'_>, view: &DestinationView) -> Result<(), Stop> {
    let count = d.status.plan.as_ref().map_or(0, |p| p.ports.len());
    let mut waits = false;
    for index in 0..i32::try_from(count).unwrap_or(i32::MAX) {
        waits |= !port(d, view, index);
    }
    if waits { Err(Stop::waiting("Creating ports in the destination")) } else { Ok(()) }
}

/// True: it is made, recorded and named.
fn port(d: &mut Draft<'_>, view: &DestinationView, index: i32) -> bool {
    let Some(port) = find(&view.ports, Role::Port, index) else {
        d.step(Step::CreatePort { index });
        return false;
    };
    let known = d.input.status.destination.as_ref();
    let recorded = known.and_then(|x| x.port_ids.get(index.unsigned_abs() as usize));
    if recorded != Some(&port.id) {
        set_at(&mut d.destination().port_ids, index, port.id.clone());
        d.recheck = Some(AT_ONCE);
        return false;
    }
    let named = d.input.me.parse_name(&port.name).is_none();
    if !named {
        // Its id is in status, so it may take its final name.
        d.step(Step::FinishPort { index, port_id: port.id.clone() });
    }
    named
}

/// The server was asked for and is seen.
fn built(d: &mut Draft<'_>, server: &Server) -> Result<Next, Stop> {
    let now = d.now();
    // The root disk is made of its image while the server is built.
    let of_image = d.status.disks.iter().filter(|k| k.kind == DiskKind::Image).map(|k| k.size_gib);
    let bound = d.step_bound(of_image.max().unwrap_or(0));
    let cloud = &d.input.spec.destination.cloud;
    let x = d.destination();
    let asked = x.server_requested_at.as_ref().map_or(now.0, |t| t.0);
    let since = parse_time(&server.created).unwrap_or(asked);
    x.server_id = Some(server.id.clone());
    x.server_status = Some(server.status.clone());
    x.addresses = addresses(server);
    match server.status.as_str() {
        "ACTIVE" => {
            x.active_at.get_or_insert(now);
            d.status.running_in = Some(RunningIn::B);
            d.say("The server is ACTIVE in the destination");
            Ok(Next::enter(Phase::Verifying, format!("server {} is ACTIVE", server.name)))
        }
        "ERROR" => {
            let fault = server.fault.as_deref().unwrap_or("the cloud gave no reason");
            Err(Stop::unrecoverable(format!("{cloud}: server {} went to ERROR: {fault}", server.id)))
        }
        other if d.overdue(since, bound) => {
            Err(Stop::unrecoverable(format!("server {} is still {other} since {since}", server.id)))
        }
        other => Err(Stop::waiting(format!(
            "Waiting for {cloud} to build server {} since {}: {other}",
            server.id,
            clock(since)
        ))),
    }
}
