//! `create`: the VmMigration of a server, filled in from the live server where this machine can look at it.

use super::{
    cli::{Cluster, CreateArgs, Document, DryRun, Move},
    connect::Session,
    end::{Done, Ended, Stop, explain},
    local::{self, LocalClouds},
};
use crate::{
    crd::v1alpha1::*,
    openstack::{Cloud, CloudError, Flavor, Network, Server},
};
use kube::{ResourceExt, api::PostParams};
use serde_json::json;
use std::collections::BTreeSet;

/// `kubectl vmmigration create`
pub async fn run(cluster: &Cluster, args: &CreateArgs) -> Done {
    let (mut object, notes) = scaffold(&args.moving).await?;
    for phase in &args.client_hooks {
        add_client_hook(&mut object.spec, *phase);
    }
    if args.dry_run == Some(DryRun::Client) {
        object.metadata.namespace.clone_from(&cluster.namespace);
        print!("{}", document(&object, &notes, args.output)?);
        return Ok(Ended::Well);
    }
    let session = Session::open(cluster).await?;
    let parameters = PostParams { dry_run: args.dry_run.is_some(), ..Default::default() };
    let what = format!("creating VmMigration {} in namespace {}", object.name_any(), session.namespace);
    let made = session.api().create(&parameters, &object).await.map_err(explain(what))?;
    for note in &notes {
        eprintln!("{note}");
    }
    if args.dry_run.is_some() {
        print!("{}", document(&object, &[], args.output)?);
        return Ok(Ended::Well);
    }
    let name = made.name_any();
    println!("vmmigration.vmmigration.io/{name} created");
    println!("To follow it: kubectl vmmigration watch {name}");
    if object.spec.cutover.mode == CutoverMode::Manual {
        println!("The server keeps running until: kubectl vmmigration cutover {name}");
    }
    Ok(Ended::Well)
}

/// The object as it would be applied; notes are comments at its head.
fn document(object: &VmMigration, notes: &[String], how: Document) -> Result<String, Stop> {
    let failed = |e: String| Stop::failed(format!("printing the object: {e}"));
    if how == Document::Json {
        return serde_json::to_string_pretty(object).map(|t| t + "\n").map_err(|e| failed(e.to_string()));
    }
    let yaml = serde_saphyr::to_string(object).map_err(|e| failed(e.to_string()))?;
    let comments: String = notes.iter().flat_map(|n| n.lines()).map(|l| format!("# {l}\n")).collect();
    Ok(super::text::clean(&(comments + &yaml)))
}

/// A hook of a phase that a client runs, unless there is one.
pub fn add_client_hook(spec: &mut VmMigrationSpec, phase: HookPhase) {
    let name: String = phase.to_string().chars().fold(String::from("client"), |name, c| {
        if c.is_uppercase() { format!("{name}-{}", c.to_ascii_lowercase()) } else { format!("{name}{c}") }
    });
    if spec.hooks.iter().any(|h| h.name == name) {
        return;
    }
    spec.hooks.push(Hook {
        name,
        phase,
        timeout: None,
        retries: None,
        on_error: None,
        capture_output: None,
        job: None,
        ssh: None,
        client: Some(ClientHook {}),
    });
}

/// The object, and what there is to know about it.
pub async fn scaffold(moving: &Move) -> Result<(VmMigration, Vec<String>), Stop> {
    let mut object = shortest(moving)?;
    let mut notes = vec![];
    if moving.no_look {
        return Ok((object, notes));
    }
    let clouds = local::find().map_err(Stop::failed)?;
    match look(&object, clouds.as_ref(), &mut notes).await {
        Ok(Some(seen)) => notes.extend(fill(&mut object.spec, moving, &seen)?),
        Ok(None) => {}
        Err(why) => {
            let hint = "To write it without looking: --no-look";
            return Err(Stop::failed(format!("looking at the live server: {why}\n{hint}")));
        }
    }
    Ok((object, notes))
}

/// From the options alone.
fn shortest(moving: &Move) -> Result<VmMigration, Stop> {
    let needed = |option: &Option<String>, name: &str| {
        option.clone().filter(|v| !v.is_empty()).ok_or_else(|| Stop::usage(format!("{name} is needed")))
    };
    let server = needed(&moving.server, "--server NAME")?;
    let pair = |(from, to): &(String, String)| json!({"from": from, "to": to});
    let spec = json!({
        "source": {"cloud": needed(&moving.from, "--from CLOUD")?, "server": server},
        "destination": {
            "cloud": needed(&moving.to, "--to CLOUD")?,
            "flavor": moving.flavor,
            "networks": moving.networks.iter().map(pair).collect::<Vec<_>>(),
            "volumeTypes": moving.volume_types.iter().map(pair).collect::<Vec<_>>(),
        },
        "cutover": moving.cutover.until(moving.not_after)?,
        "store": moving.store,
    });
    let spec = serde_json::from_value(spec).map_err(|e| Stop::failed(e.to_string()))?;
    let name = moving.name.clone().unwrap_or_else(|| object_name(&server));
    if name.is_empty() {
        return Err(Stop::usage(format!("no name can be made from {server:?}; give --name")));
    }
    let mut object = VmMigration::new(&name, spec);
    // What the definition is annotated with is not meant for objects.
    object.metadata.annotations = None;
    Ok(object)
}

/// A name for the object that is like the server's: lower case, digits, dashes.
pub fn object_name(server: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = server.chars().map(plain).collect();
    let parts: Vec<&str> = name.split('-').filter(|p| !p.is_empty()).collect();
    let name: String = parts.join("-").chars().take(63).collect();
    name.trim_end_matches('-').to_string()
}

/// What was seen of the server, and what there is in the destination.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    server: Server,
    /// Names of its networks.
    networks: BTreeSet<String>,
    /// Types of its volumes.
    volume_types: BTreeSet<String>,
    disks: usize,
    /// What there is in the destination; unset: it was not looked at.
    there: Option<There>,
}

/// What there is in the destination.
#[derive(Clone, Debug, Default)]
pub struct There {
    networks: Vec<Network>,
    volume_types: Vec<String>,
    flavors: Vec<Flavor>,
}

async fn look(
    object: &VmMigration,
    clouds: Option<&LocalClouds>,
    notes: &mut Vec<String>,
) -> Result<Option<Seen>, String> {
    let (from, to) = (&object.spec.source.cloud, &object.spec.destination.cloud);
    let Some(clouds) = clouds else {
        notes.push("The live server was not looked at: this machine has no clouds.yaml. Preflight says what is missing.".into());
        return Ok(None);
    };
    if !clouds.has(from) {
        let path = clouds.path.display();
        notes.push(format!(
            "The live server was not looked at: {path} has no cloud {from}. Preflight says what is missing."
        ));
        return Ok(None);
    }
    let cloud = clouds.connect(from).await?;
    let mut seen = look_at_source(&cloud, &object.spec.source.server).await?;
    if clouds.has(to) {
        let cloud = clouds.connect(to).await?;
        seen.there = Some(look_at_destination(&cloud).await.map_err(|e| e.to_string())?);
    } else {
        notes.push(format!("{to} was not looked at: {} has no such cloud.", clouds.path.display()));
    }
    Ok(Some(seen))
}

async fn look_at_source(cloud: &Cloud, wanted: &str) -> Result<Seen, String> {
    let mut found = cloud.find_servers(wanted).await.map_err(|e| e.to_string())?;
    let server = match (found.pop(), found.as_slice()) {
        (Some(server), []) => server,
        (None, _) => {
            let all = cloud.list_servers().await.map_err(|e| e.to_string())?;
            let names: Vec<_> = all.into_iter().map(|s| s.name).collect();
            return Err(format!("{} has no server {wanted:?}; it has: {}", cloud.name(), names.join(", ")));
        }
        (Some(one), others) => {
            let ids: Vec<_> = others.iter().chain([&one]).map(|s| s.id.clone()).collect();
            return Err(format!(
                "{} has several servers {wanted:?}; take an id: {}",
                cloud.name(),
                ids.join(", ")
            ));
        }
    };
    let failed = |e: CloudError| e.to_string();
    let ports = cloud.ports_of_device(&server.id).await.map_err(failed)?;
    let networks = cloud.list_networks().await.map_err(failed)?;
    let of_port = |id: &String| networks.iter().find(|n| &n.id == id).map(|n| n.name.clone());
    let mut types = BTreeSet::new();
    for id in &server.volumes_attached {
        types.extend(cloud.get_volume(id).await.map_err(failed)?.and_then(|v| v.volume_type));
    }
    Ok(Seen {
        networks: ports.iter().filter_map(|p| of_port(&p.network_id)).collect(),
        volume_types: types,
        disks: server.volumes_attached.len() + usize::from(server.image_id.is_some()),
        server,
        there: None,
    })
}

async fn look_at_destination(cloud: &Cloud) -> Result<There, CloudError> {
    Ok(There {
        networks: cloud.list_networks().await?,
        volume_types: cloud.list_volume_types().await?.into_iter().map(|t| t.name).collect(),
        flavors: cloud.list_flavors().await?,
    })
}

/// Fills in what has no counterpart of the same name; gives what there is to say. Where a choice is needed it is asked
/// for, all of them at once.
pub fn fill(spec: &mut VmMigrationSpec, moving: &Move, seen: &Seen) -> Result<Vec<String>, Stop> {
    let server = &seen.server;
    let mut notes = vec![format!(
        "{} ({}) in {}: {}, flavor {}, {} disk(s), network {}",
        server.name,
        server.id,
        spec.source.cloud,
        server.status,
        server.flavor.original_name,
        seen.disks,
        join(seen.networks.iter())
    )];
    let Some(there) = &seen.there else { return Ok(notes) };
    let mut open = vec![];
    for name in &seen.networks {
        match network(name, spec, there) {
            Choice::Same => {}
            Choice::Take(to) => {
                notes
                    .push(format!("network {name} becomes {to}, the only one of {}", spec.destination.cloud));
                let mapping = NetworkMapping { from: name.clone(), to, fixed_ip: None, mac: None };
                spec.destination.networks.push(mapping);
            }
            Choice::Open(there) => open.push(format!("--network {name}=ONE-OF({there})")),
        }
    }
    for name in &seen.volume_types {
        match volume_type(name, spec, there) {
            Choice::Same => {}
            Choice::Take(to) => {
                notes.push(format!(
                    "volume type {name} becomes {to}, the only one of {}",
                    spec.destination.cloud
                ));
                spec.destination.volume_types.push(NameMapping { from: name.clone(), to });
            }
            Choice::Open(there) => open.push(format!("--volume-type {name}=ONE-OF({there})")),
        }
    }
    if moving.flavor.is_none() {
        match flavor(server, there) {
            Choice::Same => {}
            Choice::Take(name) => {
                notes.push(format!(
                    "flavor {} is not in {}: {name} is the smallest that fits",
                    server.flavor.original_name, spec.destination.cloud
                ));
                spec.destination.flavor = Some(name);
            }
            Choice::Open(there) => open.push(format!("--flavor ONE-OF({there})")),
        }
    }
    if open.is_empty() {
        return Ok(notes);
    }
    Err(Stop::usage(format!(
        "{} has nothing of the same name; choose, and say it with\n  {}",
        spec.destination.cloud,
        open.join("\n  ")
    )))
}

/// What takes the place of something.
enum Choice {
    /// The same name, or what was chosen already.
    Same,
    /// The only one that can.
    Take(String),
    /// Somebody has to choose among these.
    Open(String),
}

fn network(name: &str, spec: &VmMigrationSpec, there: &There) -> Choice {
    let usable: Vec<&Network> = there.networks.iter().filter(|n| !n.subnets.is_empty()).collect();
    let chosen = spec.destination.networks.iter().any(|m| m.from == name);
    if chosen || usable.iter().any(|n| n.name == name) {
        return Choice::Same;
    }
    only(usable.iter().map(|n| n.name.as_str()))
}

fn volume_type(name: &str, spec: &VmMigrationSpec, there: &There) -> Choice {
    // Types with two underscores are the cloud's own default, which nobody asks for.
    let usable = || there.volume_types.iter().filter(|t| !t.starts_with("__"));
    let chosen = spec.destination.volume_types.iter().any(|m| m.from == name);
    if chosen || usable().any(|t| t == name) {
        return Choice::Same;
    }
    only(usable().map(String::as_str))
}

fn flavor(server: &Server, there: &There) -> Choice {
    let wanted = &server.flavor;
    if there.flavors.iter().any(|f| f.name == wanted.original_name) {
        return Choice::Same;
    }
    let fits = |f: &&Flavor| f.ram >= wanted.ram && f.vcpus >= wanted.vcpus && f.disk >= wanted.disk;
    match there.flavors.iter().filter(fits).min_by_key(|f| (f.ram, f.vcpus, f.disk)) {
        Some(f) => Choice::Take(f.name.clone()),
        None => Choice::Open(join(there.flavors.iter().map(|f| &f.name))),
    }
}

fn only<'a>(names: impl Iterator<Item = &'a str>) -> Choice {
    let names: BTreeSet<&str> = names.collect();
    match names.iter().collect::<Vec<_>>().as_slice() {
        [one] => Choice::Take((**one).to_string()),
        many => Choice::Open(many.iter().map(|n| **n).collect::<Vec<_>>().join(", ")),
    }
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.cloned().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moving() -> Move {
        Move {
            from: Some("site-a".into()),
            server: Some("Web 1 (prod)".into()),
            to: Some("site-b".into()),
            ..Default::default()
        }
    }

    fn seen() -> Seen {
        let server = json!({"id": "s1", "name": "web-1", "status": "ACTIVE",
            "flavor": {"original_name": "m1", "ram": 512, "vcpus": 1, "disk": 1}});
        let set = |name: &str| BTreeSet::from([name.to_string()]);
        Seen {
            server: serde_json::from_value(server).unwrap(),
            networks: set("lan"),
            volume_types: set("nfs"),
            disks: 2,
            there: None,
        }
    }

    fn there(networks: &[&str], types: &[&str], flavors: &[(&str, i64)]) -> Option<There> {
        let network =
            |name: &&str| Network { name: (*name).into(), subnets: vec!["s".into()], ..Default::default() };
        let flavor =
            |f: &(&str, i64)| Flavor { name: f.0.into(), ram: f.1, vcpus: 1, disk: 1, ..Default::default() };
        Some(There {
            networks: networks.iter().map(network).collect(),
            volume_types: types.iter().map(ToString::to_string).collect(),
            flavors: flavors.iter().map(flavor).collect(),
        })
    }

    #[test]
    fn the_shortest_object() {
        let yaml = document(&shortest(&moving()).unwrap(), &["one\ntwo".into()], Document::Yaml).unwrap();
        assert_eq!(
            yaml,
            "# one\n# two\napiVersion: vmmigration.io/v1alpha1\nkind: VmMigration\nmetadata:\n  name: web-1-prod\nspec:\n  \
             source:\n    cloud: site-a\n    server: Web 1 (prod)\n  destination:\n    cloud: site-b\n  cutover:\n    mode: Manual\n"
        );
        let back: VmMigration = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(back.spec, shortest(&moving()).unwrap().spec);
        let error = shortest(&Move { to: None, ..moving() }).unwrap_err();
        assert_eq!((error.ended, error.message.as_str()), (Ended::Usage, "--to CLOUD is needed"));
    }

    #[test]
    fn names_of_servers_become_names_of_objects() {
        let names = ["web-1", "Web 1 (prod)", "übung", "--", "a.b_c"].map(object_name);
        assert_eq!(names, ["web-1", "web-1-prod", "bung", "", "a-b-c"]);
        assert_eq!(object_name(&"x".repeat(255)).len(), 63);
    }

    #[test]
    fn the_same_names_need_nothing() {
        let mut object = shortest(&moving()).unwrap();
        let before = object.spec.clone();
        let seen = Seen { there: there(&["lan", "other"], &["nfs", "ssd"], &[("m1", 512)]), ..seen() };
        let notes = fill(&mut object.spec, &moving(), &seen).unwrap();
        assert_eq!((object.spec, notes.len()), (before, 1));
        assert_eq!(notes[0], "web-1 (s1) in site-a: ACTIVE, flavor m1, 2 disk(s), network lan");
    }

    #[test]
    fn what_leaves_no_choice_is_filled_in() {
        let mut object = shortest(&moving()).unwrap();
        let there =
            there(&["net-b"], &["ssd", "__DEFAULT__"], &[("big", 4096), ("fits", 600), ("small", 128)]);
        fill(&mut object.spec, &moving(), &Seen { there, ..seen() }).unwrap();
        let d = &object.spec.destination;
        assert_eq!((d.networks[0].from.as_str(), d.networks[0].to.as_str()), ("lan", "net-b"));
        assert_eq!((d.volume_types[0].to.as_str(), d.flavor.as_deref()), ("ssd", Some("fits")));
    }

    #[test]
    fn every_choice_is_asked_for_at_once() {
        let mut object = shortest(&moving()).unwrap();
        let there = || there(&["x", "y"], &["p", "q"], &[("small", 128)]);
        let error = fill(&mut object.spec, &moving(), &Seen { there: there(), ..seen() }).unwrap_err();
        for wanted in
            ["--network lan=ONE-OF(x, y)", "--volume-type nfs=ONE-OF(p, q)", "--flavor ONE-OF(small)"]
        {
            assert!(error.message.contains(wanted), "{error}");
        }
        let chosen = Move {
            networks: vec![("lan".into(), "x".into())],
            volume_types: vec![("nfs".into(), "q".into())],
            flavor: Some("small".into()),
            ..moving()
        };
        let mut object = shortest(&chosen).unwrap();
        assert!(fill(&mut object.spec, &chosen, &Seen { there: there(), ..seen() }).is_ok());
        assert_eq!(object.spec.destination.networks.len(), 1);
    }

    #[test]
    fn client_hooks_are_named_after_their_phase() {
        let mut object = shortest(&moving()).unwrap();
        for phase in [HookPhase::BeforeStop, HookPhase::BeforeStop, HookPhase::Finally] {
            add_client_hook(&mut object.spec, phase);
        }
        let names: Vec<_> = object.spec.hooks.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(names, ["client-before-stop", "client-finally"]);
    }
}
