//! Answers of clouds are read up to a bound: what answers is whatever a tenant's Secret names.

use bytes::{Bytes, BytesMut};

/// More than any answer has: a thousand servers with all their details are about 10 MiB.
pub(super) const MOST_BYTES: usize = 32 << 20;
/// More than all pages of a list have together.
pub(super) const MOST_LIST_BYTES: usize = 4 * MOST_BYTES;
/// A list that has more pages than this does not end; a page has up to a thousand items.
pub(super) const MOST_PAGES: usize = 1000;

/// Marks an answer whose body was longer than [`MOST_BYTES`] and was not read to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooLong;

impl TooLong {
    /// What is said of it.
    pub(super) fn message() -> String {
        format!("the answer is longer than {} MiB", MOST_BYTES >> 20)
    }
}

/// The whole body, unless it is too long.
pub(super) async fn body(mut answer: reqwest::Response) -> reqwest::Result<Result<Bytes, TooLong>> {
    let mut all = BytesMut::new();
    while let Some(piece) = answer.chunk().await? {
        if all.len() + piece.len() > MOST_BYTES {
            return Ok(Err(TooLong));
        }
        all.extend_from_slice(&piece);
    }
    Ok(Ok(all.freeze()))
}

/// What a cloud says with an error, as far as it arrives.
pub(super) async fn of_error(answer: reqwest::Response) -> Bytes {
    body(answer).await.ok().and_then(Result::ok).unwrap_or_default()
}
