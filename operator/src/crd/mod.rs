//! The custom resources of group `vmmigration.io`, one module per version.

// Clippy takes the values of several printer columns for repeated attributes.
#![allow(clippy::duplicated_attributes)]

pub mod conditions;
mod schema;
pub mod stored;
pub mod v1alpha1;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of every resource.
pub const GROUP: &str = "vmmigration.io";

/// The short name of the one version that is served.
pub const VERSION: &str = "v1alpha1";

/// All custom resource definitions, in the order in which they are installed.
pub fn all() -> Vec<CustomResourceDefinition> {
    let all = [
        v1alpha1::OpenStackCloud::crd(),
        v1alpha1::ObjectStore::crd(),
        v1alpha1::VmMigration::crd(),
        v1alpha1::VmMigrationReport::crd(),
    ];
    all.into_iter().map(schema::bounded).map(schema::not_looked_at_yet).collect()
}

/// The file name under which a definition is kept in `crds/`.
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", GROUP, crd.spec.names.plural)
}
