//! What restic prints and writes: lines, lists of snapshots, key files.

use serde_json::{Value, json};

use super::assert_showable;
use crate::{
    restic::{
        Line, StderrTail,
        key_file::{KeyFile, KeyFileError},
    },
    transfer::tags::{PassKey, parse_listing, parse_proven},
};

/// Lines of restic's output and of its stderr: what is kept of them is bounded, on one line, and harmless.
pub fn restic_output(data: &[u8]) {
    let mut tail = StderrTail::default();
    for line in data.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        if let Line::Summary(summary) = Line::parse(&line) {
            let id = summary.snapshot_id.parse::<crate::contract::SnapshotId>();
            assert!(id.is_err() || summary.snapshot_id.len() == 64);
        }
        tail.push(&line);
        assert_showable(&tail.message(), 256);
        assert_showable(tail.full().unwrap_or_default(), 256);
    }
}

/// `restic snapshots --json`: whatever is listed would be written with the same tags again, nothing that is condemned is
/// listed, and no whole disk is found without a note that it was proven.
pub fn snapshot_list(data: &[u8]) {
    let key = PassKey { migration: "u-1".to_owned(), disk: 2, pass: 3 };
    let (listing, proven) = (parse_listing(data, &key), parse_proven(data));
    assert_eq!(listing.is_ok(), proven.is_ok());
    let (Ok(listing), Ok(proven)) = (listing, proven) else { return };
    assert!(proven.is_none() || String::from_utf8_lossy(data).contains("proven"));
    assert!(listing.snapshots.iter().all(|listed| !listing.condemned.contains(&listed.id)));
    // restic takes tags apart at commas; ours hold none.
    for listed in listing.snapshots.iter().filter(|listed| !listed.origin.contains(',')) {
        let tags = key.tags(listed.kind, &listed.layout, &listed.origin);
        let written = json!([{"id": listed.id, "tags": tags.split(',').collect::<Vec<_>>()}]).to_string();
        let again = parse_listing(written.as_bytes(), &key).unwrap();
        assert_eq!(again.snapshots, std::slice::from_ref(listed));
    }
}

/// A file below `keys/`: it survives being written, costs no more than is bearable, and what opens opens again when
/// it was made cheap.
pub fn key_file(data: &[u8]) {
    let file = match KeyFile::parse(data) {
        Ok(file) => file,
        Err(error) => return assert_showable(&error.to_string(), 300),
    };
    let (name, content) = file.to_bytes().unwrap();
    assert_eq!((name.len(), KeyFile::parse(&content)), (64, Ok(file.clone())));
    let written: Value = serde_json::from_slice(&content).unwrap();
    let cost: u128 =
        ["N", "r", "p"].iter().map(|cost| u128::from(written[*cost].as_u64().unwrap())).product();
    // What lies between is taken, but is too slow to be tried here.
    if (1 << 10..=1 << 23).contains(&cost) {
        return;
    }
    match file.open(b"password") {
        Ok(keys) => {
            assert!(cost < 1 << 10, "{cost}");
            let cheap = KeyFile::cheap(&keys, b"password", jiff::Timestamp::UNIX_EPOCH).unwrap();
            assert!(cheap.is_cheap() && cheap.open(b"password").is_ok());
            assert_eq!(cheap.open(b"other").err(), Some(KeyFileError::WrongPassword));
        }
        Err(error) => assert_showable(&error.to_string(), 300),
    }
}
