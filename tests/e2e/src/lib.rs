//! Harness of the end-to-end tests: one namespace, servers of its own and a clean-up with a check for each test.
//!
//! A test is an asynchronous function that gets a [`Lab`]. It runs by [`shared`], side by side with others, or by
//! [`exclusive`] when it disturbs everybody (a dead API, a full quota, a killed operator). What a test finds wrong
//! it returns as an error; then the object's YAML and the logs of operator and Jobs are printed. In the end, also
//! of a failed test, everything of the test is removed, and what carries a migration's mark without need is an error.

mod chaos;
mod diagnose;
mod guest;
mod lab;
mod leftovers;
mod migration;
mod pods;
mod rest;
mod servers;
mod site;
mod storage;
mod terminal;
mod traffic;
mod wait;

pub use chaos::Victim;
pub use guest::{Guest, Page};
pub use lab::{Lab, Stays, exclusive, shared};
pub use migration::{Migration, blockers, condition, succeeded};
pub use pods::{MOVERS, OPERATOR, SYSTEM, client_as, command, fault, kill, labelled, log};
pub use rest::Rest;
pub use servers::{Disks, MadeServer};
pub use site::{Site, ca, clouds_yaml, setting};
pub use storage::Content;
pub use terminal::{Said, Terminal, said};
pub use traffic::{Addresses, Traffic};
pub use wait::{fatal, until, until_seldom};
