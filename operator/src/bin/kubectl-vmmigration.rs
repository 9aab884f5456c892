//! `kubectl vmmigration`: the client, as a plugin of kubectl and alone.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    vmmigration::client::main().await
}
