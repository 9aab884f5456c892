//! Tests that disturb everybody, or that everybody would disturb. The first of all by name: one after the other they hold
//! nobody else up.

mod borne;
mod faults;
mod half;
mod helm;
mod store;
