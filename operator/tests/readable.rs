//! What the definitions let through can be read: extremes, generated from the definitions themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml speaks of #[test] only"
)]

use jiff::civil::Date;
use regex::Regex;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use vmmigration::crd::v1alpha1::{ObjectStore, OpenStackCloud, VmMigration, VmMigrationReport};

/// Texts that are short, long, odd, or look like something else; a schema lets some of them through.
const TEXTS: [&str; 12] = [
    "",
    "x",
    "ab",
    "/",
    "\u{0}\u{202e}ä\n",
    "true",
    "-1",
    "9999d9999h9999m9999s",
    "1d",
    "s3:https://s3.example.com/bucket",
    "64Ki",
    "4294967295Gi",
];

/// Dates that the API server's `date-time` takes, some of which are none.
const DATES: [&str; 12] = [
    "2030-01-01T00:00:00Z",
    "2030-01-01t00:00:00z",
    "2030-01-01T00:00:00.123456789Z",
    "2030-01-01T00:00:00.1234567890123Z",
    "2030-01-01T23:59:59+23:59",
    "2030-01-01T00:00:00+99:99",
    "2030-01-01T00:00:00x5Z",
    "0000-01-01T00:00:00Z",
    "1000-01-01T00:00:00+23:59",
    "2999-12-31T23:59:59-23:59",
    "9999-12-31T23:59:59Z",
    "9999-12-31T00:00:00-23:59",
];

/// As the API server judges (github.com/go-openapi/strfmt, `IsDateTime`).
fn is_date_time(text: &str) -> bool {
    let text = text.to_lowercase();
    let Some((date, time)) = text.split_once('t') else { return false };
    let form =
        Regex::new(r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$").unwrap();
    let Some(found) = form.captures(time) else { return false };
    date.parse::<Date>().is_ok() && &found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59"
}

/// Would the API server take this text?
fn takes(schema: &Value, pattern: Option<&Regex>, text: &str) -> bool {
    let length = text.chars().count() as u64;
    let long_enough = schema["minLength"].as_u64().is_none_or(|min| length >= min);
    let short_enough = schema["maxLength"].as_u64().is_none_or(|max| length <= max);
    let date = schema["format"] != "date-time" || is_date_time(text);
    long_enough && short_enough && pattern.is_none_or(|p| p.is_match(text)) && date
}

fn pattern(schema: &Value) -> Option<Regex> {
    schema["pattern"].as_str().map(|p| Regex::new(p).unwrap())
}

fn texts(schema: &Value) -> Vec<Value> {
    if let Some(listed) = schema["enum"].as_array() {
        return listed.iter().filter(|v| !v.is_null()).cloned().collect();
    }
    let longest = usize::try_from(schema["maxLength"].as_u64().unwrap_or(300)).unwrap();
    let shortest = usize::try_from(schema["minLength"].as_u64().unwrap_or(0)).unwrap();
    let pattern = pattern(schema);
    let particular: Vec<&str> = match (schema["format"].as_str(), &pattern) {
        (Some("date-time"), _) => DATES.to_vec(),
        (_, Some(_)) => TEXTS.to_vec(),
        // Any text will do.
        _ => vec![TEXTS[4]],
    };
    let candidates = particular.into_iter().map(String::from);
    let candidates = candidates.chain(["x".repeat(shortest), "ä".repeat(longest), "x".repeat(longest)]);
    candidates.filter(|text| takes(schema, pattern.as_ref(), text)).map(Value::String).collect()
}

fn numbers(schema: &Value) -> Vec<Value> {
    let bound = |key: &str, otherwise: i64| {
        schema[key].as_f64().map_or(otherwise, |bound| {
            #[expect(clippy::cast_possible_truncation, reason = "bounds are whole numbers")]
            let bound = bound as i64;
            bound
        })
    };
    vec![json!(bound("minimum", i64::MIN)), json!(bound("maximum", i64::MAX))]
}

/// Values that fit a schema; the first has everything in it.
fn values(path: &str, schema: &Value) -> Vec<Value> {
    let mut found = match schema["type"].as_str() {
        Some("string") => texts(schema),
        Some("integer") => numbers(schema),
        Some("boolean") => vec![json!(true), json!(false)],
        Some("array") => {
            let items = values(&format!("{path}[]"), &schema["items"]);
            items.into_iter().map(|item| json!([item])).chain([json!([])]).collect()
        }
        Some("object") => objects(path, schema),
        other => panic!("{path}: type {other:?} is not known to this test"),
    };
    assert!(!found.is_empty(), "{path}: no text of this test fits {schema}: add one");
    if schema["nullable"] == true {
        found.push(Value::Null);
    }
    found
}

/// One with all members; the same with each member's other values in turn; and the smallest.
fn objects(path: &str, schema: &Value) -> Vec<Value> {
    let Some(properties) = schema["properties"].as_object() else {
        let inner = &schema["additionalProperties"];
        let of = if inner.is_object() { values(&format!("{path}{{}}"), inner) } else { vec![] };
        return of.into_iter().map(|value| json!({"key": value})).chain([json!({})]).collect();
    };
    let of = |(name, inner): (&String, &Value)| (name.clone(), values(&format!("{path}.{name}"), inner));
    let members: Vec<(String, Vec<Value>)> = properties.iter().map(of).collect();
    let whole: Map<String, Value> =
        members.iter().map(|(name, all)| (name.clone(), all[0].clone())).collect();
    let mut found = vec![Value::Object(whole.clone())];
    for (name, others) in &members {
        for other in &others[1..] {
            let mut one = whole.clone();
            one.insert(name.clone(), other.clone());
            found.push(Value::Object(one));
        }
    }
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let smallest = whole.into_iter().filter(|(name, _)| required.contains(&name.as_str()));
    found.push(Value::Object(smallest.collect()));
    found
}

/// How many extremes of a kind were read.
fn read_all<K: DeserializeOwned>(kind: &str) -> usize {
    let crd = vmmigration::crd::all().into_iter().find(|c| c.spec.names.kind == kind).unwrap();
    let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap()["openAPIV3Schema"].take();
    let mut count = 0;
    for part in ["spec", "status"] {
        let least = values("spec", &schema["properties"]["spec"]).pop().unwrap();
        if schema["properties"][part].is_null() {
            continue;
        }
        for value in values(part, &schema["properties"][part]) {
            let mut object = json!({"apiVersion": "vmmigration.io/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": least});
            object[part] = value;
            if let Err(why) = serde_json::from_value::<K>(object.clone()) {
                panic!("the definition lets through what cannot be read: {why} in {:#}", object[part]);
            }
            count += 1;
        }
    }
    count
}

/// One object that the API server takes and the operator cannot read would be out of everybody's reach.
#[test]
fn what_the_definitions_let_through_can_be_read() {
    let counts = [
        read_all::<OpenStackCloud>("OpenStackCloud"),
        read_all::<ObjectStore>("ObjectStore"),
        read_all::<VmMigration>("VmMigration"),
        read_all::<VmMigrationReport>("VmMigrationReport"),
    ];
    assert!(counts.iter().all(|c| *c > 30), "{counts:?}");
}

/// The API server's own check of dates takes all of these; the definitions' pattern must not.
#[test]
fn dates_that_are_none_are_refused() {
    let crd = vmmigration::crd::all().into_iter().find(|c| c.spec.names.kind == "VmMigration").unwrap();
    let schema = serde_json::to_value(&crd).unwrap();
    let at = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["cutover"]["properties"]["at"];
    for bad in ["9999-12-31T00:00:00Z", "2030-01-01T00:00:00+99:99", "2030-01-01T00:00:00x5Z"] {
        assert!(is_date_time(bad) && !takes(at, pattern(at).as_ref(), bad), "{bad}");
    }
    for good in ["2026-08-29T22:00:00+02:00", "2026-11-29T22:00:00.123Z", "2028-02-29T00:00:00Z"] {
        assert!(takes(at, pattern(at).as_ref(), good), "{good}");
    }
}
