//! Progress lines on stdout, about every two seconds, with the rate of the last seconds and with what holds it up.

use std::{
    collections::VecDeque,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::{
    contract::{Progress, ProgressLine},
    restic::Complaints,
};

const INTERVAL: Duration = Duration::from_secs(2);
/// The rate is taken over this many intervals.
const WINDOW: usize = 5;
/// restic's pauses before it makes a call again are not longer: an older complaint is no news.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Counts bytes and prints them while it lives.
pub struct Meter {
    bytes: Arc<AtomicU64>,
    total: u64,
    started: Instant,
    ticker: JoinHandle<()>,
}

impl Meter {
    /// Starts to print.
    pub fn start(total: u64, complaints: &Complaints) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let ticker = tokio::spawn(tick(Arc::clone(&bytes), total, complaints.clone()));
        Self { bytes, total, started: Instant::now(), ticker }
    }

    /// Adds to the count.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back what will be counted once more.
    pub fn sub(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Prints the last line; its rate is that of the whole time.
    pub fn finish(self) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        print(Progress { bytes, total: self.total, rate: rate(bytes, self.started.elapsed()) }, None);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.ticker.abort();
    }
}

async fn tick(bytes: Arc<AtomicU64>, total: u64, complaints: Complaints) {
    let mut samples = VecDeque::from([(Instant::now(), 0)]);
    let (mut moved, mut last) = (Instant::now(), 0);
    loop {
        tokio::time::sleep(INTERVAL).await;
        let (now, done) = (Instant::now(), bytes.load(Ordering::Relaxed));
        if let Some((then, before)) = samples.front() {
            let recent = done.saturating_sub(*before);
            // Whatever was said before bytes moved again is over.
            (moved, last) = if done == last { (moved, last) } else { (now, done) };
            let news = now.checked_sub(COMPLAINT).map_or(moved, |then| then.max(moved));
            let progress = Progress { bytes: done, total, rate: rate(recent, now.duration_since(*then)) };
            print(progress, complaints.since(news));
        }
        samples.push_back((now, done));
        if samples.len() > WINDOW {
            samples.pop_front();
        }
    }
}

fn rate(bytes: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / millis
}

fn print(progress: Progress, held_up: Option<String>) {
    if let Ok(line) = (ProgressLine { progress, held_up }).line() {
        // A reader that is gone must not stop the copy.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}
