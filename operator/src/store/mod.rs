//! The object store: write, read, list and delete under one prefix.
