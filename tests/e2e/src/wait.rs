//! Waiting by asking again, with a deadline.

use anyhow::{Result, bail};
use std::{
    fmt,
    future::Future,
    time::{Duration, Instant},
};

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
    let begun = Instant::now();
    let mut last = String::new();
    loop {
        match ask().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => last.clear(),
            Err(error) if error.is::<Fatal>() => return Err(error.context(format!("waiting for {what}"))),
            Err(error) => last = format!("; last error: {error:#}"),
        }
        if begun.elapsed() > Duration::from_secs(seconds) {
            bail!("gave up after {seconds} s waiting for {what}{last}");
        }
        tokio::time::sleep(pause).await;
    }
}
