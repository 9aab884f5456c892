//! What a person decides in the middle: the go, suspend, cancel, retry, rollback, retire, start-source. Only `spec.requests`,
//! `spec.cutover` and `spec.suspend` are patched; the operator's answer is waited for, and printed.

use super::{
    cli::{CutoverArgs, NamedArgs, StartSourceArgs, SureArgs},
    connect::Session,
    end::{Done, Ended, Stop, answer_is_final, explain},
    text,
};
use crate::crd::v1alpha1::*;
use jiff::{Timestamp, Zoned, civil::DateTime, tz::TimeZone};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::{io::IsTerminal, time::Duration};
use tokio::time::{Instant, sleep};

/// How often the answer is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// When the source may be stopped, as an option says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// When somebody says so.
    #[default]
    Manual,
    /// As soon as preflight has passed.
    Now,
    /// At a time.
    At(Timestamp),
}

impl When {
    /// `spec.cutover` as options say it.
    pub fn until(self, not_after: Option<Timestamp>) -> Result<Cutover, Stop> {
        let (mode, at) = match self {
            When::Manual => (CutoverMode::Manual, None),
            When::Now => (CutoverMode::Now, None),
            When::At(at) => (CutoverMode::At, Some(at)),
        };
        match (at, not_after) {
            (None, Some(_)) => {
                Err(Stop::usage("--not-after goes with a time at which the source is stopped"))
            }
            (Some(at), Some(latest)) if latest <= at => {
                Err(Stop::usage(format!("--not-after {latest} must be later than {at}")))
            }
            _ => Ok(Cutover { mode, at: at.map(Time), not_after: not_after.map(Time) }),
        }
    }
}

/// `Manual`, `Now`, or a time.
pub fn when(text: &str) -> Result<When, String> {
    match text.to_ascii_lowercase().as_str() {
        "manual" => Ok(When::Manual),
        "now" => Ok(When::Now),
        _ => time(text).map(When::At).map_err(|e| format!("Manual, Now, or a time: {e}")),
    }
}

/// A time that is to come; without a zone it is of this machine's.
pub fn time(text: &str) -> Result<Timestamp, String> {
    let zoned = || text.parse::<Zoned>().ok().map(|z| z.timestamp());
    let local = || Some(text.parse::<DateTime>().ok()?.to_zoned(TimeZone::system()).ok()?.timestamp());
    let at = text.parse::<Timestamp>().ok().or_else(zoned).or_else(local);
    match at {
        Some(at) if at > Timestamp::now() => Ok(at),
        Some(at) => Err(format!("{at} is past; a time that is past would wait for you")),
        None => Err("needed is a time such as 2030-08-29T22:00:00+02:00".into()),
    }
}

/// `kubectl vmmigration cutover`
pub async fn cutover(session: Session, args: &CutoverArgs) -> Done {
    let name = &args.named.name;
    let wanted = args.at.map_or(When::Now, When::At).until(args.not_after)?;
    let object = session.migration(name).await?;
    let phase = phase(&object);
    // One that came too late waits again.
    let waits = |o: &VmMigration| {
        let missed = o.status.as_ref().and_then(|s| s.cutover.as_ref()).is_some_and(|c| c.missed);
        self::phase(o) == Phase::AwaitingCutover || missed
    };
    let granted = |o: &VmMigration| {
        let cutover = o.status.as_ref().and_then(|s| s.cutover.as_ref());
        cutover.is_some_and(|c| c.granted_at.is_some()) && !waits(o)
    };
    if granted(&object) {
        return Err(Stop::failed(format!("the go was given before; {name} is {phase}")));
    }
    if is_over(phase) {
        return Err(Stop::failed(format!("{name} is {phase}; there is nothing left to go")));
    }
    // Times that are left from before would not go with the mode Now: null takes them away.
    let Cutover { mode, at, not_after } = wanted;
    patch(&session, name, json!({"cutover": {"mode": mode, "at": at, "notAfter": not_after}})).await?;
    if let Some(at) = args.at {
        let date = |t| text::date(t, &TimeZone::system());
        let latest = args.not_after.map(|t| format!("; later than {} it waits for you", date(t)));
        println!("{name}: the source is stopped at {}{}", date(at), latest.unwrap_or_default());
        return Ok(Ended::Well);
    }
    let seen =
        |o: &VmMigration| granted(o).then(|| format!("{name}: the go is given; it is {}", self::phase(o)));
    let status = object.status.clone().unwrap_or_default();
    let passing = status.copying.is_some_and(|c| c.began_at.is_some());
    if passing {
        println!("{name}: the go is given; the source is stopped when the pass that is under way has ended");
    } else if matches!(phase, Phase::AwaitingCutover) {
        println!("{}", wait(&session, &args.named, "the go", seen).await?);
    } else {
        println!("{name}: the go is given; it is {phase}, and stops the source when preflight has passed");
    }
    follow_it(name);
    Ok(Ended::Well)
}

/// `kubectl vmmigration suspend`, `resume`
pub async fn suspend(session: Session, args: &NamedArgs, wanted: bool) -> Done {
    let name = &args.name;
    let phase = phase(&session.migration(name).await?);
    if is_over(phase) {
        return Err(Stop::failed(format!("{name} is {phase}; there is nothing to suspend or resume")));
    }
    patch(&session, name, json!({"suspend": wanted})).await?;
    let seen = |o: &VmMigration| {
        let suspended = o.status.as_ref().is_some_and(|s| s.suspended_since.is_some());
        (suspended == wanted && observed(o)).then(|| message(o))
    };
    let said = wait(&session, args, if wanted { "the suspension" } else { "the resumption" }, seen).await?;
    println!("{name}: {}", if wanted { "suspended; nothing new is begun" } else { "not suspended any more" });
    println!("  {said}");
    if wanted {
        println!("To go on: kubectl vmmigration resume {name}");
    }
    Ok(Ended::Well)
}

/// `kubectl vmmigration cancel`
pub async fn cancel(session: Session, args: &NamedArgs) -> Done {
    session.migration(&args.name).await?;
    request(&session, args, RequestName::Cancel, token(Timestamp::now())).await
}

/// `kubectl vmmigration retry`
pub async fn retry(session: Session, args: &NamedArgs) -> Done {
    session.migration(&args.name).await?;
    request(&session, args, RequestName::Retry, token(Timestamp::now())).await
}

/// `kubectl vmmigration rollback`
pub async fn rollback(session: Session, args: &SureArgs) -> Done {
    let object = session.migration(&args.named.name).await?;
    be_sure(&name_of(&object), args.yes_i_mean.as_deref(), &what_rollback_loses(&object))?;
    request(&session, &args.named, RequestName::Rollback, token(Timestamp::now())).await
}

/// `kubectl vmmigration retire`
pub async fn retire(session: Session, args: &SureArgs) -> Done {
    let object = session.migration(&args.named.name).await?;
    be_sure(&name_of(&object), args.yes_i_mean.as_deref(), &what_retire_deletes(&object))?;
    request(&session, &args.named, RequestName::Retire, token(Timestamp::now())).await
}

/// `kubectl vmmigration start-source`
pub async fn start_source(session: Session, args: &StartSourceArgs) -> Done {
    let name = &args.named.name;
    let object = session.migration(name).await?;
    let source = object.status.as_ref().and_then(|s| s.source.clone()).unwrap_or_default();
    let id = source.server_id;
    if id.is_empty() || source.claimed_at.is_none() {
        return Err(Stop::failed(format!("the source of {name} was not touched: there is nothing to start")));
    }
    let sure = Sure { what: "id", wanted: id.clone() };
    be_sure(&sure, args.yes_i_mean.as_deref(), &what_start_source_risks(&object))?;
    // The id is what counts; what follows makes it a value that was not answered yet.
    let value = format!("{id} {}", token(Timestamp::now()));
    request(&session, &args.named, RequestName::StartSource, value).await
}

/// A value that no request has had: the time, and something random.
fn token(now: Timestamp) -> String {
    format!("{}-{:08x}", now.strftime("%Y%m%dT%H%M%SZ"), rand::random::<u32>())
}

async fn request(session: &Session, args: &NamedArgs, name: RequestName, token: String) -> Done {
    let verb = name.verb();
    patch(session, &args.name, json!({"requests": {verb: token}})).await?;
    let answer = |o: &VmMigration| {
        let rows = &o.status.as_ref()?.requests;
        rows.iter().find(|r| r.name == name && r.token == token).cloned()
    };
    let answer = wait(session, args, &format!("the answer to {verb}"), answer).await?;
    match answer.result {
        RequestResult::Done => {
            println!("{}: {verb}: {}", args.name, answer.message);
            follow_it(&args.name);
            Ok(Ended::Well)
        }
        result => Err(Stop::failed(format!("{verb} of {}: {result:?}: {}", args.name, answer.message))),
    }
}

fn follow_it(name: &str) {
    println!("To follow it: kubectl vmmigration watch {name}");
}

async fn patch(session: &Session, name: &str, spec: Value) -> Result<VmMigration, Stop> {
    let patch = Patch::Merge(json!({"spec": spec}));
    let done = session.api::<VmMigration>().patch(name, &PatchParams::default(), &patch).await;
    done.map_err(explain(format!("changing VmMigration {name}")))
}

/// Looks until there is an answer. The request stays in the spec when the time is up.
async fn wait<T>(
    session: &Session,
    args: &NamedArgs,
    what: &str,
    answer: impl Fn(&VmMigration) -> Option<T>,
) -> Result<T, Stop> {
    let end = Instant::now() + Duration::from_secs(args.wait.seconds().unsigned_abs());
    let api = session.api::<VmMigration>();
    loop {
        let trouble = match api.get(&args.name).await {
            Ok(object) => {
                let object = text::clean_object(object).map_err(|e| Stop::failed(e.to_string()))?;
                if let Some(answer) = answer(&object) {
                    return Ok(answer);
                }
                format!("it is {}: {}", phase(&object), message(&object))
            }
            Err(e) if answer_is_final(&e) => {
                return Err(explain(format!("reading VmMigration {}", args.name))(e));
            }
            Err(e) => e.to_string(),
        };
        if Instant::now() > end {
            return Err(Stop::timeout(format!(
                "{what} of {} is not there after {}; {trouble}\nIt is asked for, and stays so: does the operator run? \
                 `kubectl vmmigration check` says more.",
                args.name, args.wait.0
            )));
        }
        sleep(LOOK).await;
    }
}

fn phase(object: &VmMigration) -> Phase {
    object.status.as_ref().and_then(|s| s.phase).unwrap_or_default()
}

fn is_over(phase: Phase) -> bool {
    use Phase::*;
    matches!(phase, Succeeded | RolledBack | Retiring | Retired | Failed | Cancelled | Deleting)
}

fn message(object: &VmMigration) -> String {
    object.status.as_ref().and_then(|s| s.message.clone()).unwrap_or_else(|| "not looked at yet".into())
}

/// Has the operator seen the spec as it is?
fn observed(object: &VmMigration) -> bool {
    object.status.as_ref().is_some_and(|s| s.observed_generation >= object.metadata.generation)
}

/// What is lost by going back. Pure.
pub fn what_rollback_loses(object: &VmMigration) -> Vec<String> {
    let (source, destination) = (&object.spec.source, &object.spec.destination);
    let x = object.status.as_ref().and_then(|s| s.destination.clone()).unwrap_or_default();
    let mut lines = vec![format!(
        "{} is started again in {} as it was when it was stopped.",
        source.server, source.cloud
    )];
    lines.push(match (&x.active_at, &x.server_id) {
        (Some(since), Some(id)) => format!(
            "Everything that was written in {} since {} is left behind there: server {id} is stopped and kept.",
            destination.cloud,
            text::date(since.0, &TimeZone::system())
        ),
        _ => format!("Nothing ran in {} yet: nothing is lost.", destination.cloud),
    });
    lines
}

/// What starting the source means while the destination cannot be seen. Pure.
pub fn what_start_source_risks(object: &VmMigration) -> Vec<String> {
    let (source, destination) = (&object.spec.source, &object.spec.destination.cloud);
    let x = object.status.as_ref().and_then(|s| s.destination.clone()).unwrap_or_default();
    let mut lines = vec![format!(
        "{} is started again in {} as it was when it was stopped.",
        source.server, source.cloud
    )];
    if x.server_requested_at.is_some() {
        let other = x.server_id.map_or_else(|| "the server".into(), |id| format!("server {id}"));
        lines.push(format!(
            "If {other} runs in {destination} all the same, two servers run with the same addresses and the same data."
        ));
    }
    if let Some(since) = x.active_at {
        let since = text::date(since.0, &TimeZone::system());
        lines.push(format!(
            "Everything that was written in {destination} since {since} is left behind there."
        ));
    }
    lines.push(format!(
        "It is for when {destination} is gone for good. While {destination} answers, its server is stopped first, as by \
         rollback; also when it answers again later."
    ));
    lines
}

/// What is deleted by retirement. Pure.
pub fn what_retire_deletes(object: &VmMigration) -> Vec<String> {
    let status = object.status.clone().unwrap_or_default();
    let cloud = &object.spec.source.cloud;
    let server = status.source.map(|s| s.server_id).unwrap_or_default();
    let mut lines = vec![format!("Deleted for good in {cloud}, the source:")];
    lines.push(format!("  server {} ({server}) and its ports", object.spec.source.server));
    for disk in &status.disks {
        if let Some(id) = &disk.source_volume_id {
            let name = disk.attributes.as_ref().map(|a| a.name.clone()).unwrap_or_default();
            lines.push(format!("  volume {id} {name} ({} GiB)", disk.size_gib));
        }
    }
    lines.push("There is no rollback after it.".into());
    lines
}

/// What has to be typed.
struct Sure {
    /// `name` or `id`.
    what: &'static str,
    wanted: String,
}

fn name_of(object: &VmMigration) -> Sure {
    Sure { what: "name", wanted: object.spec.source.server.clone() }
}

/// Has the server's name or id typed, or takes it from the option.
fn be_sure(sure: &Sure, given: Option<&str>, lines: &[String]) -> Result<(), Stop> {
    let Sure { what, wanted } = sure;
    for line in lines {
        eprintln!("{line}");
    }
    let typed = match given {
        Some(typed) => typed.to_string(),
        None if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() => {
            let prompt =
                dialoguer::Input::new().with_prompt(format!("Type the server's {what}, {wanted}, to go on"));
            prompt.allow_empty(true).interact_text().map_err(|e| Stop::usage(e.to_string()))?
        }
        None => String::new(),
    };
    match typed.as_str() {
        typed if typed == wanted => Ok(()),
        "" => Err(Stop::usage(format!("nothing was done; to do it: --yes-i-mean {wanted:?}"))),
        other => Err(Stop::usage(format!("nothing was done: {other:?} is not the {what} {wanted:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::watch::tests::object, *};

    #[test]
    fn tokens_differ_and_fit() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        assert_ne!(token(now), token(now));
        assert!(token(now).starts_with("20270115T080000Z-") && token(now).len() <= 64);
    }

    #[test]
    fn times_with_and_without_a_zone() {
        assert_eq!(time("2999-01-01T00:00:00+02:00").unwrap().to_string(), "2998-12-31T22:00:00Z");
        assert!(time("2999-01-01T00:00").is_ok() && time("2999-01-01 00:00:00").is_ok());
        assert!(time("2001-01-01T00:00:00Z").unwrap_err().contains("is past"));
        assert_eq!([when("now"), when("Manual")], [Ok(When::Now), Ok(When::Manual)]);
        assert!(matches!(when("2999-01-01T00:00:00Z"), Ok(When::At(_))));
    }

    #[test]
    fn a_rollback_says_what_is_left_behind() {
        let ran = object(json!({"destination": {"serverId": "b1", "activeAt": "2026-08-29T20:00:00Z"}}));
        let lines = what_rollback_loses(&ran);
        assert!(lines[1].contains("left behind") && lines[1].contains("b1 is stopped and kept"), "{lines:?}");
        assert!(what_rollback_loses(&object(json!({})))[1].contains("nothing is lost"));
    }

    #[test]
    fn a_retirement_lists_what_goes() {
        let object = object(json!({"source": {"serverId": "a1"}, "disks": [
            {"index": 0, "sizeGib": 2, "sourceVolumeId": "v0", "attributes": {"name": "root"}}, {"index": 1}]}));
        let lines = what_retire_deletes(&object);
        assert_eq!(lines[1], "  server web-1 (a1) and its ports");
        assert_eq!(lines[2], "  volume v0 root (2 GiB)");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn the_name_must_be_typed_as_it_is() {
        let sure = name_of(&object(json!({})));
        assert!(be_sure(&sure, Some("web-1"), &[]).is_ok());
        let error = be_sure(&sure, Some("web-2"), &[]).unwrap_err();
        assert_eq!(error.ended, Ended::Usage);
        assert!(error.message.contains("is not the name \"web-1\""), "{error}");
    }

    #[test]
    fn starting_the_source_says_that_two_may_run() {
        let asked = object(json!({"source": {"serverId": "a1"}, "destination": {"serverId": "b1",
            "serverRequestedAt": "2026-08-29T19:59:00Z", "activeAt": "2026-08-29T20:00:00Z"}}));
        let told = what_start_source_risks(&asked).join("\n");
        for wanted in [
            "If server b1 runs in site-b all the same, two servers run",
            "is left behind there",
            "gone for good",
        ] {
            assert!(told.contains(wanted), "{told}");
        }
        let never = what_start_source_risks(&object(json!({}))).join("\n");
        assert!(!never.contains("two servers") && !never.contains("left behind"), "{never}");
    }

    /// The operator reads at most 64 characters.
    #[test]
    fn the_value_of_start_source_fits() {
        let id = "5b1b4a3c-8c8d-4b7e-9d5e-0c2f6a7b8c9d";
        assert!(format!("{id} {}", token(Timestamp::now())).len() <= 64);
    }

    #[test]
    fn a_latest_moment_goes_with_a_time_and_is_later() {
        let [at, later] = ["2999-01-01T00:00:00Z", "2999-01-01T02:00:00Z"].map(|t| time(t).unwrap());
        let cutover = When::At(at).until(Some(later)).unwrap();
        assert_eq!(
            (cutover.mode, cutover.at, cutover.not_after),
            (CutoverMode::At, Some(Time(at)), Some(Time(later)))
        );
        for (when, not_after) in
            [(When::Now, later), (When::Manual, later), (When::At(at), at), (When::At(later), at)]
        {
            let error = when.until(Some(not_after)).unwrap_err();
            assert!(
                error.ended == Ended::Usage && error.message.contains("--not-after"),
                "{when:?}: {error}"
            );
        }
        assert_eq!(When::Now.until(None).unwrap().mode, CutoverMode::Now);
    }
}
