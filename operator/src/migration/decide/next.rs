//! What a phase answers: what is next, or why nothing is yet.

use super::{AT_ONCE, SOON};
use crate::{
    crd::{conditions::reason, v1alpha1::Phase},
    migration::observed::{Problem, Seen},
};
use std::time::Duration;

/// What is next.
#[derive(Debug)]
pub(super) enum Next {
    /// It is still this phase.
    Stay,
    /// That phase, for this reason; it begins with the next look.
    Enter(Phase, String),
    /// That phase, for this reason, and on in it at once: what was seen is enough to decide there.
    EnterAndGoOn(Phase, String),
    /// Nothing is left to do for an object that is being deleted.
    Release,
}

impl Next {
    pub(super) fn enter(phase: Phase, why: impl Into<String>) -> Self {
        Next::Enter(phase, why.into())
    }

    pub(super) fn enter_and_go_on(phase: Phase, why: impl Into<String>) -> Self {
        Next::EnterAndGoOn(phase, why.into())
    }
}

/// Why it does not go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// Something is waited for.
    Waiting {
        /// For people: what, since when and until when. `None`: what was said stands.
        what: Option<String>,
        /// When to look again. `None`: as what is waited for wants it.
        again: Option<Duration>,
    },
    /// Something cannot be seen or done now; that may pass, and is borne for a while.
    Trouble {
        /// What.
        what: String,
        /// For people.
        message: String,
    },
    /// The end without success.
    Failed {
        /// Its reason, a word.
        reason: String,
        /// For people.
        message: String,
    },
    /// Something in `status.preflight` is in the way; a person mends it.
    Blocked,
    /// Somebody took the source back.
    Held(String),
}

/// The reason of a failure: what was compared or asked is not as it has to be.
pub(super) const VERIFICATION_FAILED: &str = "VerificationFailed";

impl Stop {
    /// Something is waited for; when that is looked at again is known already.
    pub(super) fn waiting(what: impl Into<String>) -> Self {
        Stop::Waiting { what: Some(what.into()), again: None }
    }

    /// What is waited for was said already, or is of no interest.
    pub(super) fn as_said() -> Self {
        Stop::Waiting { what: None, again: None }
    }

    /// What was decided is in status before anything is done by it, so that a crash in between is seen.
    pub(super) fn written_first() -> Self {
        Stop::as_said().again(AT_ONCE)
    }

    /// It is looked for again soon, however often that was done.
    pub(super) fn looking(what: impl Into<String>) -> Self {
        Stop::waiting(what).again(SOON)
    }

    /// The same, looked at again so much later.
    pub(super) fn again(self, after: Duration) -> Self {
        match self {
            Stop::Waiting { what, .. } => Stop::Waiting { what, again: Some(after) },
            other => other,
        }
    }

    pub(super) fn trouble(what: impl Into<String>, message: impl Into<String>) -> Self {
        Stop::Trouble { what: what.into(), message: message.into() }
    }

    pub(super) fn failed(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Stop::Failed { reason: reason.into(), message: message.into() }
    }

    /// Is it the end?
    pub(super) fn is_failure(&self) -> bool {
        matches!(self, Stop::Failed { .. })
    }

    /// What is waited for; anything else ends more than that.
    pub(super) fn waits_for(self) -> Result<String, Stop> {
        match self {
            Stop::Waiting { what, .. } => Ok(what.unwrap_or_default()),
            other => Err(other),
        }
    }

    /// What went wrong is told by its message alone.
    pub(super) fn unrecoverable(message: impl Into<String>) -> Self {
        Stop::failed(reason::UNRECOVERABLE_ERROR, message)
    }
}

impl From<&Problem> for Stop {
    fn from(problem: &Problem) -> Self {
        Stop::trouble(&problem.id, &problem.message)
    }
}

/// What was seen of one place; nothing is decided about what was not.
pub(super) fn seen<T>(of: &Seen<T>) -> Result<&T, Stop> {
    match of {
        Seen::View(view) => Ok(view),
        Seen::Unseen(problem) => Err(problem.into()),
        Seen::NotLooked => Err(Stop::as_said()),
    }
}
