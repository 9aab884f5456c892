//! Tests that disturb everybody. The first of all by name: one after the other they hold nobody else up.

mod faults;
mod helm;
mod operator_killed;
mod store;
