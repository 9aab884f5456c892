//! What people are told of passes.

use super::{
    super::{Draft, clock, cutover, deletions},
    applies, is_volume,
    plan::next_at,
};
use crate::{
    crd::v1alpha1::*,
    migration::{
        block_storage::{fills_while_copying, pinned},
        names::Side,
        present::{human, seconds},
    },
};
use k8s_openapi::jiff::Timestamp;

/// Bytes that the pass which ended then has read, found changed, and sent; some volumes may be through the next one.
fn brought(disks: &[DiskStatus], ended: Timestamp) -> [i64; 3] {
    let by_then = |row: &&PassRow| row.at.as_ref().is_none_or(|at| at.0 <= ended);
    let rows = disks.iter().filter_map(|k| k.passes.iter().rfind(by_then));
    rows.map(|r| [r.bytes_read, r.changed_bytes, r.sent_bytes])
        .fold([0; 3], |sums, row| std::array::from_fn(|n| sums[n] + row[n]))
}

/// What the last pass brought.
pub(super) fn last_pass(d: &Draft<'_>) -> String {
    let Some(copying) = &d.status.copying else { return String::new() };
    let (Some(forecast), Some(ended)) = (copying.forecasts.last(), &copying.ended_at) else {
        return "no pass has ended yet".into();
    };
    let [read, changed, sent] = brought(&d.status.disks, ended.0).map(human);
    format!(
        "pass {} ended at {}: {read} read, {changed} changed, {sent} sent; forecast downtime {}, {}",
        copying.passes,
        clock(ended.0),
        seconds(*forecast),
        if fills_while_copying(&d.status) {
            "most of it to read the volumes once in A and once in B"
        } else {
            "most of it to put the disks together in B"
        }
    )
}

/// The message while a pass is under way.
pub(super) fn tell(d: &Draft<'_>, waiting: Option<String>) -> String {
    let copying = d.status.copying.clone().unwrap_or_default();
    let volumes = d.status.disks.iter().filter(|k| is_volume(k));
    let (done, all) = (volumes.clone().filter(|k| k.copied).count(), volumes.count());
    let doing = match (&copying.problem, waiting) {
        (Some(problem), _) => format!("removing what a failed pass made ({problem})"),
        (None, Some(stage)) => format!("{stage} ({done}/{all} volumes done)"),
        (None, None) => {
            format!("removing its snapshots and temporary volumes{}", deletions::refusal(d))
        }
    };
    let go = if copying.by_itself {
        "the source is stopped when passes have done what they can".into()
    } else {
        format!("to go now: {}", cutover::go(d))
    };
    format!(
        "Pass {}, {} runs in A: {doing}; {}; {go}",
        copying.passes + 1,
        d.input.spec.source.server,
        last_pass(d)
    )
}

/// Half a sentence about passes while the go is waited for.
pub(in super::super) fn told(d: &Draft<'_>) -> String {
    if d.status.copying.is_none() {
        return String::new();
    }
    let next = match next_at(d) {
        Some(next) => format!("the next one begins at {}", clock(next)),
        None => "none follows before the stop".into(),
    };
    format!(" ({}; {next})", last_pass(d))
}

/// What the way into the destination means for the downtime, for preflight.
pub(in super::super) fn plan(d: &Draft<'_>) -> Option<Finding> {
    let transfer = pinned(&d.status, Side::Destination).filter(|_| applies(d))?;
    let to = &d.input.spec.destination.cloud;
    let message = if transfer.is_volume() {
        format!(
            "{to} takes volumes as block devices: they are made with the first pass and follow each pass, so that after \
             the stop the last pass is written and each whole volume is read once"
        )
    } else {
        format!(
            "{to} takes images: after the stop it puts each whole disk together, makes a volume of it and reads it back; \
             no pass shortens that part of the downtime"
        )
    };
    Some(Finding { id: "warm-destination".into(), severity: Severity::Info, message, suggestion: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn what_a_pass_brought_is_told_without_what_the_next_one_brings() {
        let row = |at, bytes| PassRow {
            at: Timestamp::from_second(at).ok().map(Time),
            bytes_read: bytes,
            sent_bytes: 1,
            ..Default::default()
        };
        let disk = |passes: &[PassRow]| DiskStatus { passes: passes.to_vec(), ..Default::default() };
        // The first volume is through the second pass already.
        let disks = [disk(&[row(90, 10), row(120, 1000)]), disk(&[row(100, 20)]), disk(&[])];
        for (ended, wanted) in [(100, [30, 0, 2]), (120, [1020, 0, 2]), (95, [10, 0, 1])] {
            assert_eq!(brought(&disks, Timestamp::from_second(ended).unwrap()), wanted, "{ended}");
        }
    }
}
