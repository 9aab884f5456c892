//! Pauses between the attempts of one piece of work: what is in trouble for a moment gets that moment, and more each time.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Before the second attempt.
const FIRST: Duration = Duration::from_secs(2);

/// How long to wait after so many attempts have failed: 2 s, 8 s, 32 s.
fn after(failed: u32) -> Duration {
    FIRST * 4u32.pow(failed.saturating_sub(1).min(5))
}

/// Waits after so many attempts have failed; not when everything ends.
pub(super) async fn pause(failed: u32, cancel: &CancellationToken) {
    let _ended = tokio::time::timeout(after(failed), cancel.cancelled()).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn pauses_grow() {
        assert_eq!([1, 2, 3].map(after), [2, 8, 32].map(Duration::from_secs));
        assert!(after(u32::MAX) < Duration::from_secs(3600));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_pause_at_the_end() {
        let (cancel, start) = (CancellationToken::new(), Instant::now());
        cancel.cancel();
        pause(3, &cancel).await;
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}
