//! What the chart renders: real objects, the restricted profile, the least rights, and settings that the operator knows.
//!
//! Uses the real helm, from PATH; `make unit` brings it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml speaks of #[test] only"
)]

mod common;

use std::{collections::BTreeSet, process::Command};

use common::{repository, typed};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Container, Namespace, Secret, Service, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use vmmigration::openstack::ClusterCloud;

/// `helm template` with values, or what helm says against it.
fn helm(set: &[&str]) -> Result<Vec<Value>, String> {
    let chart = repository().join("charts/vmmigration-operator");
    let mut command = Command::new("helm");
    command.args(["template", "vmmigration", "--namespace", "vmmigration-system"]).arg(chart);
    for value in set {
        command.args(["--set-json", value]);
    }
    let output = command.output().expect("helm is not in PATH: run this test by `make unit`");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

fn render(set: &[&str]) -> Vec<Value> {
    helm(set).unwrap_or_else(|error| panic!("{set:?}: {error}"))
}

/// All objects of a kind.
fn all<T: DeserializeOwned>(objects: &[Value]) -> Vec<T> {
    let kind = std::any::type_name::<T>().rsplit("::").next().unwrap();
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .map(|object| serde_json::from_value(object.clone()).unwrap())
        .collect()
}

fn one<T: DeserializeOwned>(objects: &[Value]) -> T {
    let mut found = all(objects);
    assert_eq!(found.len(), 1, "{}", std::any::type_name::<T>());
    found.remove(0)
}

fn operator(objects: &[Value]) -> Container {
    one::<Deployment>(objects).spec.unwrap().template.spec.unwrap().containers.remove(0)
}

fn env(container: &Container, name: &str) -> String {
    let variable = container.env.iter().flatten().find(|variable| variable.name == name);
    variable.and_then(|variable| variable.value.clone()).unwrap_or_else(|| panic!("{name} is not set"))
}

/// Rules as sorted text, `group/resource: verbs`.
fn rights(rules: Option<Vec<PolicyRule>>) -> Vec<String> {
    let mut lines = vec![];
    for rule in rules.unwrap() {
        assert!(rule.resource_names.is_none() && rule.non_resource_urls.is_none());
        for group in rule.api_groups.as_ref().unwrap() {
            for resource in rule.resources.as_ref().unwrap() {
                lines.push(format!("{group}/{resource}: {}", rule.verbs.join(" ")));
            }
        }
    }
    lines.sort();
    lines
}

const EVERYTHING: &[&str] = &[
    r#"clusters=[{"name":"site-b","namespace":"movers-b","kubeconfig":"apiVersion: v1\nkind: Config\n",
        "identityURL":"https://b.example:5000/v3","region":"RB","ca":"PEM\n","nodesAreServers":true}]"#,
    r#"ownCluster={"identityURL":"https://a.example:5000/v3","region":"RA"}"#,
    r#"imagePullSecrets=[{"name":"registry"}]"#,
    r#"operator.deniedCIDRs=["10.0.0.0/8","fd00::/8"]"#,
    r#"operator.extraEnv=[{"name":"HTTPS_PROXY","value":"http://proxy.example.com:3128"}]"#,
    r#"operator.nodeSelector={"pool":"operators"}"#,
    r#"operator.tolerations=[{"key":"operators","operator":"Exists"}]"#,
    r#"operator.affinity={"nodeAffinity":{}}"#,
    r#"operator.priorityClassName="system-cluster-critical""#,
    r#"operator.podAnnotations={"a":"1"}"#,
    r#"operator.podLabels={"b":"2"}"#,
    r#"movers.imagePullSecrets=[{"name":"registry"}]"#,
    r#"hooks.allowedImages=["reg.example.com/tools:1","reg.example.com/team/*"]"#,
    r#"movers.nodeSelector={"pool":"movers"}"#,
    r#"movers.tolerations=[{"key":"movers","operator":"Exists"}]"#,
    r#"image.digest="sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef""#,
];

/// No field that does not exist, or is at a wrong place.
#[test]
fn every_field_exists() {
    for set in [&[][..], EVERYTHING, &[r#"mode="movers""#]] {
        for object in render(set) {
            match object["kind"].as_str().unwrap() {
                "Namespace" => drop(typed::<Namespace>(&object, "chart")),
                "ServiceAccount" => drop(typed::<ServiceAccount>(&object, "chart")),
                "Secret" => drop(typed::<Secret>(&object, "chart")),
                "Service" => drop(typed::<Service>(&object, "chart")),
                "Deployment" => drop(typed::<Deployment>(&object, "chart")),
                "Role" => drop(typed::<Role>(&object, "chart")),
                "RoleBinding" => drop(typed::<RoleBinding>(&object, "chart")),
                "ClusterRole" => drop(typed::<ClusterRole>(&object, "chart")),
                "ClusterRoleBinding" => drop(typed::<ClusterRoleBinding>(&object, "chart")),
                "CustomResourceDefinition" => drop(typed::<CustomResourceDefinition>(&object, "chart")),
                other => panic!("unexpected kind {other}"),
            }
        }
    }
}

#[test]
fn the_operator_runs_under_the_restricted_profile_and_alone() {
    let deployment: Deployment = one(&render(&[]));
    let spec = deployment.spec.unwrap();
    assert_eq!((spec.replicas, spec.strategy.unwrap().type_.as_deref()), (Some(1), Some("Recreate")));
    let pod = spec.template.spec.unwrap();
    let context = pod.security_context.unwrap();
    assert_eq!((context.run_as_non_root, context.run_as_user), (Some(true), Some(65532)));
    assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
    let container = &pod.containers[0];
    let context = container.security_context.clone().unwrap();
    assert_eq!(
        (context.allow_privilege_escalation, context.read_only_root_filesystem),
        (Some(false), Some(true))
    );
    assert_eq!(context.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
    let path = |probe: &k8s_openapi::api::core::v1::Probe| probe.http_get.clone().unwrap().path.unwrap();
    assert_eq!(path(container.liveness_probe.as_ref().unwrap()), "/livez");
    assert_eq!(path(container.readiness_probe.as_ref().unwrap()), "/readyz");
}

/// Everything the operator may do. Whoever adds a line here says why in the chart.
#[test]
fn the_operator_has_the_least_rights() {
    let objects = render(&[]);
    let cluster: ClusterRole = all(&objects)
        .into_iter()
        .find(|r: &ClusterRole| r.metadata.name.as_deref() == Some("vmmigration-operator"))
        .unwrap();
    assert_eq!(
        rights(cluster.rules),
        [
            "/configmaps: get",
            "/pods/log: get",
            "/pods: list",
            "/secrets: get",
            "batch/jobs: create list delete",
            "events.k8s.io/events: create patch",
            "vmmigration.io/objectstores/finalizers: update",
            "vmmigration.io/objectstores/status: get patch update",
            "vmmigration.io/objectstores: get list watch patch",
            "vmmigration.io/openstackclouds/finalizers: update",
            "vmmigration.io/openstackclouds/status: get patch update",
            "vmmigration.io/openstackclouds: get list watch patch",
            "vmmigration.io/vmmigrationreports/status: get patch update",
            "vmmigration.io/vmmigrationreports: get list create patch",
            "vmmigration.io/vmmigrations/finalizers: update",
            "vmmigration.io/vmmigrations/status: get patch update",
            "vmmigration.io/vmmigrations: get list watch patch",
        ]
    );
    let role = |namespace: &str| {
        let mut roles: Vec<Role> = all(&objects);
        roles.retain(|role| role.metadata.namespace.as_deref() == Some(namespace));
        assert_eq!(roles.len(), 1, "{namespace}");
        rights(roles.remove(0).rules)
    };
    assert_eq!(role("vmmigration-system"), ["/secrets: get list watch"]);
    assert_eq!(role("vmmigration-movers"), MOVERS);
}

const MOVERS: [&str; 5] = [
    "/persistentvolumeclaims: create list delete",
    "/pods/log: get",
    "/pods: get list delete",
    "/secrets: create get list patch delete",
    "batch/jobs: create get list watch delete",
];

/// Disks as block devices: the same few rights in both kinds of cluster, for the account that the operator has there.
#[test]
fn volumes_need_a_few_rights_outside_of_the_namespace() {
    for (set, account, namespace) in [
        (&[][..], "vmmigration-operator", "vmmigration-system"),
        (&[r#"mode="movers""#][..], "vmmigration-movers", "vmmigration-movers"),
    ] {
        let objects = render(set);
        let name = Some("vmmigration-operator-volumes");
        let role = all::<ClusterRole>(&objects).into_iter().find(|r| r.metadata.name.as_deref() == name);
        assert_eq!(
            rights(role.unwrap().rules),
            ["/nodes: list", "/persistentvolumes: create list delete", "storage.k8s.io/csidrivers: list"]
        );
        let bindings = all::<ClusterRoleBinding>(&objects);
        let binding = bindings.into_iter().find(|b| b.metadata.name.as_deref() == name).unwrap();
        let subject = binding.subjects.unwrap().remove(0);
        assert_eq!((subject.name.as_str(), subject.namespace.as_deref()), (account, Some(namespace)));
    }
}

#[test]
fn a_tenant_can_use_the_api_and_nothing_else() {
    let role = |set: &[&str]| {
        all(&render(set))
            .into_iter()
            .find(|r: &ClusterRole| r.metadata.name.as_deref() == Some("vmmigration-tenant"))
    };
    let tenant = role(&[]).unwrap();
    assert_eq!(tenant.metadata.labels.unwrap().keys().find(|label| label.contains("aggregate")), None);
    for line in rights(tenant.rules) {
        assert!(line.starts_with("vmmigration.io/"), "{line}");
        let writes = ["create", "update", "patch", "delete"].iter().any(|verb| line.contains(verb));
        assert!(!writes || !(line.contains("reports") || line.contains("/status")), "{line}");
    }
    let labels = role(&["tenantRole.aggregateToEdit=true"]).unwrap().metadata.labels.unwrap();
    assert_eq!(labels.get("rbac.authorization.k8s.io/aggregate-to-edit").map(String::as_str), Some("true"));
    assert!(role(&["tenantRole.create=false"]).is_none());
}

/// Uninstalling must not end what runs: definitions (and with them all objects) and the movers' namespace stay.
#[test]
fn what_running_migrations_need_stays_on_uninstall() {
    let objects = render(&[]);
    let kept: BTreeSet<&str> = objects
        .iter()
        .filter(|object| object["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep")
        .map(|object| object["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kept, BTreeSet::from(["CustomResourceDefinition", "Namespace"]));
    assert_eq!(all::<CustomResourceDefinition>(&objects).len(), vmmigration::crd::all().len());
    assert_eq!(all::<CustomResourceDefinition>(&render(&["crds.install=false"])).len(), 0);
}

#[test]
fn movers_run_in_a_restricted_namespace() {
    for set in [&[][..], &[r#"mode="movers""#]] {
        let namespace: Namespace = one(&render(set));
        let labels = namespace.metadata.labels.unwrap();
        assert_eq!(labels.get("pod-security.kubernetes.io/enforce").map(String::as_str), Some("restricted"));
    }
    assert_eq!(all::<Namespace>(&render(&["movers.createNamespace=false"])).len(), 0);
}

/// In a registered cluster: the same rights in the movers' namespace, an account with a token, what block devices need
/// (as above), and nothing else.
#[test]
fn a_registered_cluster_gets_only_what_movers_need() {
    let objects = render(&[r#"mode="movers""#]);
    let kinds: BTreeSet<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    let wanted =
        ["Namespace", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Secret", "ServiceAccount"];
    assert_eq!(kinds, BTreeSet::from(wanted));
    assert_eq!((all::<ClusterRole>(&objects).len(), all::<ClusterRoleBinding>(&objects).len()), (1, 1));
    assert_eq!(rights(one::<Role>(&objects).rules), MOVERS);
    let secret: Secret = one(&objects);
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/service-account-token"));
}

#[test]
fn registered_clusters_become_secrets() {
    let secret: Secret = one(&render(EVERYTHING));
    assert_eq!(secret.metadata.namespace.as_deref(), Some("vmmigration-system"));
    assert_eq!(secret.metadata.labels.unwrap()["vmmigration.io/cluster"], "site-b");
    let data = secret.string_data.unwrap();
    assert_eq!(data["namespace"], "movers-b");
    assert_eq!(data["kubeconfig"], "apiVersion: v1\nkind: Config\n");
    let cloud = ["identityURL", "region", "ca", "nodesAreServers"].map(|key| data[key].as_str());
    assert_eq!(cloud, ["https://b.example:5000/v3", "RB", "PEM\n", "true"]);
    let unbound = r#"clusters=[{"name":"site-b","kubeconfig":"x"}]"#;
    let data = one::<Secret>(&render(&[unbound])).string_data.unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["kubeconfig", "namespace"]);
}

#[test]
fn values_reach_the_operator() {
    let container = operator(&render(EVERYTHING));
    assert_eq!(container.args, Some(vec!["run".to_owned()]));
    assert_eq!(env(&container, "VMM_DENIED_CIDRS"), "10.0.0.0/8,fd00::/8");
    assert_eq!(env(&container, "VMM_HOOK_IMAGES"), "reg.example.com/tools:1,reg.example.com/team/*");
    let own: Value = serde_json::from_str(&env(&container, "VMM_OWN_CLUSTER")).unwrap();
    assert_eq!(own["identityURL"], "https://a.example:5000/v3");
    let bound = ClusterCloud::parse(|key| match &own[key] {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    });
    assert_eq!(bound.map(|c| (c.region().to_owned(), c.nodes_are_servers())), Ok(("RA".to_owned(), false)));
    let unbound = operator(&render(&[])).env.unwrap();
    assert!(unbound.iter().all(|variable| variable.name != "VMM_OWN_CLUSTER"));
    assert_eq!(env(&container, "VMM_MOVER_IMAGE"), container.image.clone().unwrap());
    let pod: Value = serde_json::from_str(&env(&container, "VMM_MOVER_POD")).unwrap();
    assert_eq!(pod["nodeSelector"]["pool"], "movers");
    assert_eq!(pod["tolerations"][0]["key"], "movers");
    assert_eq!(pod["imagePullSecrets"][0]["name"], "registry");
    assert!(pod["resources"]["limits"]["memory"].is_string());
}

/// A variable that `vmmigration run` does not know would be ignored in silence.
#[test]
fn the_operator_knows_its_settings() {
    let help = Command::new(env!("CARGO_BIN_EXE_vmmigration")).args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for variable in operator(&render(EVERYTHING)).env.unwrap() {
        let name = variable.name;
        assert!(
            ["RUST_LOG", "HTTPS_PROXY"].contains(&name.as_str()) || help.contains(&format!("[env: {name}=")),
            "{name} is not in: {help}"
        );
    }
}

#[test]
fn unknown_and_wrong_values_are_refused() {
    for (set, complaint) in [
        ("bogus=1", "bogus"),
        ("operator.bogus=1", "bogus"),
        (r#"mode="both""#, "mode"),
        ("operator.concurrency=0", "concurrency"),
        (r#"operator.deniedCIDRs=["10.0.0.1"]"#, "deniedCIDRs"),
        (r#"hooks.allowedImages=["*"]"#, "allowedImages"),
        (r#"clusters=[{"name":"site-b"}]"#, "kubeconfig"),
        (r#"clusters=[{"name":"Site_B","kubeconfig":"x"}]"#, "name"),
        (r#"clusters=[{"name":"b","kubeconfig":"x","identityURL":"https://b.example"}]"#, "region"),
        (r#"ownCluster={"identityURL":"https://a.example/v3"}"#, "region"),
        (r#"ownCluster={"identityURL":"a.example:5000","region":"RA"}"#, "identityURL"),
        (
            r#"ownCluster={"identityURL":"https://a.example","region":"RA","nodesAreServers":"yes"}"#,
            "nodesAreServers",
        ),
        (r#"movers.resources={"cpu":1}"#, "cpu"),
    ] {
        let error = helm(&[set]).expect_err(set);
        assert!(error.contains(complaint), "{set}: {error}");
    }
}
