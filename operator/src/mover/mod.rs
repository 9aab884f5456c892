//! What runs inside a Job: moves one disk between a cloud and the repository.
//!
//! Every subcommand ends with a [`Outcome`](crate::contract::Outcome) in the termination message, the exit code that belongs
//! to it, and nothing half-done that looks whole: no snapshot of a short read, no image of a short dump.

pub mod backup;
pub mod block_file;
pub mod catalog;
pub mod check;
pub mod cli;
pub mod config;
pub mod device_target;
pub mod digest;
mod ended;
pub mod error;
pub mod feed;
mod gate;
pub mod glance;
pub mod guard;
pub mod image;
pub mod image_target;
pub mod init;
mod key;
mod pause;
mod place;
pub mod probe;
pub mod progress;
pub mod purge;
mod repository;
pub mod restore;
pub mod seal;
pub mod source;
pub mod ssh;
mod warm;
