//! What the API server itself does with our kinds: the rules of the definitions, the tenant's rights, what
//! `kubectl` shows. No migration runs here.

use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::{Lab, MOVERS, SYSTEM, client_as, command, shared};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Pod, Secret, ServiceAccount},
        rbac::v1::RoleBinding,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind, Request as Call},
};
use reqwest::header::{ACCEPT, HeaderValue};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use vmmigration::migration::names::ANNOTATION_ABANDON;

use Request::{Create, Update};

struct Case {
    /// The rule's message.
    rule: &'static str,
    accepted: Request,
    refused: Request,
}

#[derive(Debug)]
enum Request {
    Create(Value),
    /// From one spec to another, while the status says this phase.
    Update {
        phase: Option<&'static str>,
        old: Value,
        new: Value,
    },
}

fn object(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "vmmigration.io/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec})
}

fn store(location: &str) -> Request {
    Create(object("ObjectStore", json!({"location": location, "credentialsSecretRef": {"name": "s"}})))
}

fn limited(direction: &str, bytes: &str) -> Request {
    let spec = json!({
        "location": "s3:https://s3.example.com/bucket",
        "credentialsSecretRef": {"name": "s"},
        "bandwidth": {direction: bytes},
    });
    Create(object("ObjectStore", spec))
}

/// The smallest migration with `changes` in its spec; null removes.
fn migration(changes: Value) -> Value {
    let mut spec = json!({"source": {"cloud": "a", "server": "web-1"}, "destination": {"cloud": "b"},
        "cutover": {"mode": "Manual"}});
    merge(&mut spec, changes);
    object("VmMigration", spec)
}

fn merge(base: &mut Value, changes: Value) {
    match (base, changes) {
        (Value::Object(base), Value::Object(changes)) => {
            for (key, value) in changes {
                match value {
                    Value::Null => drop(base.remove(&key)),
                    value => merge(base.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (base, changes) => *base = changes,
    }
}

fn named(name: String) -> Request {
    let mut object = migration(json!({}));
    object["metadata"]["name"] = json!(name);
    Create(object)
}

fn checks(check: Value) -> Value {
    migration(json!({"verification": {"checks": [check]}}))
}

fn hook(kind: Value) -> Value {
    let mut hook = json!({"name": "h", "phase": "BeforeStop"});
    merge(&mut hook, kind);
    migration(json!({"hooks": [hook]}))
}

fn fixed_ip(fixed_ip: Value) -> Request {
    Create(migration(json!({"destination": {"networks": [{"from": "n", "to": "n", "fixedIP": fixed_ip}]}})))
}

fn report(outcome: &str) -> Value {
    let server = |cloud| json!({"cloud": cloud, "projectId": "p", "serverId": "s", "serverName": "web-1"});
    object(
        "VmMigrationReport",
        json!({"migration": "web-1", "uid": "u", "outcome": outcome, "source": server("a"),
            "destination": server("b"), "finishedAt": "2026-01-01T00:00:00Z", "disks": []}),
    )
}

/// An edit of the smallest migration in a phase.
fn edit(phase: &'static str, changes: Value) -> Request {
    Update { phase: Some(phase), old: migration(json!({})), new: migration(changes) }
}

/// An edit of an object that nobody has looked at.
fn replace(old: Value, new: Value) -> Request {
    Update { phase: None, old, new }
}

const AT: &str = "cutover.at is needed with mode At, and only with it";
const NOT_AFTER: &str = "cutover.notAfter goes with cutover.at, and must be later";
const ADDRESS: &str = "fixedIP.address is needed with mode Set, and only with it";
const CHECK: &str = "a check is exactly one of tcp, http, console, ssh";
const HOOK: &str = "a hook is exactly one of job, ssh, client";
const JOB_HOOK: &str = "a job hook is exactly one of script, configMap";
const SSH_HOOK: &str = "an ssh hook is exactly one of script, configMap";
const USER_DATA: &str = "userData is exactly one of secretRef, preset";
const POLICY: &str = "sourcePolicy.after is needed with action Delete, and only with it";
const LOCATION: &str = "location must be s3:https://host[:port]/bucket[/prefix], \
                        rest:https://host[:port][/prefix] or swift:container:/[prefix]";
const SOURCE: &str = "spec.source cannot be changed any more: only while the phase is Blocked; \
                      delete this VmMigration and create another";
const DESTINATION: &str = "spec.destination cannot be changed any more: only while the phase is Blocked; \
                           delete this VmMigration and create another";

#[rustfmt::skip] // One rule, one paragraph.
fn cases() -> Vec<Case> {
    let case = |rule, accepted, refused| Case { rule, accepted, refused };
    let good = || store("s3:https://s3.example.com:9000/bucket/team/web");
    let now = || json!({"cutover": {"mode": "Now"}});
    let at = || json!({"cutover": {"mode": "At", "at": "2030-01-01T00:00:00Z"}});
    let until = |latest: &str| json!({"cutover": {"mode": "At", "at": "2030-01-01T00:00:00Z", "notAfter": latest}});
    let other = || json!({"source": {"server": "web-2"}});
    let flavor = || json!({"destination": {"flavor": "b1.medium"}});
    let ssh = |port: i32| checks(json!({"name": "ssh", "tcp": {"port": port}}));
    let mut ssh_and_now = ssh(22);
    merge(&mut ssh_and_now["spec"], now());
    let job = |script: &str| hook(json!({"job": {"script": script}}));
    let mut job_and_now = job("one");
    merge(&mut job_and_now["spec"], now());
    let map = || json!({"name": "scripts", "key": "stop.sh"});
    let guest = |more: Value| {
        let mut ssh = json!({"user": "root", "privateKeySecretRef": {"name": "key", "key": "id"}});
        merge(&mut ssh, more);
        hook(json!({"ssh": ssh}))
    };
    let user_data = |wanted: Value| Create(migration(json!({"destination": {"userData": wanted}})));
    let policy = |policy: Value| Create(migration(json!({"sourcePolicy": policy})));
    vec![
        case(LOCATION, good(), store("s3:http://s3.example.com/bucket")),
        case(LOCATION, store("rest:https://h:8000/team"), store("rest:http://h:8000/team")),
        case(LOCATION, store("swift:moves:/"), store("b2:moves:/")),
        case("location must name a server and no query: rest:https://host[:port][/prefix]",
            store("rest:https://h"), store("rest:https://h/team?x=1")),
        case("location must name a container: swift:container:/[prefix]",
            store("swift:moves:/team"), store("swift:moves")),
        case("bandwidth.upload is a whole number of bytes a second, such as 25Mi",
            limited("upload", "25Mi"), limited("upload", "0")),
        case("bandwidth.download is a whole number of bytes a second, such as 25Mi",
            limited("download", "1000000"), limited("download", "fast")),
        case("location must not contain user information: keys belong into the Secret named by credentialsSecretRef",
            good(), store("s3:https://key:secret@s3.example.com/bucket")),
        case("location must name a bucket: s3:https://host[:port]/bucket[/prefix]",
            good(), store("s3:https://s3.example.com")),
        case("source.cloud and destination.cloud must be different OpenStackClouds",
            Create(migration(json!({}))), Create(migration(json!({"destination": {"cloud": "a"}})))),
        case("the name may have at most 200 characters: the report is called <name>-<8 characters>",
            named("x".repeat(200)), named("x".repeat(201))),
        case(AT, Create(migration(at())), Create(migration(json!({"cutover": {"mode": "At"}})))),
        case(AT, Create(migration(now())),
            Create(migration(json!({"cutover": {"mode": "Now", "at": "2030-01-01T00:00:00Z"}})))),
        case(NOT_AFTER, Create(migration(until("2030-01-01T00:00:01Z"))),
            Create(migration(until("2030-01-01T01:00:00+01:00")))),
        case(NOT_AFTER, Create(migration(now())),
            Create(migration(json!({"cutover": {"mode": "Now", "notAfter": "2030-01-01T00:00:00Z"}})))),
        case(ADDRESS, fixed_ip(json!({"mode": "Set", "address": "10.0.0.7"})), fixed_ip(json!({"mode": "Set"}))),
        case(ADDRESS, fixed_ip(json!({"mode": "Preserve"})),
            fixed_ip(json!({"mode": "Preserve", "address": "10.0.0.7"}))),
        case(CHECK, Create(ssh(22)),
            Create(checks(json!({"name": "both", "tcp": {"port": 22}, "http": {}})))),
        case(CHECK, Create(checks(json!({"name": "page", "http": {}}))), Create(checks(json!({"name": "none"})))),
        // The go is an edit, and so is a change of mind about the time.
        case(SOURCE, edit("AwaitingCutover", now()), edit("AwaitingCutover", other())),
        case(SOURCE, edit("Blocked", other()), edit("Preflight", other())),
        case(SOURCE, edit("Transferring", json!({})), edit("Transferring", other())),
        case(DESTINATION, edit("AwaitingCutover", at()), edit("AwaitingCutover", flavor())),
        case(DESTINATION, edit("Blocked", flavor()), edit("Succeeded", flavor())),
        // Being blocked is no excuse for these.
        case("spec.store is immutable",
            replace(migration(json!({"store": "one"})), migration(json!({"store": "one"}))),
            edit("Blocked", json!({"store": "other"}))),
        case("spec.strategy is immutable",
            replace(migration(json!({"strategy": "Cold"})), migration(json!({"strategy": "Cold"}))),
            replace(migration(json!({"strategy": "Cold"})), migration(json!({})))),
        case("spec.strategy is immutable", Create(migration(json!({"strategy": "Warm"}))),
            replace(migration(json!({"strategy": "Warm"})), migration(json!({"strategy": "Cold"})))),
        case("spec.verification is immutable", replace(ssh(22), ssh_and_now), replace(ssh(22), ssh(23))),
        case(HOOK, Create(hook(json!({"client": {}}))), Create(hook(json!({})))),
        case(HOOK, Create(job("true")), Create(hook(json!({"client": {}, "job": {"script": "true"}})))),
        case(JOB_HOOK, Create(hook(json!({"job": {"configMap": map()}}))), Create(hook(json!({"job": {}})))),
        case(SSH_HOOK, Create(guest(json!({"script": "true"}))),
            Create(guest(json!({"script": "true", "configMap": map()})))),
        case("spec.hooks is immutable", replace(job("one"), job_and_now), replace(job("one"), job("other"))),
        case("spec.maxDowntime is immutable",
            replace(migration(json!({"maxDowntime": "30m"})), migration(json!({"maxDowntime": "30m"}))),
            edit("Blocked", json!({"maxDowntime": "30m"}))),
        case(USER_DATA, user_data(json!({"secretRef": {"name": "web", "key": "user-data"}})), user_data(json!({}))),
        case(USER_DATA, user_data(json!({"preset": "KeepGuest"})),
            user_data(json!({"preset": "KeepGuest", "secretRef": {"name": "web", "key": "user-data"}}))),
        case(POLICY, policy(json!({"action": "Delete", "after": "7d"})), policy(json!({"action": "Delete"}))),
        case(POLICY, policy(json!({"action": "Keep"})), policy(json!({"action": "Keep", "after": "7d"}))),
        case("a report's spec is evidence and cannot be changed",
            replace(report("Succeeded"), report("Succeeded")), replace(report("Succeeded"), report("Failed"))),
    ]
}

/// Our kinds, with their names in addresses.
pub const KINDS: [(&str, &str); 4] = [
    ("VmMigration", "vmmigrations"),
    ("OpenStackCloud", "openstackclouds"),
    ("ObjectStore", "objectstores"),
    ("VmMigrationReport", "vmmigrationreports"),
];

/// An API of one of our kinds.
pub fn api(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let plural = KINDS.iter().find(|(k, _)| *k == kind).map_or(kind, |(_, p)| p);
    let gvk = GroupVersionKind::gvk("vmmigration.io", "v1alpha1", kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    Api::namespaced_with(client.clone(), namespace, &resource)
}

const TRIAL: PostParams = PostParams { dry_run: true, field_manager: None };

/// Asks the API server without a lasting effect; gives what it says against the request.
async fn ask(lab: &Lab, request: &Request, name: &str) -> Result<Option<String>> {
    let answer = match request {
        Create(value) => {
            let kind = value["kind"].as_str().context("no kind")?;
            api(&lab.kube, &lab.name, kind).create(&TRIAL, &serde_json::from_value(value.clone())?).await
        }
        Update { phase, old, new } => update(lab, *phase, old, new, name).await?,
    };
    match answer {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(Some(status.message)),
        Err(e) => Err(e.into()),
    }
}

/// Makes the old object, puts it into its phase and tries the new one. The operator looks at it, too, and may
/// write another phase: then the version differs, the API server says so, and it is tried again.
async fn update(
    lab: &Lab,
    phase: Option<&str>,
    old: &Value,
    new: &Value,
    name: &str,
) -> Result<kube::Result<DynamicObject>> {
    let api = api(&lab.kube, &lab.name, old["kind"].as_str().context("no kind")?);
    let mut old: DynamicObject = serde_json::from_value(old.clone())?;
    old.metadata.name = Some(name.into());
    api.create(&PostParams::default(), &old).await?;
    for _ in 0..20 {
        let mut is = api.get(name).await?;
        if let Some(phase) = phase {
            let status = Patch::Merge(json!({"status": {"phase": phase}}));
            is = api.patch_status(name, &PatchParams::default(), &status).await?;
        }
        is.data["spec"] = new["spec"].clone();
        is.metadata.managed_fields = None;
        match api.replace(name, &TRIAL, &is).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            answer => {
                remove(&api, &is).await?;
                return Ok(answer);
            }
        }
    }
    bail!("{name} changes all the time")
}

/// Its phase was invented, and its clouds do not exist: the operator would look for them without end.
async fn remove(api: &Api<DynamicObject>, object: &DynamicObject) -> Result<()> {
    let name = object.name_any();
    let abandon = json!({"metadata": {"annotations": {ANNOTATION_ABANDON: object.uid()}}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(abandon)).await?;
    api.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

fn collect(schema: &Value, messages: &mut BTreeSet<String>) -> Result<()> {
    match schema {
        Value::Object(members) => {
            for rule in
                members.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
            {
                let message = rule["message"].as_str();
                messages.insert(message.with_context(|| format!("no message: {rule}"))?.to_owned());
            }
            members.values().try_for_each(|value| collect(value, messages))
        }
        Value::Array(values) => values.iter().try_for_each(|value| collect(value, messages)),
        _ => Ok(()),
    }
}

#[test]
fn every_rule_accepts_and_refuses() -> Result<()> {
    shared("rules", |lab| async move {
        let mut wrong = vec![];
        for (n, Case { rule, accepted, refused }) in cases().iter().enumerate() {
            if let Some(said) = ask(&lab, accepted, &format!("x-{n}-accepted")).await? {
                wrong.push(format!("should be accepted, but {said}: {accepted:?}"));
            }
            match ask(&lab, refused, &format!("x-{n}-refused")).await? {
                Some(said) if said.contains(rule) => {}
                said => wrong.push(format!("should be refused by {rule:?}, but {said:?}: {refused:?}")),
            }
        }
        // A new rule needs a case above.
        let definitions: Api<CustomResourceDefinition> = Api::all(lab.kube.clone());
        let mut installed = BTreeSet::new();
        for (_, plural) in KINDS {
            let definition = definitions.get(&format!("{plural}.vmmigration.io")).await?;
            collect(&serde_json::to_value(definition.spec)?, &mut installed)?;
        }
        let tested: BTreeSet<String> = cases().iter().map(|case| case.rule.to_owned()).collect();
        if installed != tested {
            wrong.push(format!("rules without a case, or the reverse: {:?}", &installed ^ &tested));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

/// The API server's own check of dates takes all of these, and the operator could read none.
#[test]
fn dates_that_cannot_be_read_are_refused() -> Result<()> {
    shared("dates", |lab| async move {
        let time = |at: &str| Create(migration(json!({"cutover": {"mode": "At", "at": at}})));
        for good in ["2026-11-29T22:00:00.123+02:00", "2999-12-31T23:59:59Z"] {
            let said = ask(&lab, &time(good), "good").await?;
            ensure!(said.is_none(), "{good}: {said:?}");
        }
        for bad in ["9999-12-31T00:00:00Z", "2030-01-01T00:00:00+99:99", "2030-01-01T00:00:00x5Z"] {
            let said = ask(&lab, &time(bad), "bad").await?;
            ensure!(
                said.as_ref().is_some_and(|s| s.contains("spec.cutover.at in body should match")),
                "{bad}: {said:?}"
            );
        }
        Ok(())
    })
}

/// An account in the test's namespace that has the tenant's role there and nothing else.
async fn tenant(lab: &Lab) -> Result<Client> {
    let account = json!({"metadata": {"name": "tenant"}});
    lab.api::<ServiceAccount>(&lab.name)
        .create(&PostParams::default(), &serde_json::from_value(account)?)
        .await?;
    let binding = json!({"metadata": {"name": "tenant"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "vmmigration-tenant"},
        "subjects": [{"kind": "ServiceAccount", "name": "tenant", "namespace": lab.name}]});
    lab.api::<RoleBinding>(&lab.name)
        .create(&PostParams::default(), &serde_json::from_value(binding)?)
        .await?;
    client_as("site-a", &format!("system:serviceaccount:{}:tenant", lab.name)).await
}

/// Rights are looked at before anything else: the answer is 403 and nothing else.
fn forbidden<T>(what: &str, answer: kube::Result<T>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        Err(e) => Err(anyhow!("{what}: not forbidden but {e}")),
        Ok(_) => Err(anyhow!("{what}: allowed")),
    }
}

#[test]
fn tenant_uses_the_api_and_nothing_else() -> Result<()> {
    shared("tenant", |lab| async move {
        let me = tenant(&lab).await?;
        may_use_the_three_kinds(&lab, &me).await?;
        reads_reports_only(&lab, &me).await?;
        sees_no_secret_and_no_mover(&lab, &me).await
    })
}

async fn may_use_the_three_kinds(lab: &Lab, me: &Client) -> Result<()> {
    let cloud = json!({"credentialsRef": {"secretName": "nothing"}});
    let place =
        json!({"location": "s3:https://s3.example.com/bucket", "credentialsSecretRef": {"name": "nothing"}});
    let moves = migration(json!({}))["spec"].clone();
    let edits = [
        ("VmMigration", moves, json!({"cutover": {"mode": "At", "at": "2030-01-01T00:00:00Z"}})),
        ("OpenStackCloud", cloud, json!({"credentialsRef": {"secretName": "other"}})),
        ("ObjectStore", place, json!({"location": "s3:https://s3.example.com/other"})),
    ];
    let status = Patch::Merge(json!({"status": {"observedGeneration": 7}}));
    let (patch, post) = (PatchParams::default(), PostParams::default());
    for (kind, spec, edit) in edits {
        let api = api(me, &lab.name, kind);
        let made = api.create(&post, &serde_json::from_value(object(kind, spec))?).await;
        made.with_context(|| format!("create a {kind} as the tenant"))?;
        let edited = api.patch("x", &patch, &Patch::Merge(json!({"spec": edit}))).await;
        let edited = edited.with_context(|| format!("patch a {kind} as the tenant"))?;
        ensure!(!api.list(&ListParams::default()).await?.items.is_empty(), "no {kind} is listed");
        forbidden(&format!("patch the status of a {kind}"), api.patch_status("x", &patch, &status).await)?;
        forbidden(&format!("replace the status of a {kind}"), api.replace_status("x", &post, &edited).await)?;
        api.delete("x", &DeleteParams::default()).await.with_context(|| format!("delete a {kind}"))?;
        let elsewhere = self::api(me, "default", kind);
        forbidden(&format!("list {kind} elsewhere"), elsewhere.list(&ListParams::default()).await)?;
    }
    Ok(())
}

async fn reads_reports_only(lab: &Lab, me: &Client) -> Result<()> {
    let (patch, post) = (PatchParams::default(), PostParams::default());
    let evidence: DynamicObject = serde_json::from_value(report("Succeeded"))?;
    let reports = api(me, &lab.name, "VmMigrationReport");
    forbidden("create a report", reports.create(&post, &evidence).await)?;
    api(&lab.kube, &lab.name, "VmMigrationReport").create(&post, &evidence).await?;
    let read = reports.get("x").await.context("read a report as the tenant")?;
    ensure!(reports.list(&ListParams::default()).await?.items.len() == 1, "the report is not listed");
    let mark = Patch::Merge(json!({"metadata": {"labels": {"forged": "true"}}}));
    forbidden("patch a report", reports.patch("x", &patch, &mark).await)?;
    forbidden("replace a report", reports.replace("x", &post, &read).await)?;
    let cleaned = Patch::Merge(json!({"status": {"cleanedUpAt": "2026-01-01T00:00:00Z"}}));
    forbidden("patch a report's status", reports.patch_status("x", &patch, &cleaned).await)?;
    forbidden("delete a report", reports.delete("x", &DeleteParams::default()).await)
}

async fn sees_no_secret_and_no_mover(lab: &Lab, me: &Client) -> Result<()> {
    let all = ListParams::default();
    for namespace in [MOVERS, SYSTEM, lab.name.as_str()] {
        let secrets: Api<Secret> = Api::namespaced(me.clone(), namespace);
        let (pods, jobs): (Api<Pod>, Api<Job>) =
            (Api::namespaced(me.clone(), namespace), Api::namespaced(me.clone(), namespace));
        forbidden(&format!("list Secrets in {namespace}"), secrets.list(&all).await)?;
        forbidden(&format!("read a Secret in {namespace}"), secrets.get("site-a").await)?;
        forbidden(&format!("list pods in {namespace}"), pods.list(&all).await)?;
        forbidden(&format!("read a log in {namespace}"), pods.logs("any", &LogParams::default()).await)?;
        forbidden(&format!("list Jobs in {namespace}"), jobs.list(&all).await)?;
        let job = json!({"metadata": {"name": "x"}, "spec": {"template": {"spec": {
            "containers": [{"name": "x", "image": "x"}], "restartPolicy": "Never"}}}});
        forbidden(
            &format!("make a Job in {namespace}"),
            jobs.create(&TRIAL, &serde_json::from_value(job)?).await,
        )?;
    }
    Ok(())
}

/// The columns of `kubectl get`, and those of `kubectl get -o wide`, as kubectl writes them.
async fn columns(lab: &Lab, plural: &str) -> Result<(String, String)> {
    let address = format!("/apis/vmmigration.io/v1alpha1/namespaces/{}/{plural}", lab.name);
    let mut call = Call::new(address).list(&ListParams::default())?;
    call.headers_mut()
        .insert(ACCEPT, HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io"));
    let table: Value = lab.kube.request(call).await?;
    ensure!(table["kind"] == "Table", "no table: {table}");
    let of = |wide: bool| {
        let all = table["columnDefinitions"].as_array().into_iter().flatten();
        let some = all.filter(|c| (c["priority"] != 0) == wide).filter_map(|c| c["name"].as_str());
        some.map(str::to_uppercase).collect::<Vec<_>>().join(" ")
    };
    Ok((of(false), of(true)))
}

#[test]
fn kubectl_shows_phase_progress_and_message() -> Result<()> {
    shared("kubectl", |lab| async move {
        let (shown, wide) = columns(&lab, "vmmigrations").await?;
        ensure!(shown == "NAME PHASE PROGRESS ETA RUNNING-IN DOWN MESSAGE AGE", "columns are {shown}");
        ensure!(wide == "SUCCEEDED VERIFIED RATE BYTES SOURCE DESTINATION", "wide columns are {wide}");
        let (shown, _) = columns(&lab, "openstackclouds").await?;
        ensure!(shown == "NAME READY PROJECT TRANSFER MESSAGE AGE", "columns are {shown}");
        let (shown, _) = columns(&lab, "objectstores").await?;
        ensure!(shown == "NAME READY LOCATION MESSAGE AGE", "columns are {shown}");
        let (shown, _) = columns(&lab, "vmmigrationreports").await?;
        ensure!(shown == "NAME MIGRATION OUTCOME DOWN FINISHED", "columns are {shown}");

        let groups = lab.kube.list_api_group_resources("vmmigration.io/v1alpha1").await?;
        for (name, short) in [
            ("vmmigrations", "vmm"),
            ("openstackclouds", "osc"),
            ("objectstores", "ostore"),
            ("vmmigrationreports", "vmmr"),
        ] {
            let found =
                groups.resources.iter().find(|r| r.name == name).with_context(|| format!("no {name}"))?;
            ensure!(found.short_names == Some(vec![short.into()]), "{name}: {:?}", found.short_names);
            ensure!(found.categories == Some(vec!["vmmigration".into()]), "{name}: {:?}", found.categories);
        }
        // As people use them: by short name and by category.
        let get = |what: &'static str| {
            let namespace = lab.name.clone();
            async move {
                command("kubectl", &["--context", "site-a", "-n", &namespace, "get", what, "-o", "name"])
                    .await
            }
        };
        ensure!(get("osc").await?.lines().count() == 2, "kubectl get osc shows not both clouds");
        let all = get("vmmigration").await?;
        for name in ["openstackcloud.vmmigration.io/site-a", "objectstore.vmmigration.io/transfer"] {
            ensure!(all.lines().any(|l| l == name), "kubectl get vmmigration shows no {name}: {all}");
        }
        Ok(())
    })
}
