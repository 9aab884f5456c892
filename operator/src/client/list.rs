//! `list`: the migrations, as kubectl shows them.

use super::{
    cli::{ListArgs, Listing},
    connect::Session,
    end::{Done, Ended, Stop, explain},
    table::table,
    text, watch,
};
use crate::crd::{stored::Stored, v1alpha1::VmMigration};
use jiff::Timestamp;
use kube::{Api, ResourceExt, api::ListParams};
use serde::Serialize;

/// `kubectl vmmigration list`
pub async fn run(session: Session, args: &ListArgs) -> Done {
    let api = match args.all_namespaces {
        true => Api::all(session.client.clone()),
        false => session.api::<Stored<VmMigration>>(),
    };
    let place = if args.all_namespaces {
        "all namespaces".into()
    } else {
        format!("namespace {}", session.namespace)
    };
    let found = api
        .list(&ListParams::default())
        .await
        .map_err(explain(format!("listing VmMigrations in {place}")))?;
    let (objects, unreadable) = Stored::split(found.items);
    unreadable.iter().for_each(|why| eprintln!("{}", text::clean(&text::unreadable(why))));
    let objects = objects.into_iter().map(text::clean_object).collect::<Result<Vec<_>, _>>();
    let objects = objects.map_err(|e| Stop::failed(e.to_string()))?;
    match args.output {
        Listing::Table if objects.is_empty() && unreadable.is_empty() => {
            eprintln!("No VmMigrations in {place}.")
        }
        Listing::Table => {
            rows(&objects, args.all_namespaces, Timestamp::now())
                .lines()
                .for_each(|line| println!("{}", fit(line)));
        }
        Listing::Yaml => print!("{}", yaml(&objects)?),
        Listing::Json => println!("{}", json(&objects)?),
    }
    Ok(if unreadable.is_empty() { Ended::Well } else { Ended::Failed })
}

fn rows(objects: &[VmMigration], all: bool, now: Timestamp) -> String {
    let row = |o: &VmMigration| {
        let s = o.status.clone().unwrap_or_default();
        let age = o.creation_timestamp().map(|t| text::age(now.duration_since(t.0).as_secs()));
        let or_empty = |text: Option<String>| text.unwrap_or_default();
        let name = if all {
            format!("{}/{}", o.namespace().unwrap_or_default(), o.name_any())
        } else {
            o.name_any()
        };
        [
            name,
            s.phase.unwrap_or_default().to_string(),
            or_empty(s.progress),
            or_empty(s.eta),
            s.running_in.map(watch::place).unwrap_or_default().into(),
            or_empty(s.down),
            or_empty(age),
            or_empty(s.message),
        ]
    };
    let header = ["NAME", "PHASE", "PROGRESS", "ETA", "RUNNING-IN", "DOWN", "AGE", "MESSAGE"];
    table(&header, objects.iter().map(row))
}

/// On a terminal a line is cut where it ends; elsewhere it is whole.
fn fit(line: &str) -> String {
    match text::is_terminal().then(|| console::Term::stdout().size_checked()).flatten() {
        Some((_, width)) => console::truncate_str(line, usize::from(width), "…").into_owned(),
        None => line.to_string(),
    }
}

/// As YAML, for programs.
pub fn yaml(value: &impl Serialize) -> Result<String, Stop> {
    serde_saphyr::to_string(value).map_err(|e| Stop::failed(format!("printing YAML: {e}")))
}

/// As JSON, for programs.
pub fn json(value: &impl Serialize) -> Result<String, Stop> {
    serde_json::to_string_pretty(value).map_err(|e| Stop::failed(format!("printing JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each() {
        let mut one = watch::tests::copying();
        one.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        let text = rows(&[one.clone()], false, Timestamp::from_second(90).unwrap());
        assert_eq!(
            text,
            "NAME   PHASE         PROGRESS  ETA  RUNNING-IN  DOWN   AGE  MESSAGE\n\
             web-1  Transferring  21%            none        1m10s  90s  Backing up disk 0: 42% (0/2 disks done)\n"
        );
        assert!(rows(&[one], true, Timestamp::UNIX_EPOCH).contains("team/web-1"));
    }
}
