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
use tokio::process::{Child, Command};

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
        let home = tempfile::tempdir()?;
        std::fs::write(home.path().join("kubeconfig"), kubeconfig(lab, &token)?.to_string())?;
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

/// As the platform would hand it to a team: one cluster, one user, one namespace.
fn kubeconfig(lab: &Lab, token: &str) -> Result<Value> {
    let file = serde_json::to_value(Kubeconfig::read_from(setting("KUBECONFIG")?)?)?;
    let named = |list: &str, name: &str| {
        let all = file[list].as_array().into_iter().flatten();
        all.clone().find(|e| e["name"] == name).cloned().with_context(|| format!("no {name} in {list}"))
    };
    let cluster = named("contexts", "site-a")?["context"]["cluster"].as_str().unwrap_or_default().to_string();
    Ok(json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "team",
        "clusters": [named("clusters", &cluster)?],
        "users": [{"name": "person", "user": {"token": token}}],
        "contexts": [{"name": "team", "context": {"cluster": cluster, "user": "person", "namespace": lab.name}}],
    }))
}
