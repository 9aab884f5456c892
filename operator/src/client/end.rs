//! How a call ends: the exit codes, and errors that say what to do.

use kube::core::Status;
use std::{fmt, process::ExitCode};

/// The exit codes, as `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// 0
    Well,
    /// 1: it failed, is blocked, or was refused.
    Failed,
    /// 2: the call itself makes no sense.
    Usage,
    /// 3: cancelled, rolled back or deleted.
    GivenUp,
    /// 4: not done in time.
    Timeout,
    /// 130: Ctrl-C.
    Interrupted,
}

impl Ended {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Ended::Well => 0,
            Ended::Failed => 1,
            Ended::Usage => 2,
            Ended::GivenUp => 3,
            Ended::Timeout => 4,
            Ended::Interrupted => 130,
        }
    }
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        ended.code().into()
    }
}

/// What a call gives: an exit code, or an error with one.
pub type Done = Result<Ended, Stop>;

/// An error for a person: what failed, what was answered, what to do.
#[derive(Debug)]
pub struct Stop {
    /// The exit code.
    pub ended: Ended,
    /// What is printed.
    pub message: String,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::text::clean(&self.message))
    }
}

impl Stop {
    /// Something failed or was refused.
    pub fn failed(message: impl Into<String>) -> Self {
        Stop { ended: Ended::Failed, message: message.into() }
    }

    /// The call makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Stop { ended: Ended::Usage, message: message.into() }
    }

    /// Not done in time.
    pub fn timeout(message: impl Into<String>) -> Self {
        Stop { ended: Ended::Timeout, message: message.into() }
    }
}

/// Something on this machine that did not work.
pub fn local(what: impl fmt::Display) -> impl FnOnce(std::io::Error) -> Stop {
    move |e| Stop::failed(format!("{what}: {e}"))
}

/// An answer of the cluster, with what to do about it. `what` is what was tried, such as `reading VmMigration web-1`.
pub fn explain(what: impl fmt::Display) -> impl FnOnce(kube::Error) -> Stop {
    move |error| {
        let why = match &error {
            kube::Error::Api(status) => answer(status),
            other => unreachable_cluster(other),
        };
        Stop::failed(format!("{what}: {why}"))
    }
}

fn answer(status: &Status) -> String {
    let said = &status.message;
    match status.code {
        401 => format!(
            "the cluster does not accept your credentials ({said}); log in again, or name another --context"
        ),
        403 => format!(
            "you may not: {said}\nA team gets its rights by a RoleBinding to ClusterRole vmmigration-tenant in its \
             namespace. Ask your platform for:\n  kubectl create rolebinding vmmigration \
             --clusterrole=vmmigration-tenant --user=YOU -n NAMESPACE\n`kubectl vmmigration check` lists which rights \
             you have."
        ),
        404 if is_unknown_kind(status) => format!(
            "the cluster does not know this kind ({said}): vmmigration is not installed in it. Name another \
             --context, or have it installed: helm install vmmigration charts/vmmigration-operator"
        ),
        404 => format!("{said}\n`kubectl vmmigration list` shows what there is; -n names another namespace."),
        _ => said.clone(),
    }
}

/// Would asking again give the same answer? So it is where rights or the kind itself are missing.
pub fn answer_is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404))
}

/// Of a kind that is not served the answer names no object.
pub fn is_unknown_kind(status: &Status) -> bool {
    status.code == 404 && status.details.as_ref().is_none_or(|d| d.name.is_empty())
}

fn unreachable_cluster(error: &kube::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    format!(
        "the cluster does not answer: {}\nIs it the right one? `kubectl config current-context` names it; \
         --context and --kubeconfig choose another.",
        texts.join(": ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: u16, message: &str, name: Option<&str>) -> String {
        let details = name.map(|n| serde_json::json!({"name": n}));
        let status = serde_json::json!({"status": "Failure", "code": code, "message": message,
            "reason": "", "details": details});
        let status: Status = serde_json::from_value(status).unwrap();
        explain("reading VmMigration web-1")(kube::Error::Api(Box::new(status))).to_string()
    }

    #[test]
    fn answers_say_what_to_do() {
        let forbidden =
            told(403, "vmmigrations.vmmigration.io is forbidden: User \"x\" cannot list", Some("web-1"));
        assert!(forbidden.contains("cannot list") && forbidden.contains("vmmigration-tenant"), "{forbidden}");
        let unknown = told(404, "the server could not find the requested resource", None);
        assert!(unknown.contains("not installed"), "{unknown}");
        let gone = told(404, "vmmigrations.vmmigration.io \"web-1\" not found", Some("web-1"));
        assert!(gone.contains("vmmigration list") && !gone.contains("installed"), "{gone}");
        assert!(told(401, "Unauthorized", None).contains("log in again"));
        assert_eq!(told(422, "spec.x is immutable", None), "reading VmMigration web-1: spec.x is immutable");
    }

    #[test]
    fn codes_are_as_documented() {
        use Ended::*;
        let codes = [Well, Failed, Usage, GivenUp, Timeout, Interrupted].map(Ended::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 130]);
    }
}
