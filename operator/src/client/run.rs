//! `run`: create, follow, run client hooks, and end with the migration's result.

use super::{
    cli::RunArgs,
    connect::Session,
    create::{add_client_hook, scaffold},
    end::{Done, Stop, explain, local},
    follow::{Follow, follow},
    hooks::{ScriptFor, useless},
};
use crate::crd::v1alpha1::*;
use kube::{Api, ResourceExt, api::PostParams};
use std::{io::Read, path::Path, str::FromStr};

/// `kubectl vmmigration run`
pub async fn run(mut session: Session, args: &RunArgs) -> Done {
    let (mut object, notes) = match &args.file {
        Some(file) => (from_file(file)?, vec![]),
        None => scaffold(&args.moving).await?,
    };
    hooks_for(&mut object.spec, &args.hooks, args.file.is_none())?;
    if let (Some(namespace), false) = (object.namespace(), session.named) {
        session.namespace = namespace;
    }
    for note in &notes {
        eprintln!("{note}");
    }
    let name = object.name_any();
    create_or_find(&session.api(), &object, &session.namespace).await?;
    let how = Follow::of(&args.follow).with_scripts(args.hooks.clone()).ending_when_blocked();
    follow(&session, &name, how).await
}

fn from_file(path: &Path) -> Result<VmMigration, Stop> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(local("standard input"))?;
    } else {
        text = std::fs::read_to_string(path).map_err(local(path.display()))?;
    }
    let object: VmMigration = serde_saphyr::from_str(&text)
        .map_err(|e| Stop::usage(format!("{}: needed is one VmMigration: {e}", path.display())))?;
    if object.metadata.name.is_none() {
        return Err(Stop::usage(format!("{}: metadata.name is missing", path.display())));
    }
    Ok(object)
}

/// Scripts for phases get hooks, where the object is made from options. A file has its own.
fn hooks_for(spec: &mut VmMigrationSpec, scripts: &[ScriptFor], made_here: bool) -> Result<(), Stop> {
    if !made_here {
        return Ok(());
    }
    for key in useless(scripts, spec).into_iter().map(str::to_string).collect::<Vec<_>>() {
        let phase = HookPhase::from_str(&key).map_err(|_| {
            let phases =
                <HookPhase as strum::IntoEnumIterator>::iter().map(|p| p.to_string()).collect::<Vec<_>>();
            Stop::usage(format!("--hook {key}: no such phase; there are {}", phases.join(", ")))
        })?;
        add_client_hook(spec, phase);
    }
    Ok(())
}

/// The same migration that is there already is followed: so the command can be run again.
async fn create_or_find(api: &Api<VmMigration>, object: &VmMigration, namespace: &str) -> Result<(), Stop> {
    let name = object.name_any();
    let mut fresh = object.clone();
    // The API that is called says the namespace.
    fresh.metadata.namespace = None;
    match api.create(&PostParams::default(), &fresh).await {
        Ok(_) => {
            println!("vmmigration.vmmigration.io/{name} created");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let there = api.get(&name).await.map_err(explain(format!("reading VmMigration {name}")))?;
            same(&there, object)?;
            println!("vmmigration.vmmigration.io/{name} is there already; following it");
            Ok(())
        }
        Err(error) => Err(explain(format!("creating VmMigration {name} in namespace {namespace}"))(error)),
    }
}

/// Is it the move of the same server to the same cloud?
fn same(there: &VmMigration, wanted: &VmMigration) -> Result<(), Stop> {
    let of = |o: &VmMigration| (o.spec.source.clone(), o.spec.destination.cloud.clone());
    if of(there) == of(wanted) {
        return Ok(());
    }
    let (source, to) = of(there);
    Err(Stop::failed(format!(
        "VmMigration {} is there already, and moves {} from {} to {to}. Give another --name, or delete it: kubectl delete vmm {}",
        there.name_any(),
        source.server,
        source.cloud,
        there.name_any()
    )))
}

#[cfg(test)]
mod tests {
    use super::{super::watch::tests::object, *};
    use crate::client::end::Ended;
    use serde_json::json;

    #[test]
    fn the_same_migration_is_followed_and_another_is_not() {
        let (one, mut other) = (object(json!({})), object(json!({"phase": "Succeeded"})));
        assert!(same(&one, &other).is_ok());
        other.spec.source.server = "web-2".into();
        assert!(same(&other, &one).unwrap_err().message.contains("moves web-2 from site-a to site-b"));
    }

    #[test]
    fn scripts_for_phases_get_hooks() {
        let script = |key: &str| ScriptFor { key: key.into(), path: "/x".into() };
        let mut spec = object(json!({})).spec;
        hooks_for(&mut spec, &[script("BeforeStop"), script("Finally")], true).unwrap();
        assert_eq!(spec.hooks.len(), 2);
        let error = hooks_for(&mut spec, &[script("Sometime")], true).unwrap_err();
        assert_eq!(error.ended, Ended::Usage);
        assert!(error.message.contains("BeforePreflight, BeforeStop"), "{error}");
    }

    #[test]
    fn files_are_read_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.yaml");
        std::fs::write(&path, include_str!("../../../config/samples/migration-minimal.yaml")).unwrap();
        assert_eq!(from_file(&path).unwrap().name_any(), "web-1");
        std::fs::write(&path, "kind: Pod\nmetadata: {name: x}\n").unwrap();
        assert_eq!(from_file(&path).unwrap_err().ended, Ended::Usage);
        assert_eq!(from_file(&directory.path().join("none.yaml")).unwrap_err().ended, Ended::Failed);
    }
}
