//! What the operator reads from those who work for it: movers, by their termination message and their log, and clients
//! of hooks, by an annotation.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    contract::{
        Answer, BackupResult, ChecksResult, DiskDigest, InitResult, MAX_TERMINATION_MESSAGE, Outcome,
        ProbeResult, PurgeResult, RestoreResult, SealResult,
    },
    crd::v1alpha1::{ClientHookNote, OUTPUT_BYTES, output_tail},
    migration::observed::{newest_progress, plausible},
};

/// No number from a mover is larger: as many bytes as the largest disk has.
const MOST: i64 = 1 << 50;

/// A termination message: both readings of it agree, what is written of it again is short and says the same, and no
/// number is taken that sums could not bear.
pub fn job_result(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let told = Outcome::told(&text);
    let disk: Option<DiskDigest> = told.as_ref().and_then(Outcome::answer).and_then(|a| a.read().ok());
    let number = disk.and_then(|d| d.bytes).and_then(plausible);
    assert!(number.is_none_or(|number| (0..=MOST).contains(&number)), "{number:?}");
    // A list of the fields' values would be read strictly, too, but nobody writes one.
    let object = serde_json::from_str::<Value>(&text).is_ok_and(|value| value.is_object());
    let ok = told.filter(|_| object).map(|outcome| matches!(outcome, Outcome::<Answer>::Ok(_)));
    written_again::<BackupResult>(&text, ok);
    written_again::<RestoreResult>(&text, ok);
    written_again::<SealResult>(&text, ok);
    written_again::<ProbeResult>(&text, ok);
    written_again::<InitResult>(&text, ok);
    written_again::<PurgeResult>(&text, ok);
    written_again::<ChecksResult>(&text, ok);
}

fn written_again<T: Clone + Serialize + DeserializeOwned>(text: &str, ok: Option<bool>) {
    let Ok(outcome) = Outcome::<T>::parse(text) else { return };
    assert!(ok.is_none_or(|ok| ok == matches!(outcome, Outcome::Ok(_))));
    let written = outcome.to_termination_message();
    assert!(written.len() <= MAX_TERMINATION_MESSAGE, "{}", written.len());
    let again = Outcome::<T>::parse(&written).unwrap().to_termination_message();
    assert_eq!(again, written);
}

/// The end of a mover's log: what is taken as progress can be summed up and turned into percent.
pub fn job_log(data: &[u8]) {
    let Some((bytes, total, rate)) = newest_progress(&String::from_utf8_lossy(data)) else { return };
    for number in [bytes, total, rate] {
        assert!((0..=MOST).contains(&number), "{number}");
    }
}

/// A client's answer to a hook: what is kept of it is bounded and harmless.
pub fn client_note(data: &[u8]) {
    let tail = output_tail(data);
    assert!(tail.len() <= OUTPUT_BYTES);
    assert!(!tail.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
    assert_eq!(output_tail(tail.as_bytes()), tail);
    let Ok(note) = serde_json::from_slice::<ClientHookNote>(data) else { return };
    let written = serde_json::to_vec(&note).unwrap();
    let again: ClientHookNote = serde_json::from_slice(&written).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
}
