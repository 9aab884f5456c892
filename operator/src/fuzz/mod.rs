//! What must hold of everything that is read from restic, from the store and from those who answer the operator: one
//! property for each form, over any bytes.
//!
//! `make fuzz` searches for bytes that break one (the package in `fuzz/` only calls these functions); the tests here
//! try its seeds and what lies near them, so that neither can rot.
#![allow(clippy::unwrap_used, reason = "what fails here is a finding")]

mod answers;
mod restic;
mod store;
mod transfer;

pub use answers::*;
pub use restic::*;
pub use store::*;
pub use transfer::*;

/// A property over any bytes; it panics where it does not hold.
pub type Target = fn(&[u8]);

/// All of them, by the names that they have in `fuzz/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("restic_output", restic_output),
    ("snapshot_list", snapshot_list),
    ("key_file", key_file),
    ("manifest", manifest),
    ("block_runs", block_runs),
    ("digest_table", digest_table),
    ("s3_answer", s3_answer),
    ("rest_answer", rest_answer),
    ("swift_answer", swift_answer),
    ("store_marker", store_marker),
    ("job_result", job_result),
    ("job_log", job_log),
    ("client_note", client_note),
];

/// Text from elsewhere that a person will see: short, and harmless to a terminal.
pub(crate) fn assert_showable(text: &str, limit: usize) {
    assert!(text.chars().count() <= limit, "{} characters: {text:?}", text.chars().count());
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
        sync::LazyLock,
    };

    use proptest::{prelude::*, sample::Index};

    use super::*;

    /// Each target with its seeds.
    static ALL: LazyLock<Vec<(Target, Vec<Vec<u8>>)>> =
        LazyLock::new(|| TARGETS.iter().map(|(name, target)| (*target, seeds(name))).collect());

    fn package() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
    }

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let mut files: Vec<_> =
            fs::read_dir(package().join("seeds").join(target)).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    #[test]
    fn the_package_has_the_same_targets() {
        let stems = |folder: &str| -> BTreeSet<String> {
            let files = fs::read_dir(package().join(folder)).unwrap().map(|f| f.unwrap().path());
            files.map(|f| f.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
        };
        let ours: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!((stems("fuzz_targets"), stems("seeds")), (ours.clone(), ours));
        let manifest = fs::read_to_string(package().join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml lacks {name}");
            let call = format!("vmmigration::fuzz::{name}(");
            let text = fs::read_to_string(package().join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
            assert!(text.contains(&call), "{name}");
        }
    }

    #[test]
    fn seeds_hold() {
        for (target, seeds) in ALL.iter() {
            assert!(!seeds.is_empty());
            seeds.iter().for_each(|seed| target(seed));
        }
    }

    /// One small change, as a fuzzer makes them.
    #[derive(Debug, Clone)]
    enum Change {
        Set(Index, u8),
        Insert(Index, String),
        Remove(Index, usize),
        Repeat(Index, usize),
    }

    fn change() -> impl Strategy<Value = Change> {
        let words = prop::sample::select(vec![
            "0",
            "-1",
            "9223372036854775807",
            "18446744073709551616",
            "1e999",
            "null",
            "true",
            "[]",
            "{}",
            "\"",
            "\\u001b[2J",
            "\u{1b}",
            "\u{7f}\u{9b}",
            "é",
            ",",
            "<",
            ">",
            "&#27;",
            "..",
            "/",
            "\n",
        ]);
        prop_oneof![
            (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
            (any::<Index>(), words).prop_map(|(at, word)| Change::Insert(at, word.to_owned())),
            (any::<Index>(), 1..20_usize).prop_map(|(at, length)| Change::Remove(at, length)),
            (any::<Index>(), 1..200_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
        ]
    }

    fn apply(mut bytes: Vec<u8>, change: &Change) -> Vec<u8> {
        let part = |at: &Index, length: usize| {
            let start = at.index(bytes.len() + 1);
            start..bytes.len().min(start + length)
        };
        match change {
            Change::Set(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Set(_, byte) => bytes.push(*byte),
            Change::Insert(at, word) => {
                let at = part(at, 0);
                bytes.splice(at, word.bytes());
            }
            Change::Remove(at, length) => {
                let part = part(at, *length);
                bytes.drain(part);
            }
            Change::Repeat(at, length) => {
                let part = part(at, *length);
                let copy = bytes[part.clone()].to_vec();
                bytes.splice(part.end..part.end, copy);
            }
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn what_lies_near_the_seeds_holds(
            seed in any::<Index>(),
            changes in prop::collection::vec(change(), 0..6),
        ) {
            for (target, seeds) in ALL.iter() {
                let bytes = changes.iter().fold(seed.get(seeds).clone(), apply);
                target(&bytes);
            }
        }

        #[test]
        fn any_bytes_hold(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            TARGETS.iter().for_each(|(_, target)| target(&bytes));
        }
    }
}
