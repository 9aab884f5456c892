//! Times: how soon to look again, and times as they are read and told.

use k8s_openapi::jiff::Timestamp;
use std::{ops::RangeInclusive, time::Duration};

/// How soon to look again while a cloud works.
pub(super) const SOON: Duration = Duration::from_secs(2);
/// How soon to look again at the latest while a Job runs.
pub(super) const PROGRESS: Duration = Duration::from_secs(4);
/// How soon to look again while nothing but a change of ours is expected.
pub(super) const AT_ONCE: Duration = Duration::from_millis(20);
/// How soon to look again while something outside has to change.
pub(super) const LATER: Duration = Duration::from_secs(15);
/// How soon to look again while a cloud works on one thing, in seconds.
pub(super) const CALM: RangeInclusive<i64> = 2..=15;

/// How soon to look again at what was waited for so many seconds: the end is seen at most a fifth too late, within these
/// bounds in seconds.
pub(super) fn pause(waited: i64, bounds: RangeInclusive<i64>) -> Duration {
    Duration::from_secs((waited / 5).clamp(*bounds.start(), *bounds.end()).unsigned_abs())
}

/// Hours and minutes, for messages.
pub(super) fn clock(t: Timestamp) -> String {
    t.strftime("%H:%M:%SZ").to_string()
}

/// A time as the clouds write it: with or without `Z`, with or without fractions; always UTC.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse().ok().or_else(|| format!("{text}Z").parse().ok())
}
