//! The store's clock beside ours: signatures are of a time, and hold only where both agree.

use std::time::SystemTime;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use reqwest::header::{DATE, HeaderMap};

/// A signature in a URL expires after five minutes: from here on a refusal may be the clock's.
const SUSPECT: i64 = 240;
/// S3 refuses what was signed a quarter of an hour from its own time. restic would go on until then, and no further.
const REFUSED: i64 = 14 * 60;

/// How many seconds a store's clock is ahead of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ahead(pub i64);

impl Ahead {
    /// By the date of an answer.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        Self::at(headers.get(DATE)?.to_str().ok()?, i64::try_from(now).ok()?)
    }

    fn at(date: &str, now: i64) -> Option<Self> {
        let date = DateTime::strptime("%a, %d %b %Y %H:%M:%S GMT", date).ok()?;
        let date: Timestamp = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
        Some(Self(date.as_second() - now))
    }

    /// Whether a refused signature may be the clock's fault.
    pub fn is_suspect(self) -> bool {
        self.0.abs() >= SUSPECT
    }

    /// Whether restic's signatures are refused, or will be soon.
    pub fn is_refused(self) -> bool {
        self.0.abs() >= REFUSED
    }
}

impl std::fmt::Display for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.unsigned_abs();
        let lasting = match seconds {
            0..120 => format!("{seconds} seconds"),
            120..7200 => format!("{} minutes", (seconds + 30) / 60),
            _ => format!("{} hours", (seconds + 1800) / 3600),
        };
        let way = if self.0 < 0 { "behind" } else { "ahead of" };
        write!(f, "the store's clock is {lasting} {way} ours")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_how_much_clocks_differ() {
        let now = 1_790_000_000;
        for (date, seconds, suspect, refused, words) in [
            ("Mon, 21 Sep 2026 14:13:20 GMT", 0, false, false, "0 seconds ahead of"),
            ("Mon, 21 Sep 2026 14:12:20 GMT", -60, false, false, "60 seconds behind"),
            ("Mon, 21 Sep 2026 14:20:00 GMT", 400, true, false, "7 minutes ahead of"),
            ("Mon, 21 Sep 2026 13:53:25 GMT", -1195, true, true, "20 minutes behind"),
            ("Tue, 22 Sep 2026 14:13:20 GMT", 86400, true, true, "24 hours ahead of"),
        ] {
            let ahead = Ahead::at(date, now).unwrap();
            assert_eq!(
                (ahead.0, ahead.is_suspect(), ahead.is_refused()),
                (seconds, suspect, refused),
                "{date}"
            );
            assert_eq!(ahead.to_string(), format!("the store's clock is {words} ours"));
        }
        for date in ["", "yesterday", "2026-09-21T14:13:20Z"] {
            assert_eq!(Ahead::at(date, now), None, "{date}");
        }
    }
}
