//! Kubernetes operator that moves OpenStack servers, with their volumes, between clouds.
//!
//! The pipeline of every reconcile is: observe (all reads) -> decide (pure) -> execute (one side effect a
//! step) -> one status write. `migration` and `crd` import neither `kube::Client` nor `openstack_sdk`.

pub mod build;
pub mod cli;
pub mod client;
pub mod cloud;
pub mod contract;
pub mod controller;
pub mod crd;
pub mod definitions;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod metrics;
pub mod migration;
pub mod mover;
pub mod net;
pub mod openstack;
pub mod operator;
pub mod reference;
pub mod restic;
pub mod server;
pub mod signals;
pub mod store;
pub mod transfer;
pub mod watches;
