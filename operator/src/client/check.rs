//! `check`: can I migrate from here? Cluster, rights, clouds, store, this machine.

use super::{
    cli::CheckArgs,
    connect::Session,
    end::{Done, Ended, Stop, explain},
    local, text,
};
use crate::crd::{
    conditions::{self, kind},
    stored::{Stored, Unreadable},
    v1alpha1::*,
};
use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// What a client needs: ClusterRole vmmigration-tenant has all of it.
const RIGHTS: [(&str, &[&str], &str); 4] = [
    ("vmmigrations", &["get", "list", "watch"], "to follow a migration"),
    ("vmmigrations", &["create", "patch"], "to create one, to decide, and to answer client hooks"),
    ("openstackclouds", &["get", "list"], "to see the clouds"),
    ("objectstores", &["get", "list"], "to see the store"),
];

/// Nice to have.
const MORE_RIGHTS: [(&str, &[&str], &str); 1] = [("vmmigrationreports", &["get", "list"], "to read reports")];

/// How one look came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Note,
    Bad,
}

/// One look.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    verdict: Verdict,
    what: String,
    more: String,
}

fn line(verdict: Verdict, what: impl Into<String>, more: impl Into<String>) -> Line {
    Line { verdict, what: what.into(), more: more.into() }
}

/// `kubectl vmmigration check`
pub async fn run(session: Session, args: &CheckArgs) -> Done {
    // Everything that follows would fail in the same way.
    let known = session.api::<Stored<VmMigration>>().list(&ListParams::default().limit(1)).await;
    if let Err(error) = known
        && !(matches!(&error, kube::Error::Api(s) if s.code == 403))
    {
        return Err(explain("asking the cluster for VmMigrations")(error));
    }
    let mut lines = vec![line(
        Verdict::Good,
        "cluster",
        format!("answers, and knows VmMigrations; namespace {}", session.namespace),
    )];
    lines.extend(rights(&session).await?);
    match list::<OpenStackCloud>(&session.api()).await {
        Ok((found, unreadable)) => {
            lines.extend(unreadable.iter().map(|why| line(Verdict::Note, "clouds", text::unreadable(why))));
            lines.extend(clouds(&found, args));
        }
        Err(error) => {
            lines.push(line(Verdict::Bad, "clouds", explain("listing OpenStackClouds")(error).to_string()))
        }
    }
    match list::<ObjectStore>(&session.api()).await {
        Ok((found, unreadable)) => {
            lines.extend(unreadable.iter().map(|why| line(Verdict::Note, "store", text::unreadable(why))));
            lines.extend(stores(&found, args.store.as_deref()));
        }
        Err(error) => {
            lines.push(line(Verdict::Bad, "store", explain("listing ObjectStores")(error).to_string()))
        }
    }
    lines.extend(here());
    lines.iter().for_each(print);
    let missing = lines.iter().filter(|l| l.verdict == Verdict::Bad).count();
    if missing == 0 {
        println!("{}", text::good("You can migrate from here."));
        return Ok(Ended::Well);
    }
    println!("{}", text::bad(&format!("{missing} thing(s) are missing.")));
    Ok(Ended::Failed)
}

fn print(line: &Line) {
    let mark = match line.verdict {
        Verdict::Good => text::good("ok  "),
        Verdict::Note => text::notable("note"),
        Verdict::Bad => text::bad("NO  "),
    };
    println!("{mark}  {}: {}", text::clean(&line.what), text::clean(&line.more).replace('\n', "\n      "));
}

/// What can be read, and what cannot.
async fn list<K>(api: &Api<Stored<K>>) -> Result<(Vec<K>, Vec<Unreadable>), kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    Ok(Stored::split(api.list(&ListParams::default()).await?.items))
}

async fn rights(session: &Session) -> Result<Vec<Line>, Stop> {
    let mut lines = vec![];
    let all = RIGHTS.iter().map(|r| (r, Verdict::Bad)).chain(MORE_RIGHTS.iter().map(|r| (r, Verdict::Note)));
    for ((resource, verbs, why), without) in all {
        let mut missing = vec![];
        for verb in *verbs {
            if !may(session, resource, verb).await? {
                missing.push(*verb);
            }
        }
        lines.push(right(resource, verbs, &missing, why, without));
    }
    Ok(lines)
}

fn right(resource: &str, verbs: &[&str], missing: &[&str], why: &str, without: Verdict) -> Line {
    if missing.is_empty() {
        return line(Verdict::Good, "rights", format!("{} {resource}, {why}", verbs.join(", ")));
    }
    let more = format!(
        "you may not {} {resource}, {why}; bind ClusterRole vmmigration-tenant in this namespace",
        missing.join(", ")
    );
    line(without, "rights", more)
}

async fn may(session: &Session, resource: &str, verb: &str) -> Result<bool, Stop> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(crate::crd::GROUP.into()),
                resource: Some(resource.into()),
                verb: Some(verb.into()),
                namespace: Some(session.namespace.clone()),
                ..Default::default()
            }),
            ..Default::default()
        },
        ..Default::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(session.client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(explain("asking the cluster which rights you have"))?;
    Ok(answer.status.is_some_and(|s| s.allowed))
}

fn clouds(all: &[OpenStackCloud], args: &CheckArgs) -> Vec<Line> {
    let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
    let mut lines = vec![];
    for wanted in [&args.from, &args.to].into_iter().flatten() {
        if !names.contains(wanted) {
            lines.push(line(
                Verdict::Bad,
                format!("cloud {wanted}"),
                format!("there is none; there are: {}", or_none(&names)),
            ));
        }
    }
    let named = args.from.is_some() || args.to.is_some();
    let meant = |c: &&OpenStackCloud| {
        !named || [&args.from, &args.to].into_iter().flatten().any(|n| *n == c.name_any())
    };
    for cloud in all.iter().filter(meant) {
        let status = cloud.status.clone().unwrap_or_default();
        let more = status.transfer.map(|t| format!("; disks travel as {}", t.mode)).unwrap_or_default();
        let what = format!("cloud {}", cloud.name_any());
        let generation = (cloud.metadata.generation, status.observed_generation);
        lines.push(ready(what, &status.conditions, generation, &more));
    }
    if all.len() < 2 {
        lines.push(line(
            Verdict::Bad,
            "clouds",
            format!(
                "a migration needs two OpenStackClouds in this namespace; there are: {}",
                or_none(&names)
            ),
        ));
    }
    lines
}

fn stores(all: &[ObjectStore], wanted: Option<&str>) -> Vec<Line> {
    let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
    let meant: Vec<&ObjectStore> = all.iter().filter(|s| wanted.is_none_or(|w| s.name_any() == w)).collect();
    if meant.is_empty() {
        let what = wanted.map_or("store".to_string(), |w| format!("store {w}"));
        return vec![line(
            Verdict::Bad,
            what,
            format!("there is no such ObjectStore in this namespace; there are: {}", or_none(&names)),
        )];
    }
    let mut lines = vec![];
    for store in &meant {
        let status = store.status.clone().unwrap_or_default();
        let generation = (store.metadata.generation, status.observed_generation);
        lines.push(ready(format!("store {}", store.name_any()), &status.conditions, generation, ""));
    }
    if meant.len() > 1 {
        lines.push(line(
            Verdict::Note,
            "store",
            format!("there are several, so migrations must name one: {}", names.join(", ")),
        ));
    }
    lines
}

/// What the operator found when it looked.
fn ready(what: String, all: &[Condition], generation: (Option<i64>, Option<i64>), more: &str) -> Line {
    let message = all.iter().find(|c| c.type_ == kind::READY).map(|c| c.message.clone());
    match (conditions::status(all, kind::READY), message) {
        (_, None) => line(
            Verdict::Bad,
            what,
            "the operator has not looked at it: does it run, and does it watch this cluster?",
        ),
        _ if generation.1 < generation.0 => {
            line(Verdict::Note, what, "was changed, and the operator has not looked at it since")
        }
        (Some(true), Some(message)) => line(Verdict::Good, what, format!("ready: {message}{more}")),
        (_, Some(message)) => line(Verdict::Bad, what, format!("not ready: {message}")),
    }
}

/// What client hooks and `create` need on this machine.
fn here() -> Vec<Line> {
    let bash = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|d| d.join("bash").is_file()));
    let bash = if bash {
        line(Verdict::Good, "this machine", "has bash, for scripts of client hooks")
    } else {
        line(Verdict::Note, "this machine", "has no bash: client hooks need executable files")
    };
    let clouds = match local::find() {
        Ok(Some(found)) => {
            line(Verdict::Good, "this machine", format!("`create` can use {}", found.path.display()))
        }
        Ok(None) => {
            line(Verdict::Note, "this machine", "has no clouds.yaml: `create` cannot look at the live server")
        }
        Err(why) => line(Verdict::Note, "this machine", why),
    };
    vec![bash, clouds]
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cloud(name: &str, ready: Option<bool>) -> OpenStackCloud {
        let mut cloud = OpenStackCloud::new(
            name,
            serde_json::from_value(json!({"credentialsRef": {"secretName": "s"}})).unwrap(),
        );
        let condition = |ready: bool| {
            json!({"type": "Ready", "status": if ready { "True" } else { "False" },
            "reason": "X", "message": "said", "lastTransitionTime": "2026-08-29T20:00:00Z"})
        };
        cloud.status = ready.map(|r| serde_json::from_value(json!({"conditions": [condition(r)]})).unwrap());
        cloud
    }

    fn verdicts(lines: &[Line]) -> Vec<Verdict> {
        lines.iter().map(|l| l.verdict).collect()
    }

    fn args(from: Option<&str>, to: Option<&str>) -> CheckArgs {
        CheckArgs { from: from.map(Into::into), to: to.map(Into::into), store: None }
    }

    #[test]
    fn two_clouds_that_are_ready_are_needed() {
        use Verdict::*;
        let both = [cloud("a", Some(true)), cloud("b", Some(true))];
        assert_eq!(verdicts(&clouds(&both, &args(None, None))), [Good, Good]);
        assert_eq!(verdicts(&clouds(&both[..1], &args(None, None))), [Good, Bad]);
        let mixed = [cloud("a", Some(true)), cloud("b", Some(false)), cloud("c", None)];
        let lines = clouds(&mixed, &args(None, None));
        assert_eq!(verdicts(&lines), [Good, Bad, Bad]);
        assert!(
            lines[1].more.contains("not ready: said") && lines[2].more.contains("does it run"),
            "{lines:?}"
        );
        // Only those that are meant count.
        assert_eq!(
            verdicts(&clouds(&[&both[..], &mixed[2..]].concat(), &args(Some("a"), Some("b")))),
            [Good, Good]
        );
        let lines = clouds(&both, &args(Some("x"), Some("b")));
        assert_eq!(verdicts(&lines), [Bad, Good]);
        assert!(lines[0].more.contains("there are: a, b"), "{lines:?}");
    }

    #[test]
    fn a_change_that_was_not_seen_is_told() {
        let mut changed = cloud("a", Some(true));
        changed.metadata.generation = Some(2);
        assert_eq!(clouds(&[changed, cloud("b", Some(true))], &args(None, None))[0].verdict, Verdict::Note);
    }

    #[test]
    fn one_store_is_needed() {
        let lines = stores(&[], None);
        assert_eq!(verdicts(&lines), [Verdict::Bad]);
        assert!(stores(&[], Some("x"))[0].what.contains("store x"));
    }

    #[test]
    fn a_missing_right_is_named() {
        let line = right("vmmigrations", &["create", "patch"], &["patch"], "to decide", Verdict::Bad);
        assert!(line.more.starts_with("you may not patch vmmigrations, to decide"), "{line:?}");
        assert_eq!(right("vmmigrations", &["get"], &[], "x", Verdict::Bad).verdict, Verdict::Good);
    }

    #[test]
    fn this_machine_is_looked_at() {
        assert_eq!(here().len(), 2);
    }
}
