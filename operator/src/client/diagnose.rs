//! `diagnose`: what somebody who helps needs, in one archive without secrets.

use super::{
    cli::DiagnoseArgs,
    connect::Session,
    end::{Done, Ended, Stop, local},
    list::yaml,
    mask,
};
use crate::{
    crd::{stored::Stored, v1alpha1::*},
    migration::names::LABEL_MIGRATION,
};
use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, LogParams},
    core::NamespaceResourceScope,
};
use serde::Serialize;
use serde_json::json;
use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf};

/// How many lines of a log are taken.
const LOG_LINES: i64 = 5000;

/// Files of the archive, and why some are not there.
#[derive(Default)]
struct Bundle {
    files: Vec<(String, String)>,
    missing: Vec<String>,
}

/// `kubectl vmmigration diagnose`
pub async fn run(session: Session, args: &DiagnoseArgs) -> Done {
    let bundle = collect(&session, args).await?;
    if bundle.files.is_empty() {
        return Err(Stop::failed(format!("there is nothing to collect:\n  {}", bundle.missing.join("\n  "))));
    }
    let now = Timestamp::now();
    let name = format!("diagnose-{}-{}", args.name, now.strftime("%Y%m%dT%H%M%SZ"));
    let path = args.file.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    let archive = archive(&name, &bundle, now).map_err(local("making the archive"))?;
    let mut options = OpenOptions::new();
    // Nobody else reads it, and nothing that is there is overwritten.
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(&path).map_err(local(path.display()))?;
    file.write_all(&archive).map_err(local(path.display()))?;
    println!("{}: {} files, {} KiB", path.display(), bundle.files.len() + 1, archive.len().div_ceil(1024));
    bundle.missing.iter().for_each(|m| println!("  not in it: {m}"));
    println!("Secrets are not in it, and what looks like one is masked. Look through it before you send it.");
    Ok(Ended::Well)
}

/// An object as it is kept, whether or not this version can read it.
type Raw = Stored<DynamicObject>;

fn raw<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(session: &Session) -> Api<Raw> {
    let kind = ApiResource::erase::<K>(&());
    Api::namespaced_with(session.client.clone(), &session.namespace, &kind)
}

async fn collect(session: &Session, args: &DiagnoseArgs) -> Result<Bundle, Stop> {
    let mut bundle = Bundle::default();
    // Without the object there may still be its report and events.
    let mut uid = None;
    match raw::<VmMigration>(session).get(&args.name).await {
        Ok(migration) => {
            uid = migration.uid();
            bundle.objects("migration.yaml", &[migration])?;
        }
        Err(error) => bundle.missing.push(format!("migration.yaml: {}", short(&error))),
    }
    let of_migration =
        |r: &Raw| r.0.as_ref().is_ok_and(|r| r.data.pointer("/spec/migration") == Some(&json!(args.name)));
    bundle.list::<VmMigrationReport>("reports.yaml", session, of_migration).await?;
    bundle.list::<OpenStackCloud>("clouds.yaml", session, |_| true).await?;
    bundle.list::<ObjectStore>("stores.yaml", session, |_| true).await?;
    bundle.list::<Event>("events.yaml", session, |_| true).await?;
    if let Some(uid) = uid {
        let of_migration = ListParams::default().labels(&format!("{LABEL_MIGRATION}={uid}"));
        bundle.logs("hooks", &session.api(), &of_migration).await?;
    }
    let of_operator = ListParams::default().labels("app.kubernetes.io/name=vmmigration");
    bundle
        .logs("operator", &Api::namespaced(session.client.clone(), &args.operator_namespace), &of_operator)
        .await?;
    Ok(bundle)
}

impl Bundle {
    fn objects<K: Serialize>(&mut self, file: &str, objects: &[K]) -> Result<(), Stop> {
        let mut text = String::new();
        for object in objects {
            let mut value = serde_json::to_value(object).map_err(|e| Stop::failed(e.to_string()))?;
            mask::object(&mut value);
            text.push_str("---\n");
            text.push_str(&yaml(&value)?);
        }
        self.files.push((file.into(), text));
        Ok(())
    }

    async fn list<K>(
        &mut self,
        file: &str,
        session: &Session,
        wanted: impl Fn(&Raw) -> bool,
    ) -> Result<(), Stop>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match raw::<K>(session).list(&ListParams::default()).await {
            Ok(found) => {
                let objects: Vec<Raw> = found.items.into_iter().filter(|k| wanted(k)).collect();
                self.objects(file, &objects)
            }
            Err(error) => {
                self.missing.push(format!("{file}: {}", short(&error)));
                Ok(())
            }
        }
    }

    async fn logs(&mut self, what: &str, api: &Api<Pod>, wanted: &ListParams) -> Result<(), Stop> {
        let pods = match api.list(wanted).await {
            Ok(pods) => pods.items,
            Err(error) => {
                self.missing.push(format!("logs of {what}: {}", short(&error)));
                return Ok(());
            }
        };
        if pods.is_empty() {
            self.missing.push(format!("logs of {what}: no pods"));
        }
        for pod in pods {
            let name = pod.name_any();
            let lines = LogParams { tail_lines: Some(LOG_LINES), ..Default::default() };
            match api.logs(&name, &lines).await {
                Ok(log) => self.files.push((format!("logs/{what}/{name}.log"), mask::text(&log))),
                Err(error) => self.missing.push(format!("log of {name}: {}", short(&error))),
            }
        }
        Ok(())
    }
}

fn short(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => mask::text(&status.message),
        other => mask::text(&other.to_string()),
    }
}

fn archive(directory: &str, bundle: &Bundle, now: Timestamp) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzEncoder::new(vec![], Compression::default()));
    let about = format!(
        "kubectl vmmigration {}, {now}\n\nNot in it:\n{}",
        env!("CARGO_PKG_VERSION"),
        bundle.missing.iter().map(|m| format!("- {m}\n")).collect::<String>()
    );
    let about = ("about.txt".to_string(), about);
    for (name, text) in std::iter::once(&about).chain(&bundle.files) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now.as_second().unsigned_abs());
        tar.append_data(&mut header, format!("{directory}/{name}"), text.as_bytes())?;
    }
    tar.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read;

    #[test]
    fn an_archive_has_every_file_and_says_what_is_missing() {
        let mut bundle = Bundle { missing: vec!["events.yaml: forbidden".into()], ..Default::default() };
        let object = super::super::watch::tests::object(json!({"message": "password=hunter2"}));
        bundle.objects("migration.yaml", &[object]).unwrap();
        bundle.files.push(("logs/operator/x.log".into(), "started\n".into()));
        let bytes = archive("d", &bundle, Timestamp::from_second(1_800_000_000).unwrap()).unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
        let mut found = vec![];
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        let names: Vec<_> = found.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["d/about.txt", "d/migration.yaml", "d/logs/operator/x.log"]);
        assert!(found[0].1.contains("- events.yaml: forbidden"));
        assert!(
            found[1].1.contains("password=(masked)") && !found[1].1.contains("hunter2"),
            "{}",
            found[1].1
        );
    }
}
