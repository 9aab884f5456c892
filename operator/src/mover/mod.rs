//! What runs inside a Job: moves one disk between a cloud and the repository.
