//! Versions and object lock, as S3 stores have them.

use std::{collections::HashMap, fmt::Write};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::s3::{Lock, Manners, Objects, PAGE, Sight, error, reply};

/// What versitygw and AWS say of a version that is locked.
const LOCKED: &str = "Access Denied because object protected by object lock.";

/// One version of an object, or, without content, the marker of its deletion.
pub struct Version {
    key: String,
    id: String,
    content: Option<Bytes>,
    written: Timestamp,
}

/// All of them, the oldest first.
#[derive(Default)]
pub struct Versions(Vec<Version>);

impl Versions {
    pub fn below(&self, prefix: &str) -> impl Iterator<Item = &Version> {
        self.0.iter().filter(move |version| version.key.starts_with(prefix))
    }

    fn add(&mut self, key: &str, content: Option<Bytes>) -> String {
        let id = format!("{:032x}", rand::random::<u128>());
        let (key, written) = (key.to_owned(), Timestamp::now());
        self.0.push(Version { key, id: id.clone(), content, written });
        id
    }
}

fn until(lock: Lock, version: &Version) -> Timestamp {
    let (Lock::Versions(days) | Lock::Bucket(days)) = lock;
    version.written + SignedDuration::from_hours(24 * days)
}

/// Writes an object; its version, if there are any.
pub fn put(
    manners: &Manners,
    versions: &mut Versions,
    objects: &mut Objects,
    key: &str,
    content: Bytes,
) -> Option<String> {
    objects.insert(key.to_owned(), content.clone());
    manners.versions.then(|| versions.add(key, Some(content)))
}

/// Deletes an object, or one version. True: a marker was made.
pub fn delete(
    manners: &Manners,
    versions: &mut Versions,
    objects: &mut Objects,
    key: &str,
    id: Option<&str>,
) -> Result<bool, &'static str> {
    let Some(id) = id.filter(|id| *id != "null") else {
        objects.remove(key);
        if manners.versions {
            versions.add(key, None);
        }
        return Ok(manners.versions);
    };
    let found = versions.0.iter().position(|version| version.key == key && version.id == id);
    let Some(found) = found else { return Ok(false) };
    if manners.lock.is_some() && versions.0[found].content.is_some() {
        return Err(LOCKED);
    }
    versions.0.remove(found);
    match versions.0.iter().rev().find(|version| version.key == key).and_then(|last| last.content.clone()) {
        Some(content) => objects.insert(key.to_owned(), content),
        None => objects.remove(key),
    };
    Ok(false)
}

/// Without its namespace, as versitygw; and `Quiet` is not obeyed.
pub fn delete_many(
    manners: &Manners,
    versions: &mut Versions,
    objects: &mut Objects,
    body: &Bytes,
) -> Response {
    let text = String::from_utf8_lossy(body);
    let mut answer = String::new();
    for part in text.split("<Object>").skip(1) {
        let of =
            |name: &str| part.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once('<'));
        let (key, id) = (of("Key").unwrap().0, of("VersionId").map(|(id, _)| id));
        let named = format!("<Key>{key}</Key><VersionId>{}</VersionId>", id.unwrap_or_default());
        match delete(manners, versions, objects, key, id) {
            Ok(marker) => {
                write!(answer, "<Deleted>{named}<DeleteMarker>{marker}</DeleteMarker></Deleted>").unwrap();
            }
            Err(why) => {
                let said = format!("<Code>AccessDenied</Code><Message>{why}</Message>");
                write!(answer, "<Error>{named}{said}</Error>").unwrap();
            }
        }
    }
    reply(StatusCode::OK, &format!("<DeleteResult>{answer}</DeleteResult>"))
}

/// ListObjectVersions. Without versions each object is one, called null.
pub fn list(
    manners: &Manners,
    versions: &Versions,
    objects: &Objects,
    query: &HashMap<String, String>,
) -> Response {
    match manners.sight {
        Sight::Denied => return error(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied"),
        Sight::Unknown => {
            let message = "A header you provided implies functionality that is not implemented";
            return error(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message);
        }
        Sight::Everybody => {}
    }
    let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let mut rows: Vec<(&str, &str, bool, Timestamp)> = versions
        .below(of("prefix"))
        .map(|v| (v.key.as_str(), v.id.as_str(), v.content.is_none(), v.written))
        .collect();
    let unversioned = |key: &&String| !versions.0.iter().any(|version| version.key == **key);
    let plain = objects.keys().filter(|key| key.starts_with(of("prefix"))).filter(unversioned);
    rows.extend(plain.map(|key| (key.as_str(), "null", false, Timestamp::UNIX_EPOCH)));
    // By key, the newest first.
    rows.reverse();
    rows.sort_by(|one, other| one.0.cmp(other.0));
    let after = (of("key-marker"), of("version-id-marker"));
    let begin = rows.iter().position(|row| (row.0, row.1) == after).map_or(0, |at| at + 1);
    let (page, rest) = rows[begin..].split_at(PAGE.min(rows.len() - begin));
    let mut xml = String::new();
    for (key, id, marker, written) in page {
        let kind = if *marker { "DeleteMarker" } else { "Version" };
        let said =
            format!("<Key>{key}</Key><VersionId>{id}</VersionId><LastModified>{written}</LastModified>");
        write!(xml, "<{kind}>{said}<IsLatest>false</IsLatest></{kind}>").unwrap();
    }
    if let (Some((key, id, ..)), false) = (page.last(), rest.is_empty()) {
        write!(xml, "<NextKeyMarker>{key}</NextKeyMarker><NextVersionIdMarker>{id}</NextVersionIdMarker>")
            .unwrap();
    }
    let truncated = !rest.is_empty();
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
        {xml}<IsTruncated>{truncated}</IsTruncated></ListVersionsResult>"
    );
    reply(StatusCode::OK, &xml)
}

/// HeadObject of one version.
pub fn head(manners: &Manners, versions: &Versions, key: &str, id: &str) -> Response {
    let Some(version) = versions.0.iter().find(|version| version.key == key && version.id == id) else {
        return reply(StatusCode::NOT_FOUND, "");
    };
    let mut response = Response::builder().header("x-amz-version-id", id);
    if let Some(lock @ Lock::Versions(_)) = manners.lock {
        response = response
            .header("x-amz-object-lock-mode", "COMPLIANCE")
            .header("x-amz-object-lock-retain-until-date", until(lock, version).to_string());
    }
    response.body(Body::empty()).unwrap()
}

/// GetObjectLockConfiguration.
pub fn lock(manners: &Manners) -> Response {
    let Some(Lock::Versions(days) | Lock::Bucket(days)) = manners.lock else {
        let message = "Object Lock configuration does not exist for this bucket";
        return error(StatusCode::NOT_FOUND, "ObjectLockConfigurationNotFoundError", message);
    };
    let rule = format!("<DefaultRetention><Mode>COMPLIANCE</Mode><Days>{days}</Days></DefaultRetention>");
    let xml = format!(
        "<ObjectLockConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
        <ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>{rule}</Rule></ObjectLockConfiguration>"
    );
    reply(StatusCode::OK, &xml)
}

/// ListMultipartUploads; `rclone serve s3` knows of none, and says it so.
pub fn uploads(manners: &Manners) -> Response {
    let Some(uploads) = &manners.uploads else {
        return error(StatusCode::NOT_FOUND, "NoSuchUpload", "The specified multipart upload does not exist");
    };
    let rows: String = uploads
        .iter()
        .map(|(key, id)| format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>"))
        .collect();
    reply(
        StatusCode::OK,
        &format!(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{rows}</ListMultipartUploadsResult>"
        ),
    )
}
