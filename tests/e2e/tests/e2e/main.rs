//! All end-to-end tests: one process, so that those that disturb everybody can hold one lock.

mod demo_path;
