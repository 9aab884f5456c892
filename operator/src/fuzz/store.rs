//! What stores answer: listings, errors, Keystone's catalog, our own marker.

use reqwest::StatusCode;

use super::assert_showable;
use crate::{
    mover::init::parse_marker,
    store::{
        StoreError,
        answers::{
            failure, parse_catalog, parse_deletion, parse_list, parse_lock, parse_names, parse_page,
            parse_swift_versions, parse_uploads, parse_versions, refused,
        },
    },
};

/// What a person may see of one answer: a short text of ours, and of the store's a code and a message.
const SHOWN: usize = 800;

/// S3's listings, answers to deletions, and errors.
pub fn s3_answer(data: &[u8]) {
    match parse_list(data) {
        // An entry takes more than its elements' names.
        Ok(page) => assert!(page.rows.len() <= data.len() / 16),
        Err(why) => assert_refused(&why),
    }
    match parse_versions(data) {
        Ok(page) => assert!(page.rows.len() <= data.len() / 16),
        Err(why) => assert_refused(&why),
    }
    let others = [parse_deletion(data).map(drop), parse_uploads(data).map(drop), parse_lock(data).map(drop)];
    for why in others.into_iter().filter_map(Result::err) {
        assert_refused(&why);
    }
    any_error(data);
}

/// The listings of restic's REST protocol hold nothing but names that restic gives.
pub fn rest_answer(data: &[u8]) {
    match parse_names(data) {
        Ok(names) => {
            assert!(names.len() <= data.len() / 64);
            assert!(names.iter().all(|name| name.len() == 64 && hex::decode(name).is_ok()));
        }
        Err(why) => assert_refused(&why),
    }
    any_error(data);
}

/// Swift's pages go on, and the catalog names a URL or nothing.
pub fn swift_answer(data: &[u8]) {
    for marker in ["", "data/m"] {
        match parse_page(data, marker) {
            Ok(names) => {
                assert!(names.first().is_none_or(|first| first.as_str() > marker));
                assert!(names.is_sorted_by(|one, next| one < next));
            }
            Err(why) => assert_refused(&why),
        }
    }
    match parse_swift_versions(data) {
        Ok(rows) => assert!(rows.is_sorted_by(|one, next| one.0 <= next.0)),
        Err(why) => assert_refused(&why),
    }
    for region in [None, Some("a")] {
        match parse_catalog(data, region) {
            Ok(url) => assert_eq!(url::Url::parse(url.as_str()), Ok(url)),
            Err(why) => assert_refused(&why),
        }
    }
}

/// The object that says whose a repository is: written again it is the same, and what is shown of it is harmless.
pub fn store_marker(data: &[u8]) {
    match parse_marker(data) {
        Ok(marker) => {
            assert_showable(&marker.uid, 128);
            assert_showable(&marker.object, 512);
            assert_eq!(parse_marker(&serde_json::to_vec(&marker).unwrap()), Ok(marker));
        }
        Err(why) => assert_showable(&why, 300),
    }
}

fn assert_refused(why: &str) {
    assert_showable(&refused("LIST x", why).to_string(), SHOWN);
}

/// The same bytes as the answer to a call that did not succeed.
fn any_error(data: &[u8]) {
    let body = String::from_utf8_lossy(data);
    for status in [301, 400, 401, 403, 404, 408, 429, 500, 503, 507, 599] {
        let status = StatusCode::from_u16(status).unwrap();
        let error = failure(status, &body);
        assert_showable(&error.to_string(), SHOWN);
        assert!(
            !status.is_server_error()
                || error.is_busy()
                || matches!(
                    error,
                    StoreError::NoBucket { .. }
                        | StoreError::ClockSkew { .. }
                        | StoreError::Full { .. }
                        | StoreError::WrongRegion { .. }
                        | StoreError::Unsupported { .. }
                )
        );
    }
}
