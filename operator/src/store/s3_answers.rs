//! What S3 stores answer: listings, versions, deletions, locks.

use jiff::SignedDuration;
use roxmltree::Node;

use super::{
    stored::Stored,
    xml::{children, read, required, text},
};

/// One page of a listing, and where the next one begins.
#[derive(Debug, PartialEq)]
pub struct Page<T, N> {
    pub rows: Vec<T>,
    pub next: Option<N>,
}

/// How a deletion of many ended.
#[derive(Debug, Default, PartialEq)]
pub struct Deletion {
    /// How many of them became a marker only: what they were stays as versions.
    pub markers: u64,
    pub failed: Vec<Failed>,
}

/// An object that was not deleted.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    pub key: String,
    pub version: Option<String>,
    pub code: String,
    pub message: String,
}

/// ListObjectsV2: keys.
pub fn parse_list(body: &[u8]) -> Result<Page<String, String>, String> {
    read(body, "ListBucketResult", |root| {
        let rows = children(root, "Contents").map(|row| required(row, "Key")).collect::<Result<_, _>>()?;
        let next = text(root, "NextContinuationToken").filter(|_| goes_on(root));
        Ok(Page { rows, next })
    })
}

/// ListObjectVersions: versions and markers, in any order.
pub fn parse_versions(body: &[u8]) -> Result<Page<Stored, (String, String)>, String> {
    read(body, "ListVersionsResult", |root| {
        let rows = children(root, "Version").chain(children(root, "DeleteMarker"));
        let rows = rows.map(stored).collect::<Result<_, _>>()?;
        let next = text(root, "NextKeyMarker").filter(|_| goes_on(root));
        let next = next.map(|key| (key, text(root, "NextVersionIdMarker").unwrap_or_default()));
        Ok(Page { rows, next })
    })
}

fn stored(row: Node<'_, '_>) -> Result<Stored, String> {
    let written = text(row, "LastModified").and_then(|text| text.parse().ok());
    Ok(Stored { key: required(row, "Key")?, version: text(row, "VersionId"), written })
}

/// ListMultipartUploads: keys and ids.
pub fn parse_uploads(body: &[u8]) -> Result<Vec<(String, String)>, String> {
    read(body, "ListMultipartUploadsResult", |root| {
        children(root, "Upload").map(|row| Ok((required(row, "Key")?, required(row, "UploadId")?))).collect()
    })
}

/// DeleteObjects.
pub fn parse_deletion(body: &[u8]) -> Result<Deletion, String> {
    read(body, "DeleteResult", |root| {
        let marked = |row: &Node<'_, '_>| {
            text(*row, "DeleteMarker").as_deref() == Some("true") && text(*row, "VersionId").is_none()
        };
        let failed = |row: Node<'_, '_>| {
            Ok::<_, String>(Failed {
                key: required(row, "Key")?,
                version: text(row, "VersionId"),
                code: text(row, "Code").unwrap_or_default(),
                message: text(row, "Message").unwrap_or_default(),
            })
        };
        let markers = children(root, "Deleted").filter(marked).count() as u64;
        let failed = children(root, "Error").map(failed).collect::<Result<_, _>>()?;
        Ok(Deletion { markers, failed })
    })
}

/// GetObjectLockConfiguration: how long new versions are locked.
pub fn parse_lock(body: &[u8]) -> Result<Option<SignedDuration>, String> {
    read(body, "ObjectLockConfiguration", |root| {
        let rule = children(root, "Rule").flat_map(|rule| children(rule, "DefaultRetention")).next();
        let number = |name| rule.and_then(|rule| text(rule, name)?.trim().parse::<u32>().ok());
        let days = number("Days").or_else(|| Some(number("Years")?.saturating_mul(365)));
        Ok(days.map(|days| SignedDuration::from_hours(24 * i64::from(days))))
    })
}

fn goes_on(root: Node<'_, '_>) -> bool {
    text(root, "IsTruncated").is_some_and(|truncated| truncated.trim() == "true")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIST: &str = "<ListBucketResult><Name>b</Name><MaxKeys>3</MaxKeys><IsTruncated>true</IsTruncated>\
        <NextContinuationToken>t</NextContinuationToken><Contents><Key>a/b</Key>\
        <LastModified>2026-08-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag><Size>1</Size>\
        <StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>";

    #[test]
    fn a_list_without_its_namespace() {
        let page = parse_list(LIST.as_bytes()).unwrap();
        assert_eq!(page, Page { rows: vec!["a/b".into()], next: Some("t".into()) });
        let last = LIST.replace("true", "false");
        assert_eq!(parse_list(last.as_bytes()).unwrap().next, None);
    }

    /// As versitygw answers: the fields of the page between the rows, markers first.
    #[test]
    fn versions_and_markers() {
        let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><DeleteMarker><IsLatest>true</IsLatest>\
            <Key>a/1</Key><LastModified>2026-11-30T17:32:49.010570427Z</LastModified><VersionId>01M</VersionId></DeleteMarker>\
            <Delimiter></Delimiter><IsTruncated>true</IsTruncated><NextKeyMarker>a/2</NextKeyMarker>\
            <NextVersionIdMarker>null</NextVersionIdMarker><Version><LastModified>2026-11-30T17:32:49Z</LastModified>\
            <ETag>&#34;41&#34;</ETag><Key>a/2</Key><VersionId>null</VersionId></Version></ListVersionsResult>";
        let page = parse_versions(body.as_bytes()).unwrap();
        let rows: Vec<_> = page.rows.iter().map(|row| (row.key.as_str(), row.version.as_deref())).collect();
        assert_eq!(rows, [("a/2", Some("null")), ("a/1", Some("01M"))]);
        assert!(page.rows.iter().all(|row| row.written.is_some()));
        assert_eq!(page.next, Some(("a/2".into(), "null".into())));
    }

    #[test]
    fn deletions() {
        let body = "<DeleteResult><Deleted><Key>a</Key><DeleteMarker>true</DeleteMarker><VersionId></VersionId></Deleted>\
            <Deleted><Key>b</Key><VersionId>v</VersionId><DeleteMarker>true</DeleteMarker></Deleted>\
            <Error><Code>AccessDenied</Code><Key>c</Key><Message>no</Message><VersionId>w</VersionId></Error></DeleteResult>";
        let failed = Failed {
            key: "c".into(),
            version: Some("w".into()),
            code: "AccessDenied".into(),
            message: "no".into(),
        };
        assert_eq!(parse_deletion(body.as_bytes()), Ok(Deletion { markers: 1, failed: vec![failed] }));
        assert_eq!(parse_deletion(b"<DeleteResult/>"), Ok(Deletion::default()));
    }

    #[test]
    fn locks() {
        let lock = |rule: &str| {
            parse_lock(format!("<ObjectLockConfiguration>{rule}</ObjectLockConfiguration>").as_bytes())
        };
        let rule = |time: &str| {
            format!("<Rule><DefaultRetention><Mode>GOVERNANCE</Mode>{time}</DefaultRetention></Rule>")
        };
        assert_eq!(lock(&rule("<Days>30</Days>")), Ok(Some(SignedDuration::from_hours(720))));
        assert_eq!(lock(&rule("<Years>2</Years>")), Ok(Some(SignedDuration::from_hours(24 * 730))));
        assert_eq!(lock("<ObjectLockEnabled>Enabled</ObjectLockEnabled>"), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (parse_list(&bytes).is_ok(), parse_deletion(&bytes).is_ok(), parse_versions(&bytes).is_ok());
        }

        #[test]
        fn a_damaged_list_is_an_answer_or_an_error(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = LIST.as_bytes().to_vec();
            let at = at.index(text.len());
            text[at] = byte;
            let _ = parse_list(&text).is_ok();
        }
    }
}
