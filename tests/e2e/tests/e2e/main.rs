//! All end-to-end tests: one process, so that those that disturb everybody can hold one lock.

mod alone;
mod blocked;
mod checks;
mod claims;
mod client;
mod deletion;
mod docs;
mod downtime;
mod every_phase;
mod held;
mod hooks;
mod interrupted;
mod killed;
mod lost;
mod moves;
mod platform;
mod requests;
mod retire;
mod rollback;
mod rules;
mod segments;
mod volume_mode;
mod warm;
