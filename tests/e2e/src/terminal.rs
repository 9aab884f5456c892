//! The client as a person has it: the real binary, with the kubeconfig of a tenant.

use crate::{Lab, setting};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
    rbac::v1::RoleBinding,
};
use kube::{api::PostParams, config::Kubeconfig};
use serde_json::{Value, json};
use std::{path::PathBuf, process::Stdio};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

/// A machine with the client on it.
pub struct Terminal {
    /// Where scripts and archives are.
    pub home: TempDir,
    program: PathBuf,
    namespace: String,
}

/// What a call gave.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// The output, if the exit code is as wanted.
    pub fn with(self, code: i32) -> Result<String> {
        ensure!(self.code == Some(code), "exit code {:?}, not {code}:\n{}{}", self.code, self.out, self.err);
        Ok(self.out)
    }
}

impl Terminal {
    /// A machine of an account that has the tenant's role in the test's namespace, and nothing else.
    pub async fn of_tenant(lab: &Lab) -> Result<Self> {
        let token = tenant_token(lab).await?;
        Self::with(lab, vec![context("team", "site-a", &lab.name, Some(json!({"token": token})))?])
    }

    /// A machine of the administrator of both clusters; its namespace is the test's.
    pub fn of_platform(lab: &Lab) -> Result<Self> {
        let clusters = [("team", "site-a"), ("cluster-b", "site-b")];
        let contexts = clusters.map(|(name, site)| context(name, site, &lab.name, None));
        Self::with(lab, contexts.into_iter().collect::<Result<_>>()?)
    }

    fn with(lab: &Lab, contexts: Vec<NamedContext>) -> Result<Self> {
        let home = tempfile::tempdir()?;
        std::fs::write(home.path().join("kubeconfig"), kubeconfig(contexts).to_string())?;
        // tests/e2e/run builds the workspace's binaries next to the tests' own.
        let mut program = std::env::current_exe()?;
        program.pop();
        program.pop();
        program.push("kubectl-vmmigration");
        ensure!(program.is_file(), "{} is not built", program.display());
        Ok(Terminal { home, program, namespace: lab.name.clone() })
    }

    /// Writes a script; gives its path.
    pub fn script(&self, name: &str, text: &str) -> Result<String> {
        let path = self.home.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// What a script has written into a file of the home.
    pub fn written(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.path().join(name)).unwrap_or_default()
    }

    fn environment(&self, command: &mut Command) {
        command.current_dir(self.home.path()).env("KUBECONFIG", self.home.path().join("kubeconfig"));
        command.env("TERM", "xterm").env_remove("NO_COLOR").kill_on_drop(true);
    }

    /// Starts a call with its output in pipes.
    pub fn start(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = Command::new(&self.program);
        self.environment(&mut command);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().with_context(|| format!("starting {}", self.program.display()))
    }

    /// A whole call with its output in pipes.
    pub async fn call(&self, arguments: &[&str]) -> Result<Said> {
        said(self.start(arguments)?).await
    }

    /// Starts a call in a pseudo-terminal.
    pub fn start_in_terminal(&self, arguments: &str, no_color: bool) -> Result<Child> {
        let line = format!("stty cols 120 rows 40; exec '{}' {arguments}", self.program.display());
        let mut command = Command::new("script");
        self.environment(&mut command);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().context("starting script")
    }

    /// Where the client was built.
    pub fn program(&self) -> std::path::Display<'_> {
        self.program.display()
    }

    /// A line of shell in the home, whose directory `bin` comes first in PATH.
    fn line(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        self.environment(&mut command);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}/bin:{path}", self.home.path().display()));
        command.args(["-c", line]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a line of shell with its output in pipes.
    pub fn start_line(&self, line: &str) -> Result<Child> {
        self.line(line).stdin(Stdio::null()).spawn().with_context(|| format!("starting {line}"))
    }

    /// Runs a line of shell in a pseudo-terminal, and types `answer` as soon as it asks `question`.
    pub async fn answering(&self, line: &str, question: &str, answer: &str) -> Result<Said> {
        let mut command = self.line("exec script --quiet --return --command \"$LINE\" /dev/null");
        let mut child = command.env("LINE", line).stdin(Stdio::piped()).spawn()?;
        let (mut keys, mut screen) = (child.stdin.take(), child.stdout.take().context("no output")?);
        let mut seen = vec![];
        while screen.read_buf(&mut seen).await? > 0 {
            if String::from_utf8_lossy(&seen).contains(question)
                && let Some(mut keys) = keys.take()
            {
                keys.write_all(format!("{answer}\r").as_bytes()).await?;
            }
        }
        let mut ended = said(child).await?;
        ended.out = String::from_utf8_lossy(&seen).into_owned();
        Ok(ended)
    }

    /// The namespace that its kubeconfig is for.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// Waits for the end of a call.
pub async fn said(child: Child) -> Result<Said> {
    let out = child.wait_with_output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: out.status.code(), out: text(&out.stdout), err: text(&out.stderr) })
}

async fn tenant_token(lab: &Lab) -> Result<String> {
    let accounts = lab.api::<ServiceAccount>(&lab.name);
    let account = json!({"metadata": {"name": "person"}});
    accounts.create(&PostParams::default(), &serde_json::from_value(account)?).await?;
    let binding = json!({"metadata": {"name": "person"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "vmmigration-tenant"},
        "subjects": [{"kind": "ServiceAccount", "name": "person", "namespace": lab.name}]});
    lab.api::<RoleBinding>(&lab.name)
        .create(&PostParams::default(), &serde_json::from_value(binding)?)
        .await?;
    let wanted = TokenRequest { spec: TokenRequestSpec::default(), ..Default::default() };
    let made = accounts.create_token_request("person", &PostParams::default(), &wanted).await?;
    Ok(made.status.context("no token")?.token)
}

fn named(kubeconfig: &Value, list: &str, name: &str) -> Result<Value> {
    let mut all = kubeconfig[list].as_array().into_iter().flatten();
    all.find(|e| e["name"] == name).cloned().with_context(|| format!("no {name} in {list}"))
}

/// A context with what it refers to.
struct NamedContext {
    name: &'static str,
    cluster: Value,
    user: Value,
    namespace: String,
}

/// A cluster of the test bed under the name of a page; its administrator, if nobody else is given.
fn context(name: &'static str, site: &str, namespace: &str, user: Option<Value>) -> Result<NamedContext> {
    let file = serde_json::to_value(Kubeconfig::read_from(setting("KUBECONFIG")?)?)?;
    let context = named(&file, "contexts", site)?;
    let referred = |kind: &str| context["context"][kind].as_str().unwrap_or_default().to_string();
    let cluster = named(&file, "clusters", &referred("cluster"))?["cluster"].clone();
    let administrator = named(&file, "users", &referred("user"))?["user"].clone();
    let user = user.unwrap_or(administrator);
    Ok(NamedContext { name, cluster, user, namespace: namespace.into() })
}

/// As the platform would hand it to a team; the first context is the current one.
fn kubeconfig(contexts: Vec<NamedContext>) -> Value {
    let mut file = json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": [],
        "current-context": contexts.first().map(|c| c.name)});
    for NamedContext { name, cluster, user, namespace } in contexts {
        let context = json!({"cluster": name, "user": name, "namespace": namespace});
        let parts =
            [("clusters", "cluster", cluster), ("users", "user", user), ("contexts", "context", context)];
        for (list, kind, value) in parts {
            if let Some(list) = file[list].as_array_mut() {
                list.push(json!({"name": name, kind: value}));
            }
        }
    }
    file
}
