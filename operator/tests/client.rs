//! The client's real binary against a small API server that keeps one VmMigration: versions, conflicts, watches.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml speaks of #[test] only"
)]

#[path = "client_support/screens.rs"]
mod screens;
#[path = "client_support/svg.rs"]
mod svg;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::StreamExt;
use serde_json::{Value, json};
use std::{convert::Infallible, process::Stdio, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::watch,
};

/// An API server that keeps one object. Its versions are what optimistic locking needs.
#[derive(Clone)]
struct Cluster {
    object: Arc<watch::Sender<Value>>,
    home: Arc<TempDir>,
}

const COLLECTION: &str = "/apis/vmmigration.io/v1alpha1/namespaces/team/vmmigrations";

impl Cluster {
    async fn with(hooks: Value, status: Value) -> Self {
        let object = json!({
            "apiVersion": "vmmigration.io/v1alpha1", "kind": "VmMigration",
            "metadata": {"name": "web-1", "namespace": "team", "uid": "u1", "resourceVersion": "1", "generation": 1},
            "spec": {"source": {"cloud": "site-a", "server": "it's web 1"}, "destination": {"cloud": "site-b"},
                "cutover": {"mode": "Now"}, "hooks": hooks},
            "status": status,
        });
        let cluster = Cluster {
            object: Arc::new(watch::channel(object).0),
            home: Arc::new(tempfile::tempdir().unwrap()),
        };
        let app = Router::new()
            .route(COLLECTION, get(list))
            .route(&format!("{COLLECTION}/web-1"), get(read).patch(patch))
            .with_state(cluster.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        });
        std::fs::write(cluster.home.path().join("kubeconfig"), config.to_string()).unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        cluster
    }

    /// Changes the object, as the operator does.
    fn change(&self, change: impl FnOnce(&mut Value)) {
        self.object.send_modify(|object| {
            change(object);
            let version: i64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
        });
    }

    /// The object, once it is as wanted.
    async fn until(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut seen = self.object.subscribe();
        let found = tokio::time::timeout(Duration::from_secs(60), seen.wait_for(wanted)).await;
        found.expect("it never became so").unwrap().clone()
    }

    fn note(object: &Value, hook: &str) -> Value {
        let text = object["metadata"]["annotations"][format!("client-hooks.vmmigration.io/{hook}")].as_str();
        text.map_or(Value::Null, |t| serde_json::from_str(t).unwrap())
    }

    fn script(&self, text: &str) -> String {
        let path = self.home.path().join("a script.sh");
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    }

    fn written(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.path().join(name)).unwrap_or_default()
    }

    async fn until_written(&self, name: &str) -> String {
        let there = async {
            while !self.written(name).ends_with('\n') {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), there).await.expect("the script never ran");
        self.written(name).trim().to_string()
    }

    fn prepare(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.home.path()).env("KUBECONFIG", self.home.path().join("kubeconfig"));
        command.env("TERM", "xterm").env("TZ", "UTC").env_remove("NO_COLOR").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.prepare(env!("CARGO_BIN_EXE_kubectl-vmmigration")).args(arguments).spawn().unwrap()
    }

    /// Exit code, output, errors.
    async fn call(&self, arguments: &[&str]) -> (i32, String, String) {
        end(self.start(arguments)).await
    }
}

async fn end(child: Child) -> (i32, String, String) {
    let out = tokio::time::timeout(Duration::from_secs(90), child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr))
}

/// As Ctrl-C does.
fn interrupt(client: &Child) {
    let id = rustix::process::Pid::from_raw(client.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
}

fn answer(code: StatusCode, value: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn read(State(cluster): State<Cluster>) -> Response {
    answer(StatusCode::OK, &cluster.object.borrow())
}

async fn list(State(cluster): State<Cluster>, uri: Uri) -> Response {
    let now = cluster.object.borrow().clone();
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let asked = |key: &str| query.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str());
    if asked("watch") != "true" {
        let version = now["metadata"]["resourceVersion"].clone();
        let (key, value) = asked("labelSelector").split_once('=').unwrap_or_default();
        let chosen = key.is_empty() || now["metadata"]["labels"][key] == value;
        let items: Vec<_> = chosen.then_some(now).into_iter().collect();
        let list = json!({"apiVersion": "vmmigration.io/v1alpha1", "kind": "VmMigrationList",
            "metadata": {"resourceVersion": version}, "items": items});
        return answer(StatusCode::OK, &list);
    }
    let since = asked("resourceVersion").to_string();
    let events = futures::stream::unfold(cluster.object.subscribe(), |mut seen| async {
        seen.changed().await.ok()?;
        let object = seen.borrow_and_update().clone();
        Some((object, seen))
    });
    let first = futures::stream::iter((now["metadata"]["resourceVersion"] != since.as_str()).then_some(now));
    let lines = first.chain(events).map(|object| {
        Ok::<_, Infallible>(Bytes::from(format!("{}\n", json!({"type": "MODIFIED", "object": object}))))
    });
    Body::from_stream(lines).into_response()
}

async fn patch(State(cluster): State<Cluster>, body: Bytes) -> Response {
    let patch: Value = serde_json::from_slice(&body).unwrap();
    let mut conflict = false;
    cluster.object.send_if_modified(|object| {
        let seen = &patch["metadata"]["resourceVersion"];
        let version = object["metadata"]["resourceVersion"].clone();
        conflict = !seen.is_null() && *seen != version;
        if !conflict {
            merge(object, &patch);
            let next: i64 = version.as_str().unwrap().parse().unwrap();
            object["metadata"]["resourceVersion"] = json!((next + 1).to_string());
        }
        !conflict
    });
    if conflict {
        let status = json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": "it has changed"});
        return answer(StatusCode::CONFLICT, &status);
    }
    answer(StatusCode::OK, &cluster.object.borrow())
}

fn merge(base: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *base = patch.clone();
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    for (key, value) in members {
        if value.is_null() {
            base.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut base[key], value);
        }
    }
}

fn hooks() -> Value {
    json!([{"name": "stop", "phase": "BeforeStop", "captureOutput": true, "client": {}}])
}

fn waiting() -> Value {
    json!({"phase": "Stopping", "message": "Waiting for hook stop", "hooks": [
        {"name": "stop", "phase": "BeforeStop", "state": "Waiting", "attempts": 1, "nonce": "n1"}]})
}

fn succeed(object: &mut Value) {
    object["status"]["phase"] = json!("Succeeded");
    object["status"]["hooks"][0]["state"] = json!("Succeeded");
}

#[tokio::test]
async fn two_clients_at_once_run_a_hook_once() {
    let cluster = Cluster::with(hooks(), waiting()).await;
    let script =
        cluster.script("echo \"$VMM_SOURCE_SERVER_NAME\" >>ran; echo out; echo err >&2; cat >document\n");
    let hook = format!("BeforeStop={script}");
    let clients: Vec<Child> = (0..3).map(|_| cluster.start(&["attach", "web-1", "--hook", &hook])).collect();
    let done = cluster.until(|o| !Cluster::note(o, "stop")["exitCode"].is_null()).await;
    let note = Cluster::note(&done, "stop");
    assert_eq!((note["nonce"].as_str(), note["exitCode"].as_i64()), (Some("n1"), Some(0)));
    assert_eq!(note["output"].as_str().unwrap().len(), "out\nerr\n".len());
    cluster.change(succeed);
    for client in clients {
        let (code, out, err) = end(client).await;
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.contains("web-1: Succeeded") && !out.contains('\x1b'), "{out:?}");
    }
    assert_eq!(cluster.written("ran"), "it's web 1\n");
    let document: Value = serde_json::from_str(&cluster.written("document")).unwrap();
    assert_eq!(document["source"]["serverName"], "it's web 1");
    assert_eq!(done["spec"], cluster.object.borrow()["spec"], "the spec was changed");
}

#[tokio::test]
async fn a_dead_clients_claim_is_taken_over_and_a_failure_is_told() {
    let cluster = Cluster::with(hooks(), waiting()).await;
    let dead = json!({"nonce": "n1", "client": "dead", "seenAt": "2020-01-01T00:00:00Z"}).to_string();
    cluster.change(|o| o["metadata"]["annotations"] = json!({"client-hooks.vmmigration.io/stop": dead}));
    let script = cluster.script("echo \"no: $VMM_ATTEMPT\"; exit 7\n");
    let client = cluster.start(&["attach", "web-1", "--hook", &format!("stop={script}")]);
    let done = cluster.until(|o| !Cluster::note(o, "stop")["exitCode"].is_null()).await;
    let note = Cluster::note(&done, "stop");
    assert_eq!((note["exitCode"].as_i64(), note["output"].as_str()), (Some(7), Some("no: 1\n")));
    assert_ne!(note["client"], "dead");
    cluster.change(|o| {
        o["status"]["phase"] = json!("Failed");
        o["status"]["hooks"][0]["state"] = json!("Failed");
        o["status"]["failure"] = json!({"reason": "HookFailed", "message": "hook stop: exit code 7"});
    });
    let (code, out, err) = end(client).await;
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("no: 1") && out.contains("Because: hook stop: exit code 7"), "{out}");
}

#[tokio::test]
async fn an_interrupt_ends_the_script_gives_the_claim_up_and_says_how_to_go_on() {
    let cluster = Cluster::with(hooks(), waiting()).await;
    let script = cluster.script("echo $$ >pid; sleep 600\n");
    let client = cluster.start(&["attach", "web-1", "--hook", &format!("stop={script}")]);
    let script_id = cluster.until_written("pid").await;
    interrupt(&client);
    let (code, out, err) = end(client).await;
    assert_eq!(code, 130, "{out}{err}");
    assert!(err.contains("goes on without you") && err.contains("attach web-1 --hook stop="), "{err}");
    let note = Cluster::note(&cluster.object.borrow(), "stop");
    assert!(note["exitCode"].is_null() && note["seenAt"].is_null(), "the claim is still there: {note}");
    let alive = std::fs::read_to_string(format!("/proc/{script_id}/stat")).is_ok_and(|s| !s.contains(") Z "));
    assert!(!alive, "the script still runs");
}

/// Between two looks of a client that is always busy nothing may be lost, a Ctrl-C least of all.
#[tokio::test]
async fn an_interrupt_is_heard_while_the_script_writes_without_end() {
    let cluster = Cluster::with(hooks(), waiting()).await;
    let script = cluster.script("echo $$ >pid; while :; do echo busy; done\n");
    let client = cluster.start(&["attach", "web-1", "--hook", &format!("stop={script}")]);
    cluster.until_written("pid").await;
    interrupt(&client);
    let (code, _, err) = end(client).await;
    assert_eq!(code, 130, "{err}");
    assert!(err.contains("goes on without you"), "{err}");
}

#[tokio::test]
async fn a_hook_that_takes_too_long_is_ended() {
    let hooks = json!([{"name": "stop", "phase": "BeforeStop", "timeout": "1s", "client": {}}]);
    let cluster = Cluster::with(hooks, waiting()).await;
    let script = cluster.script("sleep 600\n");
    let client = cluster.start(&["attach", "web-1", "--hook", &format!("stop={script}")]);
    let done = cluster.until(|o| !Cluster::note(o, "stop")["exitCode"].is_null()).await;
    let note = Cluster::note(&done, "stop");
    assert_eq!(note["exitCode"], 124);
    assert!(note["output"].is_null(), "output is told without captureOutput");
    cluster.change(|o| {
        o["status"]["phase"] = json!("Cancelled");
        o["status"]["hooks"][0]["state"] = json!("Failed");
    });
    assert_eq!(end(client).await.0, 3);
}

#[tokio::test]
async fn a_watcher_ends_by_its_time_and_runs_nothing() {
    let cluster = Cluster::with(hooks(), waiting()).await;
    let (code, out, err) = cluster.call(&["watch", "web-1", "--timeout", "2s"]).await;
    assert_eq!(code, 4, "{out}{err}");
    assert!(out.contains("attach web-1 --hook stop=./SCRIPT") && err.contains("watch web-1"), "{out}{err}");
    assert_eq!(Cluster::note(&cluster.object.borrow(), "stop"), Value::Null, "a watcher claimed a hook");
    let script = cluster.script("true\n");
    let (code, _, err) = cluster.call(&["attach", "web-1", "--hook", &format!("AfterStop={script}")]).await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("It has: stop (BeforeStop)"), "{err}");
}

#[tokio::test]
async fn a_wait_ends_with_the_result_as_exit_code() {
    let cluster = Cluster::with(json!([]), json!({"phase": "Transferring"})).await;
    cluster.change(|o| o["metadata"]["labels"] = json!({"app": "shop"}));
    let (code, out, err) = cluster.call(&["wait", "--all", "--timeout", "3s"]).await;
    assert_eq!((code, out.as_str()), (4, ""), "{err}");
    assert!(err.contains("have not ended: web-1 (Transferring)"), "{err}");

    let clients: Vec<Child> = [&["wait", "web-1"][..], &["wait", "-l", "app=shop"], &["wait", "--all"]]
        .into_iter()
        .map(|call| cluster.start(call))
        .collect();
    cluster.change(|o| o["status"]["phase"] = json!("Verifying"));
    cluster.change(|o| o["status"] = json!({"phase": "Succeeded", "message": "web-1 runs in site-b"}));
    for client in clients {
        let (code, out, err) = end(client).await;
        assert_eq!((code, out.as_str()), (0, "web-1: Succeeded: web-1 runs in site-b\n"), "{err}");
    }
    for (phase, wanted) in [("Failed", 1), ("Cancelled", 3), ("RolledBack", 3), ("Retired", 0)] {
        cluster.change(|o| o["status"]["phase"] = json!(phase));
        let (code, out, err) = cluster.call(&["wait", "web-1"]).await;
        assert_eq!((code, out.lines().count()), (wanted, 1), "{phase}: {out}{err}");
        assert!(out.starts_with(&format!("web-1: {phase}")), "{out}");
    }
    let (code, out, err) = cluster.call(&["wait", "-l", "app=other"]).await;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("vmmigration list"), "{err}");
    for nonsense in [&["wait"][..], &["wait", "web-1", "--all"], &["wait", "--all", "-l", "app=shop"]] {
        assert_eq!(cluster.call(nonsense).await.0, 2, "{nonsense:?}");
    }
}

#[tokio::test]
async fn a_request_is_answered_or_not() {
    let cluster = Cluster::with(json!([]), json!({"phase": "Transferring"})).await;
    let operator = async |result: &str| {
        let object = cluster.until(|o| o["spec"]["requests"]["cancel"].is_string()).await;
        let token = object["spec"]["requests"]["cancel"].clone();
        cluster.change(|o| {
            o["status"]["requests"] =
                json!([{"name": "cancel", "token": token, "result": result, "message": "because"}]);
        });
    };
    let (said, ()) = futures::join!(cluster.call(&["cancel", "web-1"]), operator("Done"));
    assert_eq!((said.0, said.1.lines().next()), (0, Some("web-1: cancel: because")), "{said:?}");
    cluster.change(|o| o["spec"]["requests"] = json!({}));
    let (said, ()) = futures::join!(cluster.call(&["cancel", "web-1"]), operator("Refused"));
    assert_eq!(said.0, 1, "{said:?}");
    assert!(said.2.contains("cancel of web-1: Refused: because"), "{said:?}");
    let said = cluster.call(&["retry", "web-1", "--wait", "1s"]).await;
    assert_eq!(said.0, 4, "{said:?}");
    let said = cluster.call(&["rollback", "web-1"]).await;
    assert_eq!(said.0, 2, "nobody typed the name: {said:?}");
    assert!(cluster.object.borrow()["spec"]["requests"]["rollback"].is_null());
}

const OLD_SERVER: &str = "5b1b4a3c-8c8d-4b7e-9d5e-0c2f6a7b8c9d";

#[tokio::test]
async fn the_source_is_started_by_whoever_types_its_servers_id() {
    let touched = json!({"phase": "RollingBack", "source": {"serverId": OLD_SERVER, "claimedAt": "2026-08-29T20:00:00Z"}});
    let cluster = Cluster::with(json!([]), touched).await;
    let nothing_asked = || cluster.object.borrow()["spec"]["requests"]["startSource"].is_null();
    for typed in [&[][..], &["--yes-i-mean", "it's web 1"]] {
        let said = cluster.call(&[&["start-source", "web-1"][..], typed].concat()).await;
        assert!(said.0 == 2 && nothing_asked(), "{said:?}");
        assert!(said.2.contains("gone for good") && said.2.contains("nothing was done"), "{said:?}");
    }
    let operator = async || {
        let object = cluster.until(|o| o["spec"]["requests"]["startSource"].is_string()).await;
        let token = object["spec"]["requests"]["startSource"].clone();
        let row =
            json!([{"name": "startSource", "token": token, "result": "Done", "message": "as you wish"}]);
        cluster.change(|o| o["status"]["requests"] = row);
        token
    };
    let call = ["start-source", "web-1", "--yes-i-mean", OLD_SERVER];
    let (said, token) = futures::join!(cluster.call(&call), operator());
    assert_eq!((said.0, said.1.lines().next()), (0, Some("web-1: startSource: as you wish")), "{said:?}");
    let token = token.as_str().unwrap();
    // What the operator hears is the first word, in at most 64 characters.
    assert!(token.split(' ').next() == Some(OLD_SERVER) && token.len() <= 64, "{token}");

    let untouched =
        Cluster::with(json!([]), json!({"phase": "AwaitingCutover", "source": {"serverId": OLD_SERVER}}))
            .await;
    let said = untouched.call(&call).await;
    assert!(said.0 == 1 && said.2.contains("nothing to start"), "{said:?}");
}

#[tokio::test]
async fn a_time_for_the_go_and_its_latest_moment_are_set_and_taken_away_together() {
    let cluster = Cluster::with(json!([]), json!({"phase": "AwaitingCutover"})).await;
    let (at, latest) = ("2999-08-29T22:00:00Z", "2999-08-30T02:00:00Z");
    let said = cluster.call(&["cutover", "web-1", "--at", at, "--not-after", latest]).await;
    assert!(said.0 == 0 && said.1.contains("it waits for you"), "{said:?}");
    let cutover = || cluster.object.borrow()["spec"]["cutover"].clone();
    assert_eq!(cutover(), json!({"mode": "At", "at": at, "notAfter": latest}));
    let said = cluster.call(&["cutover", "web-1", "--at", latest, "--not-after", at]).await;
    assert!(said.0 == 2 && said.2.contains("must be later"), "{said:?}");
    let said = cluster.call(&["cutover", "web-1", "--at", at]).await;
    assert_eq!((said.0, cutover()), (0, json!({"mode": "At", "at": at})), "{said:?}");
    let arguments = ["--from", "a", "--server", "s", "--to", "b", "--no-look", "--dry-run=client"];
    let create = [&["create", "--cutover", at, "--not-after", latest][..], &arguments[..]].concat();
    let said = cluster.call(&create).await;
    assert!(said.0 == 0 && said.1.contains("notAfter") && said.1.contains(latest), "{said:?}");
    let create = [&["create", "--not-after", latest][..], &arguments[..]].concat();
    let said = cluster.call(&create).await;
    assert!(said.0 == 2 && said.2.contains("--not-after goes with a time"), "{said:?}");
}

#[tokio::test]
async fn a_rollback_has_the_servers_name_typed() {
    for (typed, code) in [("it's web 1", 0), ("web-1", 2)] {
        let cluster = Cluster::with(json!([]), json!({"phase": "Transferring"})).await;
        let operator = cluster.clone();
        tokio::spawn(async move {
            let asked = operator.until(|o| o["spec"]["requests"]["rollback"].is_string()).await;
            let token = &asked["spec"]["requests"]["rollback"];
            let row =
                json!([{"name": "rollback", "token": token, "result": "Done", "message": "as you wish"}]);
            operator.change(|o| o["status"]["requests"] = row);
        });
        let mut command = cluster.prepare("script");
        let line = format!("{} rollback web-1", env!("CARGO_BIN_EXE_kubectl-vmmigration"));
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::piped());
        let mut client = command.spawn().unwrap();
        let (mut keys, mut screen) = (client.stdin.take(), client.stdout.take().unwrap());
        let mut seen = vec![];
        while screen.read_buf(&mut seen).await.unwrap() > 0 {
            if let Some(mut keys) =
                keys.take_if(|_| String::from_utf8_lossy(&seen).contains("Type the server's"))
            {
                keys.write_all(format!("{typed}\r").as_bytes()).await.unwrap();
            }
        }
        let (ended, _, _) = end(client).await;
        assert_eq!(ended, code, "{}", String::from_utf8_lossy(&seen));
        assert_eq!(cluster.object.borrow()["spec"]["requests"]["rollback"].is_string(), code == 0);
    }
}

#[tokio::test]
async fn bars_on_a_terminal_and_colours_only_where_they_are_wanted() {
    for (no_color, coloured) in [("", true), ("1", false)] {
        let status = json!({"phase": "Transferring", "message": "Backing up disk 0: 42%", "disks": [
            {"index": 0, "sizeGib": 1, "stage": "Backing up: 42%",
                "progress": {"bytes": 450_887_680, "total": 1_073_741_824, "rate": 10_485_760}}]});
        let cluster = Cluster::with(json!([]), status).await;
        let line = format!(
            "stty cols 120 rows 40; exec {} watch web-1 --timeout 3s",
            env!("CARGO_BIN_EXE_kubectl-vmmigration")
        );
        let mut command = cluster.prepare("script");
        command.env("NO_COLOR", no_color).args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        let (code, screen, err) = end(command.spawn().unwrap()).await;
        assert_eq!(code, 4, "{screen}{err}");
        assert!(screen.contains("disk 0  1.0GiB") && screen.contains("=>"), "{screen:?}");
        assert!(screen.contains("Backing up  430.0MiB/1.0GiB  10.0MiB/s  ETA 59s"), "{screen:?}");
        let is_colour =
            |rest: &str| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m');
        assert_eq!(screen.split("\x1b[").skip(1).any(is_colour), coloured, "{screen:?}");
    }
}
