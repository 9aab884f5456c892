//! What clouds answer, as plain types: read by the clients of their services, decided upon by the core.

mod presence;
mod types;

pub use presence::{Listed, Proof, Sighting};
pub use types::*;
