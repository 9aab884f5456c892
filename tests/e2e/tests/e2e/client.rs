//! The client, driven as a person does: the real binary, the tenant's rights, pipes and a pseudo-terminal. A whole
//! migration with it is in `docs`, which also looks at what is here.

use anyhow::{Context, Result, ensure};
use e2e::{Disks, Migration, Terminal, command, fatal, said, setting, shared, until};
use vmmigration::crd::v1alpha1::*;

/// Everything that needs no migration that runs.
pub async fn looks(terminal: &Terminal, server: &str) -> Result<()> {
    let checked = terminal.call(&["check", "--from", "site-a", "--to", "site-b"]).await?.with(0)?;
    ensure!(checked.contains("You can migrate from here"), "{checked}");
    let move_it = ["create", "--from", "site-a", "--server", server, "--to", "site-b"];
    // The test bed's own clouds.yaml has both clouds: the live server is looked at.
    let yaml = terminal.call(&[&move_it[..], &["--dry-run=client", "-o", "yaml"]].concat()).await?.with(0)?;
    ensure!(yaml.contains(&format!("# {server} (")) && yaml.contains(": ACTIVE, flavor tiny"), "{yaml}");
    let object: VmMigration = serde_saphyr::from_str(&yaml)?;
    ensure!(object.spec.source.server == server && object.spec.cutover.mode == CutoverMode::Manual, "{yaml}");
    terminal.call(&[&move_it[..], &["--dry-run=server", "--no-look"]].concat()).await?.with(0)?;
    let none =
        terminal.call(&["create", "--from", "site-a", "--server", "no-such", "--to", "site-b"]).await?;
    ensure!(none.code == Some(1) && none.err.contains(server), "it does not list what there is: {none:?}");

    let forbidden = terminal.call(&["list", "-n", "kube-system"]).await?;
    ensure!(forbidden.code == Some(1) && forbidden.err.contains("vmmigration-tenant"), "{forbidden:?}");
    let lost = terminal.call(&["watch", "no-such"]).await?;
    ensure!(lost.code == Some(1) && lost.err.contains("vmmigration list"), "{lost:?}");
    let wrong = terminal.call(&["list", "--kubeconfig", "/nowhere"]).await?;
    ensure!(wrong.code == Some(1) && wrong.err.contains("KUBECONFIG"), "{wrong:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = terminal.call(&["completion", shell]).await?.with(0)?;
        ensure!(script.contains("kubectl-vmmigration") && script.contains("rollback"), "{shell}: {script}");
    }
    Ok(())
}

/// Bars on a terminal; colours only where they are wanted.
pub fn drawn(screen: &str, coloured: bool) -> Result<()> {
    ensure!(screen.contains("disk 0") && screen.contains('['), "no bar: {screen:?}");
    // ESC [ … m
    let colours = screen
        .split("\x1b[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'));
    ensure!(colours == coloured, "colours: {colours}, wanted: {coloured}: {screen:?}");
    Ok(())
}

/// What only Secrets hold.
async fn no_secret(archive: &str) -> Result<()> {
    let text = command("tar", &["-xzOf", archive]).await?;
    ensure!(text.contains("kind: VmMigration") && text.contains("operator"), "{text}");
    let secret = setting("TESTBED_S3_SECRET_KEY")?;
    ensure!(!text.contains(&secret), "the store's key is in the archive");
    let clouds: serde_json::Value =
        serde_saphyr::from_slice(&std::fs::read(setting("OS_CLIENT_CONFIG_FILE")?)?)?;
    for site in ["site-a", "site-b"] {
        let auth = &clouds["clouds"][site]["auth"];
        for key in ["password", "application_credential_secret"] {
            if let Some(secret) = auth[key].as_str() {
                ensure!(!text.contains(&format!("{key}: {secret}")), "{site}'s {key} is in the archive");
            }
        }
    }
    Ok(())
}

/// What is told of a migration that has succeeded; what comes too late says so, and what cannot be taken back wants a name.
pub async fn told_afterwards(terminal: &Terminal, migration: &Migration) -> Result<()> {
    let name = migration.name.as_str();
    let listed = terminal.call(&["list"]).await?.with(0)?;
    ensure!(listed.contains(name) && listed.contains("Succeeded"), "{listed}");
    let described = terminal.call(&["describe", name]).await?.with(0)?;
    let status = migration.status().await?;
    let digest = status.disks[0].backup.as_ref().and_then(|d| d.sha256.clone()).context("no digest")?;
    let last = described.rsplit_once("\nDigests\n").map_or("", |(_, last)| last);
    ensure!(last.contains(&digest) && !last.contains("\n\n"), "digests do not come last: {described}");
    let page = terminal.call(&["report", name, "-o", "markdown"]).await?.with(0)?;
    ensure!(page.starts_with("# Migration of ") && page.contains(&digest), "{page}");
    let report = terminal.call(&["report", name, "-o", "json"]).await?.with(0)?;
    let report: VmMigrationReport = serde_json::from_str(&report)?;
    ensure!(report.spec.migration == name, "{report:?}");
    let archive = terminal.home.path().join("help.tar.gz").to_string_lossy().into_owned();
    terminal.call(&["diagnose", name, "--file", &archive]).await?.with(0)?;
    no_secret(&archive).await?;

    let late = terminal.call(&["cancel", name]).await?;
    ensure!(late.code == Some(1) && late.err.contains("Refused"), "{late:?}");
    let unsure = terminal.call(&["rollback", name]).await?;
    ensure!(unsure.code == Some(2) && unsure.err.contains("left behind"), "{unsure:?}");
    Ok(())
}

#[test]
fn a_client_dies_and_another_goes_on() -> Result<()> {
    shared("client_dies", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let terminal = Terminal::of_tenant(&lab).await?;
        let file = terminal.script("migration.yaml", &format!(
            "apiVersion: vmmigration.io/v1alpha1\nkind: VmMigration\nmetadata: {{name: web}}\nspec:\n  \
             source: {{cloud: site-a, server: {}}}\n  destination: {{cloud: site-b}}\n  cutover: {{mode: Manual}}\n  \
             hooks:\n  - {{name: stop, phase: BeforeStop, captureOutput: true, client: {{}}}}\n  \
             - {{name: proof, phase: AfterStop, client: {{}}}}\n", made.name))?;
        // It never ends by itself; its own process group is told, since nobody ends it with the client.
        let first = terminal.script("first.sh", "echo $$ >first; sleep 600")?;
        let second = terminal.script("second.sh", "echo second >>second; echo \"from $VMM_HOOK\"")?;
        let mut dying = terminal.start(&["run", "-f", &file, "--hook", &format!("stop={first}")])?;
        let migration = lab.migration(&made.name, CutoverMode::Manual).named("web");
        migration.wait_phase(Phase::AwaitingCutover, 180).await?;
        terminal.call(&["suspend", "web"]).await?.with(0)?;
        terminal.call(&["resume", "web"]).await?.with(0)?;
        terminal.call(&["cutover", "web"]).await?.with(0)?;
        let group = until("the first client to run its script", 120, || async {
            let group = terminal.written("first");
            Ok((!group.trim().is_empty()).then(|| group.trim().to_string()))
        })
        .await?;
        dying.kill().await?;
        command("kill", &["-KILL", &format!("-{group}")]).await?;

        let next = terminal.start(&[
            "attach",
            "web",
            "--hook",
            &format!("BeforeStop={second}"),
            "--timeout",
            "10m",
        ])?;
        // The dead client's claim has to grow old first.
        let row = migration
            .wait("after its first hook", 180, |s| {
                s.hooks.iter().find(|r| r.name == "stop" && r.state.is_final()).cloned()
            })
            .await?;
        ensure!(row.state == HookState::Succeeded && row.exit_code == Some(0), "{row:?}");
        ensure!(row.output.as_deref() == Some("from stop\n"), "{row:?}");
        ensure!(terminal.written("second") == "second\n", "it ran {:?}", terminal.written("second"));

        // The second hook has no client: the migration waits, says so, and can be cancelled.
        migration
            .wait("waiting for the second hook", 120, |s| {
                s.hooks.iter().find(|r| r.name == "proof" && r.state == HookState::Waiting).map(drop)
            })
            .await?;
        let described = terminal.call(&["describe", "web"]).await?.with(0)?;
        ensure!(described.contains("attach web --hook proof="), "{described}");
        terminal.call(&["cancel", "web"]).await?.with(0)?;
        let next = said(next).await?;
        ensure!(next.out.contains("hook proof (AfterStop): waits for a client"), "{next:?}");
        next.with(3)?;
        let status = migration.status().await?;
        if status.phase != Some(Phase::Cancelled) {
            return Err(fatal(format!("it is {:?}", status.phase)));
        }
        migration.wait_failed(120).await?;
        lab.a.runs_as_before(&made).await
    })
}
