//! The client, driven as a person does: the real binary, the tenant's rights, pipes and a pseudo-terminal.

use anyhow::{Context, Result, ensure};
use e2e::{Disks, Terminal, command, fatal, said, setting, shared, until};
use vmmigration::crd::v1alpha1::*;

/// Everything that needs no migration that runs.
async fn looks(terminal: &Terminal, server: &str) -> Result<()> {
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
fn drawn(screen: &str, coloured: bool) -> Result<()> {
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

#[test]
fn one_command_moves_a_server() -> Result<()> {
    shared("client_run", |lab| async move {
        let made = lab.a.make_server(&lab.name, Disks::LOCAL).await?;
        let terminal = Terminal::of_tenant(&lab).await?;
        looks(&terminal, &made.name).await?;
        let hook = terminal.script(
            "stop app.sh",
            "echo \"$VMM_PHASE $VMM_SOURCE_SERVER_NAME $VMM_SOURCE_ADDRESS $(cat | wc -c)\" >>ran\necho told\n",
        )?;
        let hook = format!("BeforeStop={hook}");
        let running = terminal.start(&[
            "run",
            "--from",
            "site-a",
            "--server",
            &made.name,
            "--to",
            "site-b",
            "--cutover",
            "Now",
            "--hook",
            &hook,
            "--timeout",
            "10m",
        ])?;
        // The object exists as soon as `run` can be attached to.
        let migration = lab.migration(&made.name, CutoverMode::Now).named(&made.name);
        until("the object that run makes", 120, || async { Ok(Some(migration.uid().await?)) }).await?;
        let second = terminal.start(&["attach", &made.name, "--hook", &hook, "--timeout", "10m"])?;
        let coloured = terminal.start_in_terminal(&format!("watch {} --timeout 10m", made.name), false)?;
        let plain = terminal.start_in_terminal(&format!("watch {} --timeout 10m", made.name), true)?;
        let (first, second, coloured, plain) =
            futures::try_join!(said(running), said(second), said(coloured), said(plain))?;

        let out = first.with(0)?;
        ensure!(out.contains("created") && out.contains(&format!("{}: Succeeded", made.name)), "{out}");
        ensure!(!out.contains('\x1b'), "a pipe gets control characters: {out:?}");
        let other = second.with(0)?;
        let ran = terminal.written("ran");
        let line = format!("BeforeStop {} {} ", made.name, made.address);
        ensure!(ran.lines().count() == 1 && ran.starts_with(&line), "the hook ran: {ran:?}");
        ensure!(out.contains("told") != other.contains("told"), "one of the two ran it:\n{out}\n{other}");
        drawn(&coloured.with(0)?, true)?;
        drawn(&plain.with(0)?, false)?;

        let listed = terminal.call(&["list"]).await?.with(0)?;
        ensure!(listed.contains(&made.name) && listed.contains("Succeeded"), "{listed}");
        let described = terminal.call(&["describe", &made.name]).await?.with(0)?;
        ensure!(described.contains("client-before-stop (BeforeStop): Succeeded"), "{described}");
        let status = migration.status().await?;
        let digest = status.disks[0].backup.as_ref().and_then(|d| d.sha256.clone()).context("no digest")?;
        ensure!(described.trim_end().ends_with(&digest), "digests do not come last: {described}");
        let page = terminal.call(&["report", &made.name, "-o", "markdown"]).await?.with(0)?;
        ensure!(page.starts_with("# Migration of ") && page.contains(&digest), "{page}");
        let report = terminal.call(&["report", &made.name, "-o", "json"]).await?.with(0)?;
        let report: VmMigrationReport = serde_json::from_str(&report)?;
        ensure!(report.spec.migration == made.name, "{report:?}");
        let archive = terminal.home.path().join("help.tar.gz").to_string_lossy().into_owned();
        terminal.call(&["diagnose", &made.name, "--file", &archive]).await?.with(0)?;
        no_secret(&archive).await?;

        // What is over says so, and what cannot be taken back wants a name.
        let late = terminal.call(&["cancel", &made.name]).await?;
        ensure!(late.code == Some(1) && late.err.contains("Refused"), "{late:?}");
        let unsure = terminal.call(&["rollback", &made.name]).await?;
        ensure!(unsure.code == Some(2) && unsure.err.contains("left behind"), "{unsure:?}");
        Ok(())
    })
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
