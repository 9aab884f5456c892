//! How answers of stores are taken apart: for whoever tries whether any bytes can break that.

use reqwest::StatusCode;

use super::StoreError;
pub use super::{
    http::refused,
    rest::parse_names,
    s3_answers::{parse_deletion, parse_list, parse_lock, parse_uploads, parse_versions},
    swift::{parse_catalog, parse_page, parse_versions as parse_swift_versions},
};

/// The answer to a call that did not succeed.
pub fn failure(status: StatusCode, body: &str) -> StoreError {
    StoreError::from_answer("GET x".to_owned(), status, None, body)
}
