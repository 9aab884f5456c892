//! A length of time as people write it: `90s`, `10m`, `1h30m`, `7d`.

use jiff::{Span, SpanRelativeTo, Unit};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A length of time as people write it: `90s`, `10m`, `1h30m`, `7d`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Period(pub String);

impl Period {
    /// In seconds. The definition's pattern lets nothing through that cannot be read; what was stored before the
    /// pattern counts as 0.
    pub fn seconds(&self) -> i64 {
        let span: Option<Span> = self.0.parse().ok();
        let days = SpanRelativeTo::days_are_24_hours();
        let total = span.and_then(|s| s.total((Unit::Second, days)).ok()).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, reason = "saturates; the pattern allows 4 digits a unit")]
        let seconds = total as i64;
        seconds.max(0)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 20,
            "pattern": "^([0-9]{1,4}d)?([0-9]{1,4}h)?([0-9]{1,4}m)?([0-9]{1,4}s)?$",
            "minLength": 2,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read() {
        let seconds = |t: &str| Period(t.into()).seconds();
        assert_eq!(
            [seconds("90s"), seconds("10m"), seconds("1h30m"), seconds("7d")],
            [90, 600, 5400, 604_800]
        );
        assert_eq!([seconds("2d12h"), seconds("nonsense")], [216_000, 0]);
    }
}
