//! How answers of stores are taken apart: for whoever tries whether any bytes can break that.

pub use super::{
    http::refused,
    rest::parse_names,
    s3::{all_deleted, parse_list},
    swift::{parse_catalog, parse_page},
};
