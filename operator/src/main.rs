//! The one binary: `run` the operator, print `crd`s, or act as a `mover` inside a Job.
fn main() {}
