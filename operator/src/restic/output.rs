//! What restic prints: JSON lines on stdout, errors on stderr.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use serde::Deserialize;

use crate::store::says_full;

/// How many lines of stderr are kept for a message.
const TAIL_LINES: usize = 8;
/// How much of one line of stderr is kept.
const TAIL_CHARS: usize = 256;
/// How often a store may say that it is full, that a token has run out or that clocks differ, before it is believed.
const BELIEVED_LINES: usize = 3;
/// How restic speaks of a call that it makes again after a pause.
const MADE_AGAIN: &str = "returned error, retrying";

/// The end of a backup, as restic counts it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BackupSummary {
    /// The new snapshot's full id. Missing when restic made none.
    #[serde(default)]
    pub snapshot_id: String,
    /// Bytes read from the stream.
    pub total_bytes_processed: u64,
    /// Bytes that were new in the repository, compressed and encrypted.
    #[serde(default)]
    pub data_added_packed: u64,
}

/// The newest of what restic says about calls to the store that it makes again; shared by all children of one agent.
#[derive(Clone, Debug, Default)]
pub struct Complaints(Arc<Mutex<Option<(Instant, String)>>>);

impl Complaints {
    /// Takes one.
    pub fn tell(&self, complaint: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), complaint));
    }

    /// The newest, if it came after `then`.
    pub fn since(&self, then: Instant) -> Option<String> {
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        newest.as_ref().filter(|(at, _)| *at > then).map(|(_, complaint)| complaint.clone())
    }
}

/// One line of JSON output; lines of no interest are `Other`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "message_type", rename_all = "snake_case")]
pub enum Line {
    /// Once, at the end of a backup.
    Summary(BackupSummary),
    /// Anything else.
    #[serde(other)]
    Other,
}

impl Line {
    /// Reads one line; what is no JSON object of restic's is `Other`.
    pub fn parse(line: &str) -> Self {
        serde_json::from_str(line).unwrap_or(Self::Other)
    }
}

#[derive(Deserialize)]
#[serde(tag = "message_type", rename_all = "snake_case")]
enum ErrorLine {
    ExitError {
        message: String,
    },
    Error {
        error: ErrorText,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct ErrorText {
    message: String,
}

/// What a store says again and again, and that restic waits for in vain.
#[derive(Debug, Clone, Default)]
struct Heard {
    last: Option<String>,
    lines: usize,
}

impl Heard {
    fn hear(&mut self, text: &str) {
        self.last = Some(last_chars(text));
        self.lines += 1;
    }

    fn believed(&self) -> Option<&str> {
        self.last.as_deref().filter(|_| self.lines >= BELIEVED_LINES)
    }
}

/// The last lines of restic's stderr, and what it gave as the cause of its end.
#[derive(Debug, Clone, Default)]
pub struct StderrTail {
    full: Heard,
    expired: Heard,
    skewed: Heard,
    exit_error: Option<String>,
    lines: VecDeque<String>,
}

impl StderrTail {
    /// Takes one line; gives it back when it tells of a call to the store that is made again.
    pub fn push(&mut self, line: &str) -> Option<String> {
        let text = match serde_json::from_str::<ErrorLine>(line) {
            Ok(ErrorLine::ExitError { message }) => {
                self.exit_error = Some(last_chars(&message));
                return None;
            }
            Ok(ErrorLine::Error { error }) => error.message,
            Ok(ErrorLine::Other) => return None,
            Err(_) => line.trim().to_owned(),
        };
        if text.is_empty() {
            return None;
        }
        if says_full(&text) {
            self.full.hear(&text);
        }
        if says_expired(&text) {
            self.expired.hear(&text);
        }
        if says_skewed(&text) {
            self.skewed.hear(&text);
        }
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(last_chars(&text));
        let (_, why) = text.split_once(MADE_AGAIN)?;
        // After how long it is made again says nothing to who reads it later.
        Some(last_chars(why.split_once(": ").map_or(why, |(_, cause)| cause)))
    }

    /// What to show: the cause restic named, else its last line.
    pub fn message(&self) -> String {
        match (&self.exit_error, self.lines.back()) {
            (Some(cause), _) => cause.clone(),
            (None, Some(line)) => line.clone(),
            (None, None) => "restic said nothing".to_owned(),
        }
    }

    /// What the store said when it had no room, as soon as it has said so more than once or twice.
    pub fn full(&self) -> Option<&str> {
        self.full.believed()
    }

    /// The same of a session token that has run out.
    pub fn expired(&self) -> Option<&str> {
        self.expired.believed()
    }

    /// The same of clocks that differ.
    pub fn skewed(&self) -> Option<&str> {
        self.skewed.believed()
    }

    /// Whether any kept line holds this text.
    pub fn mentions(&self, text: &str) -> bool {
        self.exit_error.iter().chain(&self.lines).any(|line| line.contains(text))
    }
}

/// What S3 says of a session token that has run out, by code or in words. restic takes it for trouble that passes.
pub(super) fn says_expired(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "expiredtoken",
        "provided token has expired",
        "provided token is malformed",
        "security token included in the request",
        "tokenrefreshrequired",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// What S3 says of a signature by a clock that is wrong, by code or in words.
pub(super) fn says_skewed(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["requesttimetooskewed", "request time and the server's time", "request time and the current time"]
        .iter()
        .any(|words| text.contains(words))
}

/// The end of a text, on one line: the cause comes last in Go's wrapped errors.
fn last_chars(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(TAIL_CHARS);
    text.chars().skip(skip).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_is_believed_in_the_end() {
        let mut tail = StderrTail::default();
        let line = r#"{"message_type":"error","error":{"message":"Save(<data/ab>) returned error, retrying after 1s: HTTP Error: 507: 507 Insufficient Storage"}}"#;
        for _ in 0..2 {
            let _ = tail.push(line);
            let _ = tail.push("Save(<data/cd>) returned error, retrying after 507ms: 503 Slow Down");
            assert_eq!(tail.full(), None);
        }
        let _ = tail.push(line);
        assert!(tail.full().unwrap().ends_with("507 Insufficient Storage"));
    }

    #[test]
    fn a_full_store_is_believed_whatever_it_is() {
        for said in [
            "client.PutObject: Storage backend has reached its minimum free drive threshold.",
            "client.PutObject: Error response code QuotaExceeded.",
            "client.PutObject: Upload exceeds quota.",
            "client.PutObject: Too Large Object",
            "unexpected HTTP response (507): 507 Insufficient Storage",
        ] {
            let mut tail = StderrTail::default();
            for _ in 0..BELIEVED_LINES {
                let _ = tail.push(&format!("Save(<data/ab>) returned error, retrying after 1s: {said}"));
            }
            assert!(tail.full().is_some_and(|full| full.ends_with(said)), "{said}");
        }
    }

    #[test]
    fn clocks_that_differ_are_believed_in_the_end() {
        for said in [
            "Stat: The difference between the request time and the server's time is too large.",
            "Stat: Error response code RequestTimeTooSkewed.",
        ] {
            let mut tail = StderrTail::default();
            for times in 1..=BELIEVED_LINES {
                let _ = tail.push(&format!("Load(<key/ab>) returned error, retrying after 1s: {said}"));
                assert_eq!(tail.skewed().is_some(), times == BELIEVED_LINES);
            }
        }
    }

    #[test]
    fn a_token_that_has_run_out_is_believed_in_the_end() {
        let mut tail = StderrTail::default();
        for times in 1..=BELIEVED_LINES {
            let _ = tail
                .push("Save(<data/ab>) returned error, retrying after 1s: The provided token has expired.");
            assert_eq!(tail.expired().is_some(), times == BELIEVED_LINES);
        }
        assert_eq!(tail.full(), None);
    }

    #[test]
    fn a_call_that_is_made_again_is_a_complaint() {
        let (complaints, then) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.since(then), None);
        let mut tail = StderrTail::default();
        for (line, complains) in [
            (
                r#"{"message_type":"error","error":{"message":"Save(<data/ab>) returned error, retrying after 1s: dial tcp 10.1.2.3:9000: connect: connection refused"}}"#,
                true,
            ),
            ("List(snapshot) returned error, retrying after 507ms: 503 Slow Down", true),
            (r#"{"message_type":"error","error":{"message":"failed to save /segment"}}"#, false),
            ("operation successful after 3 retries", false),
        ] {
            let complaint = tail.push(line);
            assert_eq!(complaint.is_some(), complains, "{line}");
            complaint.into_iter().for_each(|complaint| complaints.tell(complaint));
        }
        assert_eq!(complaints.since(then).as_deref(), Some("503 Slow Down"));
        assert_eq!(complaints.since(Instant::now()), None);
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_taken(line in "\\PC{0,200}", json in r#"\{"message_type":"(summary|error|exit_error|status)".{0,80}\}"#) {
            let mut tail = StderrTail::default();
            for line in [&line, &json] {
                let _ = Line::parse(line);
                let _ = tail.push(line);
                proptest::prop_assert!(tail.message().chars().count() <= TAIL_CHARS);
            }
        }
    }

    #[test]
    fn lines_of_a_backup() {
        let summary = r#"{"message_type":"summary","files_new":1,"data_added":100291,"data_added_packed":100340,"total_bytes_processed":100000,"total_duration":0.75,"snapshot_id":"d0e7"}"#;
        let expected = BackupSummary {
            snapshot_id: "d0e7".into(),
            total_bytes_processed: 100_000,
            data_added_packed: 100_340,
        };
        assert_eq!(Line::parse(summary), Line::Summary(expected));
        for other in [r#"{"message_type":"initialized","id":"x"}"#, "", "plain words", "{", "null"] {
            assert_eq!(Line::parse(other), Line::Other, "{other}");
        }
        let no_snapshot = r#"{"message_type":"summary","total_bytes_processed":1}"#;
        assert!(matches!(Line::parse(no_snapshot), Line::Summary(summary) if summary.snapshot_id.is_empty()));
    }

    #[test]
    fn the_cause_is_found_in_stderr() {
        let mut tail = StderrTail::default();
        assert_eq!(tail.message(), "restic said nothing");
        let _ = tail.push("subprocess sh: why it failed");
        assert_eq!(tail.message(), "subprocess sh: why it failed");
        let _ = tail.push(r#"{"message_type":"error","error":{"message":"failed to save /disk-0.img"},"during":"archival","item":"/disk-0.img"}"#);
        assert_eq!(tail.message(), "failed to save /disk-0.img");
        let _ = tail.push(r#"{"message_type":"exit_error","code":1,"message":"Fatal: unable\nto save"}"#);
        let _ = tail.push("later noise");
        assert_eq!(tail.message(), "Fatal: unable to save");
        assert!(tail.mentions("why it failed"));
        for _ in 0..100 {
            let _ = tail.push(&"x".repeat(10_000));
        }
        assert!(tail.lines.len() == TAIL_LINES && tail.lines.iter().all(|line| line.len() == TAIL_CHARS));
    }
}
