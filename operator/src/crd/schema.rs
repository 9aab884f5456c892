//! Bounds of definitions: what the API server lets through, this program can read.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::json;

/// A date as RFC 3339 has it. The API server's own `date-time` lets zones of 99 hours through, any character in place
/// of the point, and years that end after the last that can be computed with.
const DATE: &str = "^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\
                    (\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

/// The definition, in which every date has its pattern, and every number of 32 bits its bounds, which the API server
/// does not know by its format.
pub(super) fn bounded(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            bound(schema);
        }
    }
    crd
}

/// The definition, in which an object has a status from the beginning, of a generation that never was: a tool that waits
/// by kstatus takes an object without a status for one that is ready.
pub(super) fn not_looked_at_yet(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        let status = schema.and_then(|s| s.properties.as_mut()).and_then(|p| p.get_mut("status"));
        let seen = |s: &&mut JSONSchemaProps| {
            s.properties.as_ref().is_some_and(|p| p.contains_key("observedGeneration"))
        };
        if let Some(status) = status.filter(seen) {
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
    }
    crd
}

fn bound(schema: &mut JSONSchemaProps) {
    match schema.format.as_deref() {
        Some("date-time") if schema.pattern.is_none() => schema.pattern = Some(DATE.into()),
        Some("int32") => {
            schema.minimum.get_or_insert(i32::MIN.into());
            schema.maximum.get_or_insert(i32::MAX.into());
        }
        _ => {}
    }
    schema.properties.iter_mut().flat_map(|p| p.values_mut()).for_each(bound);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => bound(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(bound),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        bound(value);
    }
}
