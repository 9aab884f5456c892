//! A failed step: reason, message, and whether another try makes sense.

use super::image::ImageError;
use crate::{
    contract::{Failure, FailureReason},
    restic::ResticError,
    store::StoreError,
};

/// Why a step of the mover failed. The message names the object, what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MoverError {
    /// For machines.
    pub reason: FailureReason,
    /// For people.
    pub message: String,
    /// Whether a new attempt may succeed without anybody changing anything.
    pub retryable: bool,
}

impl MoverError {
    /// Somebody has to change something first.
    pub fn terminal(reason: FailureReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retryable: false }
    }

    /// Another attempt may work.
    pub fn retryable(reason: FailureReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retryable: true }
    }

    /// SIGTERM arrived.
    pub fn terminated() -> Self {
        Self::retryable(
            FailureReason::Terminated,
            "stopped by SIGTERM before the step was done; start the Job again",
        )
    }

    /// The same failure with words after its message.
    #[must_use]
    pub fn and(self, after: &str) -> Self {
        Self { message: format!("{}; {after}", self.message), ..self }
    }

    /// The same failure with words before its message.
    #[must_use]
    pub fn context(self, before: &str) -> Self {
        Self { message: format!("{before}: {}", self.message), ..self }
    }
}

impl From<StoreError> for MoverError {
    fn from(error: StoreError) -> Self {
        let reason = match &error {
            StoreError::Unauthorized { .. } => FailureReason::StoreUnauthorized,
            StoreError::NoBucket { .. } => FailureReason::NoBucket,
            StoreError::Invalid(_) | StoreError::WrongRegion { .. } => FailureReason::InvalidConfiguration,
            StoreError::Full { .. } => FailureReason::StoreFull,
            _ => FailureReason::StoreError,
        };
        Self { reason, retryable: error.is_transient(), message: error.to_string() }
    }
}

impl From<ResticError> for MoverError {
    fn from(error: ResticError) -> Self {
        let (reason, retryable) = match &error {
            ResticError::Spawn(_) => (FailureReason::InvalidConfiguration, false),
            ResticError::NoRepository(_) => (FailureReason::RepositoryMissing, false),
            ResticError::Locked(_) => (FailureReason::RepositoryLocked, true),
            ResticError::WrongPassword(_) => (FailureReason::WrongPassword, false),
            ResticError::SnapshotNotFound(_) => (FailureReason::SnapshotNotFound, false),
            ResticError::Unauthorized(_) => (FailureReason::StoreUnauthorized, false),
            ResticError::ClockSkew(_) => (FailureReason::StoreError, false),
            ResticError::StoreFull(_) => (FailureReason::StoreFull, true),
            ResticError::Terminated => return Self::terminated(),
            ResticError::Killed(_) | ResticError::Failed { .. } => (FailureReason::ResticFailed, true),
        };
        Self { reason, retryable, message: error.to_string() }
    }
}

impl From<ImageError> for MoverError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Transient(message) => Self::retryable(FailureReason::CloudError, message),
            ImageError::Unauthorized(message) => Self::terminal(FailureReason::CloudUnauthorized, message),
            ImageError::Refused(message) => Self::terminal(FailureReason::CloudError, message),
            ImageError::Content(message) => Self::terminal(FailureReason::DiskRefused, message),
        }
    }
}

impl<T> From<MoverError> for Failure<T> {
    fn from(error: MoverError) -> Self {
        Self { reason: error.reason, message: error.message, retryable: error.retryable, result: None }
    }
}
