//! How the watches of our own kinds do. A controller whose watch does not work sees nothing, and nobody would know.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A watch that has failed for so long sees nothing: the operator is not ready.
const BLIND: Duration = Duration::from_secs(60);
/// After so long a new process may help where this one does not.
const DEAD: Duration = Duration::from_secs(900);
/// A watch that fails is begun again within 30 seconds, and does not tell that it works until something changes: without
/// another failure for so long, it works.
const QUIET: Duration = Duration::from_secs(180);

/// All watches, by what they are called.
#[derive(Debug, Default)]
pub struct Watches(Mutex<BTreeMap<String, Watch>>);

#[derive(Debug)]
struct Watch {
    begun: Instant,
    /// What there is was listed once.
    listed: bool,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    why: String,
}

impl Watches {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watch is begun.
    pub fn begins(&self, name: &str, now: Instant) {
        self.all().insert(name.into(), Watch { begun: now, listed: false, failing: None });
    }

    /// A watch has brought something.
    pub fn works(&self, name: &str) {
        if let Some(watch) = self.all().get_mut(name) {
            (watch.listed, watch.failing) = (true, None);
        }
    }

    /// A watch has failed.
    pub fn fails(&self, name: &str, why: String, now: Instant) {
        if let Some(watch) = self.all().get_mut(name) {
            let lasts = watch.failing.take().filter(|f| now.duration_since(f.last) <= QUIET);
            watch.failing = Some(Failing { since: lasts.map_or(now, |f| f.since), last: now, why });
        }
    }

    /// Why the operator does not see all that it works on.
    pub fn blind(&self, now: Instant) -> Option<String> {
        self.all().iter().find_map(|(name, watch)| {
            if !watch.listed {
                return Some(format!("{name}: not listed yet{}", watch.why()));
            }
            (watch.failed_for(now) > BLIND).then(|| format!("{name}: the watch fails{}", watch.why()))
        })
    }

    /// Why a new process is needed.
    pub fn dead(&self, now: Instant) -> Option<String> {
        self.all().iter().find_map(|(name, watch)| {
            let unlisted = if watch.listed { Duration::ZERO } else { now.duration_since(watch.begun) };
            let lasted = watch.failed_for(now).max(unlisted);
            (lasted > DEAD).then(|| format!("{name}: nothing seen for {} s{}", lasted.as_secs(), watch.why()))
        })
    }
}

impl Watch {
    fn failed_for(&self, now: Instant) -> Duration {
        let lasts = self.failing.as_ref().filter(|f| now.duration_since(f.last) <= QUIET);
        lasts.map_or(Duration::ZERO, |f| now.duration_since(f.since))
    }

    fn why(&self) -> String {
        self.failing.as_ref().map_or(String::new(), |f| format!(": {}", f.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_fails_is_known() {
        let (watches, start) = (Watches::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(watches.blind(at(0)), None, "nothing is watched");
        watches.begins("VmMigration", at(0));
        assert_eq!(watches.blind(at(1)).as_deref(), Some("VmMigration: not listed yet"));
        assert_eq!(watches.dead(at(900)), None);
        assert!(watches.dead(at(901)).is_some(), "a list that never comes");
        watches.works("VmMigration");
        assert_eq!((watches.blind(at(901)), watches.dead(at(901))), (None, None));
        for second in (1000..=1920).step_by(30) {
            watches.fails("VmMigration", "503".into(), at(second));
        }
        assert!(watches.blind(at(1920)).is_some_and(|why| why.contains("503")));
        assert!(watches.dead(at(1920)).is_some());
        assert_eq!(watches.blind(at(2101)), None, "it was begun again, and nothing has changed since");
        watches.fails("VmMigration", "410".into(), at(5000));
        assert_eq!(watches.blind(at(5001)), None, "once is nothing");
    }
}
