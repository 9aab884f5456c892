//! Condition types and reasons, and how a list of conditions is changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Condition types. `Ready`, `Reconciling` and `Stalled` follow kstatus.
pub mod kind {
    /// The object is as the spec wants it.
    pub const READY: &str = "Ready";
    /// Something is being done or waited for.
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing will happen until somebody acts.
    pub const STALLED: &str = "Stalled";
    /// Unknown until the end, then True or False.
    pub const SUCCEEDED: &str = "Succeeded";
    /// True at either end, False before it; the reason is the phase.
    pub const FINISHED: &str = "Finished";
    /// No blocker.
    pub const PREFLIGHT_PASSED: &str = "PreflightPassed";
    /// The source was seen SHUTOFF and locked by us.
    pub const SOURCE_STOPPED: &str = "SourceStopped";
    /// Every disk is in the destination.
    pub const DATA_TRANSFERRED: &str = "DataTransferred";
    /// Every disk was read back with an equal digest.
    pub const DATA_VERIFIED: &str = "DataVerified";
    /// The server exists in the destination.
    pub const DESTINATION_CREATED: &str = "DestinationCreated";
    /// The server passed its checks.
    pub const DESTINATION_READY: &str = "DestinationReady";
    /// After success: the source's server and volumes are gone.
    pub const SOURCE_RETIRED: &str = "SourceRetired";
    /// Temporary objects are gone.
    pub const CLEANED_UP: &str = "CleanedUp";
}

/// Reasons: they say what to do.
pub mod reason {
    /// It goes on by itself.
    pub const PROGRESSING: &str = "Progressing";
    /// An error that may pass; it is tried again.
    pub const TRANSIENT_ERROR: &str = "TransientError";
    /// The spec, a Secret or a cloud has to be changed.
    pub const INVALID_CONFIGURATION: &str = "InvalidConfiguration";
    /// Something that it refers to is not there, such as a Secret. It goes on as soon as it is.
    pub const REFERENCE_NOT_FOUND: &str = "ReferenceNotFound";
    /// It ended without success.
    pub const UNRECOVERABLE_ERROR: &str = "UnrecoverableError";
    /// A person has to say something.
    pub const WAITING_FOR_YOU: &str = "WaitingForYou";
    /// `spec.suspend` is true.
    pub const SUSPENDED: &str = "Suspended";
    /// It is done.
    pub const SUCCESS: &str = "Success";
    /// Somebody has to make room in the store, or raise its quota.
    pub const STORE_FULL: &str = "StoreFull";
    /// Something stays on purpose.
    pub const RETAINED: &str = "Retained";
    /// Ended by request.
    pub const CANCELLED: &str = "Cancelled";
    /// Given back by request.
    pub const ROLLED_BACK: &str = "RolledBack";
    /// The way back does not go on; the message says what is waited for. It is still tried.
    pub const STUCK: &str = "Stuck";
    /// The destination cannot be seen, and the source waits for it.
    pub const DESTINATION_UNREACHABLE: &str = "DestinationUnreachable";
}

/// Sets one condition. Its `lastTransitionTime` changes only when its status does, so that an unchanged
/// condition writes nothing.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: Option<bool>,
    reason: &str,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = match status {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let mut new = Condition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// What a look at something outside gave: good, or why not.
pub type Outcome = Result<(), (&'static str, String)>;

/// Sets `Ready`, `Reconciling` and `Stalled` from one outcome. What passes without a change of the object, as something
/// that comes later in the same rollout, is not `Stalled`: a tool that waits would give up. True: ready.
pub fn set_outcome(
    conditions: &mut Vec<Condition>,
    outcome: Outcome,
    good: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let (ready, why, message) = match outcome {
        Ok(()) => (true, reason::SUCCESS, good.to_string()),
        Err((why, message)) => (false, why, message),
    };
    let passing = [reason::TRANSIENT_ERROR, reason::REFERENCE_NOT_FOUND].contains(&why);
    let rows =
        [(kind::READY, ready), (kind::RECONCILING, !ready && passing), (kind::STALLED, !ready && !passing)];
    for (kind, status) in rows {
        set(conditions, kind, Some(status), why, message.clone(), generation, now);
    }
    ready
}

/// The status of a condition: `Some(true)`, `Some(false)`, or `None` for unknown and absent.
pub fn status(conditions: &[Condition], kind: &str) -> Option<bool> {
    match conditions.iter().find(|c| c.type_ == kind)?.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_with_status() {
        let (t1, t2) = (Timestamp::from_second(1).unwrap(), Timestamp::from_second(2).unwrap());
        let mut c = vec![];
        set(&mut c, kind::READY, None, "A", "", Some(1), t1);
        set(&mut c, kind::READY, None, "B", "x", Some(2), t2);
        assert_eq!((c.len(), c[0].last_transition_time.0, c[0].reason.as_str()), (1, t1, "B"));
        set(&mut c, kind::READY, Some(true), "C", "", Some(2), t2);
        assert_eq!((c[0].last_transition_time.0, status(&c, kind::READY)), (t2, Some(true)));
    }

    #[test]
    fn what_comes_later_by_itself_is_not_stalled() {
        for (why, wanted) in [
            (reason::TRANSIENT_ERROR, false),
            (reason::REFERENCE_NOT_FOUND, false),
            (reason::INVALID_CONFIGURATION, true),
            (reason::STORE_FULL, true),
        ] {
            let mut c = vec![];
            set_outcome(&mut c, Err((why, "x".into())), "", Some(1), Timestamp::UNIX_EPOCH);
            let found = [kind::READY, kind::STALLED, kind::RECONCILING].map(|kind| status(&c, kind));
            assert_eq!(found, [Some(false), Some(wanted), Some(!wanted)], "{why}");
        }
    }
}
