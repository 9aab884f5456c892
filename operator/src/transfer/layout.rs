//! How a disk is cut: segments travel and are resumed as a whole, blocks are what passes compare.

use std::{fmt, ops::Range, str::FromStr};

/// What is compared from pass to pass.
pub const BLOCK: u64 = 64 << 10;
const MIN_SEGMENT: u64 = 256 << 20;
const MAX_SEGMENT: u64 = 4 << 30;
/// More segments than this make restic slow, and are nobody's wish.
const MAX_SEGMENTS: u64 = 1 << 16;
/// As large as a volume can be; keeps every sum below far from its end.
const MAX_BYTES: u64 = 1 << 50;

/// A disk's length and the length of its segments; the last one may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    bytes: u64,
    segment: u64,
}

impl Layout {
    /// A layout with segments of a given length: whole blocks, or the whole disk in one.
    pub fn new(bytes: u64, segment: u64) -> Result<Self, String> {
        if bytes == 0 || bytes > MAX_BYTES {
            return Err(format!("a disk of {bytes} bytes cannot be moved"));
        }
        if segment == 0 || (segment < bytes && !segment.is_multiple_of(BLOCK)) || segment > MAX_BYTES {
            return Err(format!("a segment must be a multiple of {BLOCK} bytes, not {segment}"));
        }
        if bytes.div_ceil(segment) > MAX_SEGMENTS {
            return Err(format!("segments of {segment} bytes are too many for a disk of {bytes}"));
        }
        Ok(Self { bytes, segment })
    }

    /// About 64 segments, neither small (each costs a process) nor large (each is what a failure loses).
    pub fn automatic(bytes: u64) -> Result<Self, String> {
        Self::new(bytes, (bytes / 64).max(1).next_power_of_two().clamp(MIN_SEGMENT, MAX_SEGMENT))
    }

    /// The disk's length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The length of all segments but the last.
    pub fn segment_bytes(&self) -> u64 {
        self.segment
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        usize::try_from(self.bytes.div_ceil(self.segment)).unwrap_or(usize::MAX)
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> u64 {
        self.bytes.div_ceil(BLOCK)
    }

    /// The bytes of one segment; empty beyond the last.
    pub fn range(&self, index: usize) -> Range<u64> {
        let start = (index as u64).saturating_mul(self.segment).min(self.bytes);
        start..start.saturating_add(self.segment).min(self.bytes)
    }

    /// The bytes of some blocks, cut off at the disk's end.
    pub fn block_range(&self, blocks: &Range<u64>) -> Range<u64> {
        let at = |block: u64| block.saturating_mul(BLOCK).min(self.bytes);
        at(blocks.start)..at(blocks.end)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bytes, self.segment)
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(bytes, segment)| Some((bytes.parse().ok()?, segment.parse().ok()?)));
        let (bytes, segment) = parsed.ok_or_else(|| format!("{text:?} is no layout"))?;
        Self::new(bytes, segment)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn automatic_segments() {
        for (disk, segment, count) in [
            (1, MIN_SEGMENT, 1),
            (GIB, MIN_SEGMENT, 4),
            (16 * GIB, MIN_SEGMENT, 64),
            (64 * GIB, GIB, 64),
            (100 * GIB, 2 * GIB, 50),
            (1024 * GIB, 4 * GIB, 256),
            (GIB + 1, MIN_SEGMENT, 5),
        ] {
            let layout = Layout::automatic(disk).unwrap();
            assert_eq!((layout.segment_bytes(), layout.segments()), (segment, count), "{disk}");
        }
    }

    #[test]
    fn refused_layouts() {
        for (bytes, segment) in
            [(0, BLOCK), (5 * BLOCK, 0), (5 * BLOCK, BLOCK + 1), (u64::MAX, BLOCK), (GIB << 20, BLOCK)]
        {
            assert!(Layout::new(bytes, segment).is_err(), "{bytes} {segment}");
        }
        for text in ["", "/", "1", "1/", "a/b", "-1/65536", "1/65536/2"] {
            assert!(text.parse::<Layout>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn segments_cover_the_disk_once(bytes in 1_u64..1 << 34, blocks in 1_u64..1 << 10) {
            let Ok(layout) = Layout::new(bytes, blocks * BLOCK) else { return Ok(()) };
            let mut end = 0;
            for index in 0..layout.segments() {
                let range = layout.range(index);
                prop_assert!(range.start == end && range.end > range.start);
                end = range.end;
            }
            prop_assert_eq!(end, bytes);
            prop_assert!(layout.range(layout.segments()).is_empty());
            prop_assert_eq!(layout.to_string().parse::<Layout>(), Ok(layout));
        }

        #[test]
        fn any_text_is_a_layout_or_an_error(text in ".{0,40}") {
            let _ = text.parse::<Layout>();
        }
    }
}
