//! `wait`: until migrations have ended, with their result as exit code. For scripts.

use super::{
    cli::{Several, WaitArgs},
    connect::Session,
    end::{Done, Ended, Stop, local},
    follow::{at, trouble_of_watch},
    text,
};
use crate::{
    crd::{
        stored::Stored,
        v1alpha1::{Phase, VmMigration, VmMigrationStatus},
    },
    signals::StopSignals,
};
use futures::StreamExt;
use kube::{
    ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::Duration,
};
use tokio::time::Instant;

/// `kubectl vmmigration wait`
pub async fn run(session: Session, args: &WaitArgs) -> Done {
    if let Some(name) = &args.which.name {
        session.migration(name).await?;
    }
    let api = session.api::<Stored<VmMigration>>();
    let mut events = pin!(watcher::watcher(api, selected(&args.which)).default_backoff());
    let timeout = args.timeout.as_ref().map(|t| Duration::from_secs(t.seconds().unsigned_abs()));
    let until = timeout.map(|t| Instant::now() + t);
    let mut signals = StopSignals::listen().map_err(local("signals"))?;
    let (mut waiting, mut told) = (Waiting::default(), String::new());
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => {
                    told.clear();
                    tell_unreadable(&event);
                    waiting.hear(event).iter().for_each(|line| println!("{}", text::clean(line)));
                }
                Some(Err(error)) => {
                    let trouble = trouble_of_watch("watching VmMigrations", error)?;
                    if trouble != told {
                        eprintln!("{} {}", text::notable("trouble:"), text::clean(&trouble));
                        told = trouble;
                    }
                }
                None => return Err(Stop::failed("the watch ended")),
            },
            () = signals.recv() => {
                eprintln!("Not waited for any more: {}. They go on without you.", waiting.open());
                return Ok(Ended::Interrupted);
            }
            () = at(until) => return Err(Stop::timeout(format!(
                "the time is up, and these have not ended: {}. They go on.", waiting.open()
            ))),
        }
        if waiting.is_for_nothing() {
            return Err(Stop::failed(format!(
                "no VmMigration in namespace {} is chosen by that; `kubectl vmmigration list` shows what there is",
                session.namespace
            )));
        }
        if let Some(ended) = waiting.result() {
            return Ok(ended);
        }
    }
}

fn selected(which: &Several) -> watcher::Config {
    let config = watcher::Config::default();
    match (&which.name, &which.selector) {
        (Some(name), _) => config.fields(&format!("metadata.name={name}")),
        (None, Some(selector)) => config.labels(selector),
        (None, None) => config,
    }
}

/// It is waited for: it ends once somebody has corrected it.
fn tell_unreadable(event: &Event<Stored<VmMigration>>) {
    if let Event::InitApply(Stored(Err(why))) | Event::Apply(Stored(Err(why))) = event {
        eprintln!("{}", text::clean(&text::unreadable(why)));
    }
}

/// One that is waited for.
#[derive(Debug, Default)]
struct Row {
    uid: Option<String>,
    /// As it was seen last.
    phase: Phase,
    ended: Option<Ended>,
}

/// Those that were there at first, by name. Who comes later is not waited for.
#[derive(Debug, Default)]
struct Waiting {
    rows: BTreeMap<String, Row>,
    /// In the list that is being read.
    listed: BTreeSet<String>,
    /// The first list was read.
    begun: bool,
}

impl Waiting {
    /// Hears what happened. A line for each that has ended by it. Pure.
    fn hear(&mut self, event: Event<Stored<VmMigration>>) -> Vec<String> {
        match event {
            Event::Init => {
                self.listed.clear();
                vec![]
            }
            Event::InitApply(object) => {
                let name = object.name_any();
                self.listed.insert(name.clone());
                if !self.begun {
                    let row = || Row { uid: object.uid(), ..Row::default() };
                    self.rows.entry(name).or_insert_with(row);
                }
                self.look(object).into_iter().collect()
            }
            Event::InitDone => {
                self.begun = true;
                let gone: Vec<_> =
                    self.rows.keys().filter(|name| !self.listed.contains(*name)).cloned().collect();
                gone.iter().filter_map(|name| self.gone(name)).collect()
            }
            Event::Apply(object) => self.look(object).into_iter().collect(),
            Event::Delete(object) => self.gone(&object.name_any()).into_iter().collect(),
        }
    }

    fn look(&mut self, object: Stored<VmMigration>) -> Option<String> {
        let name = object.name_any();
        let row = self.rows.get_mut(&name).filter(|row| row.ended.is_none())?;
        if row.uid != object.uid() {
            return self.gone(&name);
        }
        let status = object.0.ok()?.status?;
        row.phase = status.phase.unwrap_or_default();
        row.ended = result(&status);
        row.ended?;
        let message = status.message.map(|m| format!(": {m}")).unwrap_or_default();
        Some(format!("{name}: {}{message}", row.phase))
    }

    fn gone(&mut self, name: &str) -> Option<String> {
        let row = self.rows.get_mut(name).filter(|row| row.ended.is_none())?;
        row.ended = Some(Ended::GivenUp);
        Some(format!("{name}: the VmMigration was deleted"))
    }

    fn is_for_nothing(&self) -> bool {
        self.begun && self.rows.is_empty()
    }

    /// Those that have not ended, with their phases.
    fn open(&self) -> String {
        let open = self.rows.iter().filter(|(_, row)| row.ended.is_none());
        open.map(|(name, row)| format!("{name} ({})", row.phase)).collect::<Vec<_>>().join(", ")
    }

    /// Once all have ended: well only if all have.
    fn result(&self) -> Option<Ended> {
        let all: Option<Vec<Ended>> = self.rows.values().map(|row| row.ended).collect();
        let all = all.filter(|_| self.begun)?;
        let worst = [Ended::Failed, Ended::GivenUp].into_iter().find(|end| all.contains(end));
        Some(worst.unwrap_or(Ended::Well))
    }
}

fn result(status: &VmMigrationStatus) -> Option<Ended> {
    let ended = match status.phase? {
        Phase::Failed => Ended::Failed,
        phase if phase.succeeded() => Ended::Well,
        _ => Ended::GivenUp,
    };
    status.finished().then_some(ended)
}

#[cfg(test)]
mod tests {
    use super::{super::watch::tests::object, *};
    use serde_json::json;

    fn one(name: &str, phase: &str) -> Stored<VmMigration> {
        let mut one = object(json!({"phase": phase, "message": "as it is"}));
        (one.metadata.name, one.metadata.uid) = (Some(name.into()), Some(format!("uid-of-{name}")));
        Stored(Ok(one))
    }

    fn begun(all: &[(&str, &str)]) -> (Waiting, Vec<String>) {
        let mut waiting = Waiting::default();
        let mut lines = waiting.hear(Event::Init);
        for (name, phase) in all {
            lines.extend(waiting.hear(Event::InitApply(one(name, phase))));
            assert_eq!(waiting.result(), None, "the list is not read yet");
        }
        lines.extend(waiting.hear(Event::InitDone));
        (waiting, lines)
    }

    #[test]
    fn all_have_to_succeed() {
        for (phases, wanted) in [
            (&["Succeeded", "Retired", "Retiring"][..], Some(Ended::Well)),
            (&["Succeeded", "Failed", "Cancelled"], Some(Ended::Failed)),
            (&["Succeeded", "RolledBack"], Some(Ended::GivenUp)),
            (&["Failed", "Transferring"], None),
            (&["Blocked"], None),
            (&["Held"], None),
        ] {
            let names = ["a", "b", "c"];
            let all: Vec<_> = names.into_iter().zip(phases.iter().copied()).collect();
            assert_eq!(begun(&all).0.result(), wanted, "{phases:?}");
        }
    }

    #[test]
    fn each_end_is_told_once_and_who_comes_later_is_not_waited_for() {
        let (mut waiting, lines) = begun(&[("a", "Succeeded"), ("b", "Transferring"), ("c", "Held")]);
        assert_eq!(lines, ["a: Succeeded: as it is"]);
        assert_eq!(waiting.open(), "b (Transferring), c (Held)");
        assert!(waiting.hear(Event::Apply(one("a", "Succeeded"))).is_empty(), "it was told");
        assert!(waiting.hear(Event::Apply(one("later", "Failed"))).is_empty());
        assert_eq!(waiting.hear(Event::Apply(one("b", "Failed"))), ["b: Failed: as it is"]);
        // It is gone between two lists.
        waiting.hear(Event::Init);
        waiting.hear(Event::InitApply(one("later", "Failed")));
        assert_eq!(waiting.hear(Event::InitDone), ["c: the VmMigration was deleted"]);
        assert_eq!(waiting.result(), Some(Ended::Failed));
    }

    #[test]
    fn one_that_was_made_anew_under_its_name_is_another_one() {
        let (mut waiting, _) = begun(&[("a", "Transferring")]);
        let mut other = object(json!({"phase": "Pending"}));
        (other.metadata.name, other.metadata.uid) = (Some("a".into()), Some("other".into()));
        assert_eq!(waiting.hear(Event::Apply(Stored(Ok(other)))), ["a: the VmMigration was deleted"]);
        assert_eq!(waiting.result(), Some(Ended::GivenUp));
        assert!(begun(&[]).0.is_for_nothing() && !Waiting::default().is_for_nothing());
    }

    #[test]
    fn a_new_try_is_no_end() {
        let asked = json!({"phase": "Failed", "retryRequestedAt": "2026-08-29T20:00:00Z"});
        assert_eq!(result(&object(asked).status.unwrap()), None);
    }
}
