//! How a Job ends: SIGTERM, termination message, exit code.

use std::{future::Future, path::Path, process::ExitCode, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::{config::mask, error::MoverError};
use crate::{
    contract::{Failure, Outcome, exit},
    signals::StopSignals,
};

/// Runs the work of a Job and tells how it ended. After SIGTERM the work has `grace` to end by itself.
pub(super) async fn job<T, F>(
    termination_log: &Path,
    secrets: Vec<String>,
    grace: Duration,
    work: impl FnOnce(CancellationToken) -> F,
) -> ExitCode
where
    T: Clone + Serialize + DeserializeOwned,
    F: Future<Output = Result<T, Failure<T>>>,
{
    let cancel = CancellationToken::new();
    if let Err(error) = listen(&cancel) {
        tracing::warn!(%error, "signals cannot be caught");
    }
    let late = async {
        cancel.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    let ended = tokio::select! {
        ended = work(cancel.clone()) => ended,
        () = late => Err(MoverError::terminated().into()),
    };
    report(termination_log, &masked(ended, &secrets))
}

/// Cancels on a signal.
pub(super) fn listen(cancel: &CancellationToken) -> std::io::Result<()> {
    let mut signals = StopSignals::listen()?;
    let cancel = cancel.clone();
    tokio::spawn(async move {
        signals.recv().await;
        tracing::warn!("stopping on a signal");
        cancel.cancel();
    });
    Ok(())
}

fn masked<T>(ended: Result<T, Failure<T>>, secrets: &[String]) -> Outcome<T> {
    match ended {
        Ok(result) => Outcome::Ok(result),
        Err(failure) => Outcome::Failed(Failure { message: mask(&failure.message, secrets), ..failure }),
    }
}

/// A result that nobody can read is no success.
fn report<T: Clone + Serialize + DeserializeOwned>(termination_log: &Path, outcome: &Outcome<T>) -> ExitCode {
    if let Outcome::Failed(failure) = outcome {
        tracing::error!(reason = %failure.reason, retryable = failure.retryable, "{}", failure.message);
    }
    match std::fs::write(termination_log, outcome.to_termination_message()) {
        Ok(()) => ExitCode::from(exit::code(outcome)),
        Err(error) => {
            tracing::error!(%error, "the termination message cannot be written");
            ExitCode::from(exit::RETRYABLE)
        }
    }
}
