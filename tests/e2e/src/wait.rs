//! Waiting by asking again, with a deadline. Deadlines are for what hangs and not for what is slow: they count the time
//! that this machine could give to one of those who want it.

use anyhow::{Result, bail};
use std::{
    fmt,
    future::Future,
    time::{Duration, Instant},
};

/// Time that passes more slowly while more threads want a core than there are cores.
#[derive(Debug)]
pub struct FairClock {
    last: Instant,
    passed: Duration,
}

impl FairClock {
    /// Begins at zero.
    pub fn start() -> Self {
        FairClock { last: Instant::now(), passed: Duration::ZERO }
    }

    /// How much time has passed; asked at least every few seconds, since the load is that of the moment.
    pub fn passed(&mut self) -> Duration {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let now = Instant::now();
        self.passed += now.duration_since(self.last).mul_f64(share(runnable().unwrap_or(0), cores));
        self.last = now;
        self.passed
    }

    /// Ends when so much time has passed.
    pub async fn until(mut self, limit: Duration) {
        while self.passed() < limit {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Which part of a core one thread gets, of so many that want one.
fn share(runnable: usize, cores: usize) -> f64 {
    if runnable <= cores { 1.0 } else { cores as f64 / runnable as f64 }
}

/// How many threads run or could run; from `/proc/loadavg`, as `0.20 0.18 0.12 3/80 11206`.
fn runnable() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').nth(3)?.split('/').next()?.parse().ok()
}

/// An error that ends a wait at once.
#[derive(Debug)]
struct Fatal(String);

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fatal {}

/// An error that no further asking repairs.
pub fn fatal(why: impl Into<String>) -> anyhow::Error {
    Fatal(why.into()).into()
}

/// Asks until there is an answer. Errors are borne until the deadline, but for [`fatal`] ones.
pub async fn until<T, F, A>(what: &str, seconds: u64, ask: F) -> Result<T>
where
    F: FnMut() -> A,
    A: Future<Output = Result<Option<T>>>,
{
    until_every(Duration::from_millis(400), what, seconds, ask).await
}

/// As [`until`], of a cloud or a guest: an answer costs the test bed up to half a second of CPU, and all tests share two.
pub async fn until_seldom<T, F, A>(what: &str, seconds: u64, ask: F) -> Result<T>
where
    F: FnMut() -> A,
    A: Future<Output = Result<Option<T>>>,
{
    until_every(Duration::from_millis(1500), what, seconds, ask).await
}

async fn until_every<T, F, A>(pause: Duration, what: &str, seconds: u64, mut ask: F) -> Result<T>
where
    F: FnMut() -> A,
    A: Future<Output = Result<Option<T>>>,
{
    let mut clock = FairClock::start();
    let mut last = String::new();
    loop {
        match ask().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => last.clear(),
            Err(error) if error.is::<Fatal>() => return Err(error.context(format!("waiting for {what}"))),
            Err(error) => last = format!("; last error: {error:#}"),
        }
        if clock.passed() > Duration::from_secs(seconds) {
            bail!("gave up after {seconds} s waiting for {what}{last}");
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_shares_the_cores() {
        let shares = [(0, 2), (1, 2), (2, 2), (4, 2), (10, 2)].map(|(threads, cores)| share(threads, cores));
        assert_eq!(shares, [1.0, 1.0, 1.0, 0.5, 0.2]);
        assert!(runnable().is_some_and(|n| n > 0), "this thread runs");
    }
}
