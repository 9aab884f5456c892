//! Follows one migration to its end: shows it, runs client hooks, and gives its result.

use super::{
    attach::{Task, client_id, serve},
    cli::FollowArgs,
    connect::Session,
    end::{Done, Ended, Stop, answer_is_final, explain},
    hooks::{ScriptFor, Turn, client_hooks, is_open, next_action, note_of, row_of, script_of, useless},
    screen::Screen,
    text,
    watch::last_words,
};
use crate::{
    crd::{stored::Stored, v1alpha1::*},
    signals::StopSignals,
};
use futures::StreamExt;
use jiff::Timestamp;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use std::{collections::BTreeSet, pin::pin, time::Duration};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// How a migration is followed.
#[derive(Clone, Debug, Default)]
pub struct Follow {
    scripts: Vec<ScriptFor>,
    timeout: Option<Duration>,
    plain: bool,
    ends_when_blocked: bool,
}

impl Follow {
    /// As the options say.
    pub fn of(args: &FollowArgs) -> Self {
        let timeout = args.timeout.as_ref().map(|t| Duration::from_secs(t.seconds().unsigned_abs()));
        Follow { timeout, plain: args.plain, ..Default::default() }
    }

    /// With scripts for client hooks.
    pub fn with_scripts(self, scripts: Vec<ScriptFor>) -> Self {
        Follow { scripts, ..self }
    }

    /// A blocked migration ends it.
    pub fn ending_when_blocked(self) -> Self {
        Follow { ends_when_blocked: true, ..self }
    }
}

/// A script that runs.
struct Served {
    hook: String,
    nonce: String,
    stop: CancellationToken,
    end: JoinHandle<String>,
}

/// One follower.
struct Follower<'a> {
    session: &'a Session,
    api: Api<VmMigration>,
    name: &'a str,
    how: Follow,
    me: String,
    screen: Screen,
    print: UnboundedSender<String>,
    served: Option<Served>,
    /// Hooks that wait and that this client cannot run: told once for each attempt.
    told: BTreeSet<String>,
}

/// Follows a migration to its end.
pub async fn follow(session: &Session, name: &str, how: Follow) -> Done {
    let object = session.migration(name).await?;
    let useless = useless(&how.scripts, &object.spec);
    if !useless.is_empty() {
        return Err(no_such_hook(&object, &useless));
    }
    let (print, lines) = unbounded_channel();
    let screen = Screen::new(how.plain);
    let (api, me) = (session.api(), client_id());
    let mut follower =
        Follower { session, api, name, how, me, screen, print, served: None, told: BTreeSet::new() };
    let done = follower.run(object, lines).await;
    follower.stop_script().await;
    done
}

fn no_such_hook(object: &VmMigration, keys: &[&str]) -> Stop {
    let there: Vec<_> = client_hooks(object).map(|(h, _)| format!("{} ({})", h.name, h.phase)).collect();
    let there = if there.is_empty() { "none".to_string() } else { there.join(", ") };
    Stop::usage(format!(
        "--hook {}: the migration has no hook of kind client for it. It has: {there}. Hooks are given when it is \
         created: hooks: [{{name: stop-app, phase: BeforeStop, client: {{}}}}]",
        keys.join(", ")
    ))
}

impl Follower<'_> {
    async fn run(&mut self, mut object: VmMigration, mut lines: UnboundedReceiver<String>) -> Done {
        let all = self.session.api::<Stored<VmMigration>>();
        let mut events = pin!(watcher::watch_object(all, self.name).default_backoff());
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let until = self.how.timeout.map(|t| Instant::now() + t);
        let mut signals = StopSignals::listen().map_err(super::end::local("signals"))?;
        let mut trouble = String::new();
        loop {
            self.screen.show(&object);
            self.look_at_hooks(&object);
            if self.served.is_none()
                && let Some(ended) = ended(&object, self.how.ends_when_blocked)
            {
                return Ok(self.tell_end(&object, ended));
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Some(Stored(Err(why))))) => self.tell_new(&text::unreadable(&why), &mut trouble),
                    Some(Ok(Some(Stored(Ok(new))))) => {
                        object = text::clean_object(new).map_err(|e| Stop::failed(e.to_string()))?;
                        trouble.clear();
                    }
                    Some(Ok(None)) => return Ok(self.tell_gone(&object)),
                    Some(Err(error)) => self.tell_trouble(error, &mut trouble)?,
                    None => return Err(Stop::failed("the watch ended")),
                },
                Some(line) = lines.recv() => self.screen.line(&text::clean(&line)),
                line = end_of(&mut self.served) => {
                    self.served = None;
                    // What the script wrote comes before its end.
                    while let Ok(line) = lines.try_recv() {
                        self.screen.line(&text::clean(&line));
                    }
                    self.screen.line(&text::clean(&line));
                }
                _ = tick.tick() => {}
                () = signals.recv() => return Ok(self.tell_interrupted()),
                () = at(until) => return Err(self.timeout(&object)),
            }
        }
    }

    /// Runs the hook that waits, ends the script of one that does not wait any more, tells of what is missing.
    fn look_at_hooks(&mut self, object: &VmMigration) {
        if let Some(served) = &self.served {
            let row = row_of(object, &served.hook);
            let wanted = row.is_some_and(|r| is_open(r, &served.nonce));
            let over = row.is_some()
                && !wanted
                && note_of(object, &served.hook).is_none_or(|n| n.exit_code.is_none());
            if over {
                served.stop.cancel();
            }
            return;
        }
        for (hook, row) in client_hooks(object) {
            let Some(row) = row else { continue };
            let note = note_of(object, &hook.name);
            match next_action(row, note.as_ref(), &self.me, Timestamp::now()) {
                Turn::Nothing => {}
                Turn::Theirs(client) => self.tell_once(row, &format!("{client} runs it")),
                Turn::Claim | Turn::Run => match script_of(&self.how.scripts, &hook.name, hook.phase) {
                    Some(path) => {
                        let path = path.to_path_buf();
                        return self.serve(hook.clone(), row.nonce.clone().unwrap_or_default(), path);
                    }
                    None => self.tell_once(row, &waits(self.name, row)),
                },
            }
        }
    }

    fn serve(&mut self, hook: Hook, nonce: String, path: std::path::PathBuf) {
        let stop = CancellationToken::new();
        let name = hook.name.clone();
        let task = Task {
            api: self.api.clone(),
            migration: self.name.into(),
            hook,
            nonce: nonce.clone(),
            me: self.me.clone(),
            path,
            print: self.print.clone(),
        };
        let end = tokio::spawn(serve(task, stop.clone()));
        self.served = Some(Served { hook: name, nonce, stop, end });
    }

    fn tell_once(&mut self, row: &HookRow, what: &str) {
        let line = format!("          hook {} ({}): {what}", row.name, row.phase);
        if self.told.insert(format!("{}{line}", row.nonce.as_deref().unwrap_or_default())) {
            self.screen.line(&line);
        }
    }

    /// Ends a script that runs, and gives its claim up.
    async fn stop_script(&mut self) {
        if let Some(served) = self.served.take() {
            served.stop.cancel();
            if let Ok(line) = served.end.await {
                eprintln!("{}", text::clean(&line));
            }
        }
    }

    fn tell_end(&mut self, object: &VmMigration, ended: Ended) -> Ended {
        self.screen.end();
        let colour = if ended == Ended::Well { text::good } else { text::bad };
        let lines = last_words(object);
        for (n, line) in lines.iter().enumerate() {
            println!("{}", if n == 0 { colour(line) } else { line.clone() });
        }
        if object.status.as_ref().and_then(|s| s.phase) == Some(Phase::Blocked) {
            println!("  Nothing was touched. Mend it, and go on: kubectl vmmigration watch {}", self.name);
        }
        ended
    }

    fn tell_gone(&mut self, object: &VmMigration) -> Ended {
        self.screen.end();
        println!("{}: the VmMigration was deleted", self.name);
        let phase = object.status.as_ref().and_then(|s| s.phase);
        if matches!(phase, Some(Phase::Succeeded)) { Ended::Well } else { Ended::GivenUp }
    }

    fn tell_interrupted(&mut self) -> Ended {
        self.screen.end();
        eprintln!("{}", self.how_to_go_on());
        Ended::Interrupted
    }

    fn timeout(&mut self, object: &VmMigration) -> Stop {
        self.screen.end();
        let phase = object.status.as_ref().and_then(|s| s.phase).unwrap_or_default();
        Stop::timeout(format!("{} is {phase}, and the time is up.\n{}", self.name, self.how_to_go_on()))
    }

    fn how_to_go_on(&self) -> String {
        let scripts: String =
            self.how.scripts.iter().map(|s| format!(" --hook {}={}", s.key, s.path.display())).collect();
        let verb = if scripts.is_empty() { "watch" } else { "attach" };
        format!(
            "The migration goes on without you. To follow it again: kubectl vmmigration {verb} {}{scripts}\n\
             To end it: kubectl vmmigration cancel {}",
            self.name, self.name
        )
    }

    /// A cluster that does not answer is asked again, for ever: the migration goes on meanwhile. One that refuses is not.
    fn tell_trouble(&mut self, error: watcher::Error, told: &mut String) -> Result<(), Stop> {
        let what = format!("watching VmMigration {}", self.name);
        let trouble = trouble_of_watch(&what, error)?;
        self.tell_new(&trouble, told);
        Ok(())
    }

    /// Trouble that was not told last.
    fn tell_new(&mut self, line: &str, told: &mut String) {
        if told != line {
            self.screen.line(&format!("{} {}", text::notable("trouble:"), text::clean(line)));
            *told = line.to_string();
        }
    }
}

fn waits(name: &str, row: &HookRow) -> String {
    let deadline =
        row.deadline.as_ref().map(|t| format!(" until {}", text::clock(t.0, &jiff::tz::TimeZone::system())));
    format!(
        "waits for a client{}: kubectl vmmigration attach {name} --hook {}=./SCRIPT",
        deadline.unwrap_or_default(),
        row.name
    )
}

/// What is told of a watch that is tried again; an error where asking again gives the same answer.
pub(super) fn trouble_of_watch(what: &str, error: watcher::Error) -> Result<String, Stop> {
    let stop = match error {
        watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e) => {
            let is_final = answer_is_final(&e);
            let stop = explain(what)(e);
            if is_final {
                return Err(stop);
            }
            stop
        }
        other => Stop::failed(format!("{what}: {other}")),
    };
    Ok(format!("{stop}; trying again"))
}

/// At that time, or never.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn end_of(served: &mut Option<Served>) -> String {
    match served {
        Some(served) => match (&mut served.end).await {
            Ok(line) => line,
            Err(e) => format!("hook {}: {e}", served.hook),
        },
        None => std::future::pending().await,
    }
}

/// The result, once nothing more will happen that this client has a part in. Pure.
pub fn ended(object: &VmMigration, when_blocked: bool) -> Option<Ended> {
    let status = object.status.as_ref()?;
    let result = match status.phase? {
        Phase::Succeeded | Phase::Retired => Ended::Well,
        Phase::Failed => Ended::Failed,
        Phase::Cancelled | Phase::RolledBack => Ended::GivenUp,
        Phase::Blocked if when_blocked => return Some(Ended::Failed),
        _ => return None,
    };
    let over =
        status.cleaned_up_at.is_some() || !client_hooks(object).any(|(hook, row)| still_to_come(hook, row));
    over.then_some(result)
}

/// A hook that waits, or one of the end that has not had its turn.
fn still_to_come(hook: &Hook, row: Option<&HookRow>) -> bool {
    let state = row.map(|r| r.state).unwrap_or_default();
    match state {
        HookState::Waiting | HookState::Running => true,
        HookState::Pending => hook.phase == HookPhase::Finally,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::watch::tests::object, *};
    use serde_json::json;

    #[test]
    fn the_result_of_a_phase() {
        let result = |phase: &str| ended(&object(json!({"phase": phase})), false);
        assert_eq!([result("Succeeded"), result("Retired")], [Some(Ended::Well); 2]);
        assert_eq!(result("Failed"), Some(Ended::Failed));
        assert_eq!([result("Cancelled"), result("RolledBack")], [Some(Ended::GivenUp); 2]);
        for going in ["Pending", "Blocked", "AwaitingCutover", "Held", "RollingBack", "Retiring", "Deleting"]
        {
            assert_eq!(result(going), None, "{going}");
        }
        assert_eq!(ended(&object(json!({"phase": "Blocked"})), true), Some(Ended::Failed));
        assert_eq!(ended(&object(json!({})), true), None);
    }

    #[test]
    fn hooks_of_the_end_are_waited_for() {
        let finally = |status| {
            let mut object = object(status);
            object.spec.hooks =
                serde_json::from_value(json!([{"name": "tell", "phase": "Finally", "client": {}}])).unwrap();
            ended(&object, false)
        };
        let row = |state: &str| json!([{"name": "tell", "phase": "Finally", "state": state}]);
        assert_eq!(finally(json!({"phase": "Succeeded"})), None, "it has not had its turn");
        assert_eq!(finally(json!({"phase": "Succeeded", "hooks": row("Waiting")})), None);
        assert_eq!(finally(json!({"phase": "Succeeded", "hooks": row("Succeeded")})), Some(Ended::Well));
        let cleaned = json!({"phase": "Failed", "cleanedUpAt": "2026-08-29T20:00:00Z"});
        assert_eq!(finally(cleaned), Some(Ended::Failed), "nothing runs after the clean-up");
    }
}
