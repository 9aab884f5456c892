//! Whether one more pass is of use, and when it is made.

use super::{
    super::{AT_ONCE, Draft, cutover},
    begin,
};
use crate::{crd::v1alpha1::*, migration::present::seconds};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// So many passes are enough, whatever the forecast says.
const ENOUGH: usize = 5;
/// So many forecasts are kept.
pub(super) const KEPT: usize = ENOUGH + 1;
/// So many are made at most: each is a layer of its own when the disk is put together.
const MOST: i32 = 10;
/// How long after a pass the next one is made while the go is waited for, in seconds; twice as long each time.
const CALM_SECONDS: i64 = 900;
/// How long after a pass that failed the next one is made, in seconds.
const AGAIN_SECONDS: i64 = 60;
/// How much later than planned a pass may begin, in seconds.
const SLACK_SECONDS: i64 = 30;
/// What a guest takes to shut down and to serve again, in seconds; assumed.
const STOP_AND_START: i64 = 90;

/// Have passes done what they can? If so, why.
pub(in super::super) fn enough(d: &Draft<'_>) -> Option<String> {
    let forecasts = d.status.copying.as_ref().map(|c| c.forecasts.as_slice()).unwrap_or_default();
    let allowed = d.input.spec.max_downtime.as_ref().map(Period::seconds);
    let stopped = d.status.running_in != Some(RunningIn::A);
    of_use_no_more(forecasts, allowed)
        .or_else(|| stopped.then(|| "no pass is made while the server does not run".to_string()))
}

/// When the next pass is due if the last one failed.
pub(in super::super) fn after_a_failure(d: &Draft<'_>) -> Option<Timestamp> {
    let copying = d.status.copying.as_ref().filter(|c| c.failures > 0)?;
    later(copying.ended_at.as_ref()?.0, AGAIN_SECONDS * i64::from(copying.failures))
}

/// While the go is waited for: begins the next pass when its time has come. When to look again for that.
pub(in super::super) fn next(d: &mut Draft<'_>) -> Option<Duration> {
    let left = next_at(d)?.duration_since(d.input.now).as_secs();
    if left > 0 {
        return Some(Duration::from_secs(left.unsigned_abs()));
    }
    begin(d);
    Some(AT_ONCE)
}

/// When the next pass begins.
pub(super) fn next_at(d: &Draft<'_>) -> Option<Timestamp> {
    let at = match cutover::word(d) {
        cutover::Word::At(at) => Some(at),
        _ => None,
    };
    due(d.status.copying.as_ref()?, at, d.input.now)
}

/// When the next pass is to be begun: the longer the go is waited for, the calmer. Before a known time one ends
/// shortly before it, and none is begun that would not.
fn due(copying: &CopyingStatus, at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let ended = copying.ended_at.as_ref()?.0;
    if copying.passes >= MOST {
        return None;
    }
    let calm = CALM_SECONDS << copying.while_waiting.clamp(0, 20);
    let regular = later(ended, calm.max(4 * copying.seconds))?;
    let Some(at) = at else { return Some(regular) };
    let lead = copying.seconds * 5 / 4 + 2 * SLACK_SECONDS;
    let latest = later(at, -lead)?;
    let in_time = now <= later(latest, SLACK_SECONDS)?;
    (in_time && ended < later(latest, -copying.seconds)?).then(|| regular.min(latest))
}

fn later(t: Timestamp, seconds: i64) -> Option<Timestamp> {
    t.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn of_use_no_more(forecasts: &[i64], allowed: Option<i64>) -> Option<String> {
    let last = *forecasts.last()?;
    let before = forecasts.len().checked_sub(2).and_then(|n| forecasts.get(n));
    if let Some(allowed) = allowed.filter(|a| last <= *a) {
        return Some(format!(
            "the forecast downtime, {}, is within spec.maxDowntime, {}",
            seconds(last),
            seconds(allowed)
        ));
    }
    if before.is_some_and(|before| last * 10 > before * 9) {
        return Some(format!(
            "one more pass would hardly shorten the downtime, {} by forecast",
            seconds(last)
        ));
    }
    let made = forecasts.len();
    (made >= ENOUGH).then(|| format!("{made} passes were made; the forecast downtime is {}", seconds(last)))
}

/// For how long neither side would serve for the sake of one disk, if the source were stopped after this pass.
///
/// The last pass, with the server stopped, is another one like it: snapshot, temporary volume, perhaps an image, reading
/// all of the disk, sending what changed. A block device in the destination gets that while it comes, and is then read
/// as a whole. Otherwise the whole disk is put together and uploaded there, as many bytes as were read; a volume is made
/// of it and read back, as a volume and an image were made in the source.
pub(super) fn forecast(row: &PassRow, follows: bool) -> i64 {
    let prepare = (row.seconds - row.read_seconds).max(0);
    let in_source = prepare + row.read_seconds;
    let in_destination = row.read_seconds + if follows { 0 } else { prepare };
    STOP_AND_START + in_source + in_destination
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn a_forecast_is_the_last_pass_again_and_the_destinations_part() {
        let table = [
            // Nothing measured: what a guest takes.
            ((0, 0), 90, 90),
            // 40 s to prepare, 60 s to read; the same in the destination, or only to read there.
            ((100, 60), 290, 250),
            // A clock of the pod that ran ahead.
            ((50, 60), 210, 210),
        ];
        for ((seconds, read_seconds), put_together, followed) in table {
            let row = PassRow { seconds, read_seconds, ..Default::default() };
            let got = (forecast(&row, false), forecast(&row, true));
            assert_eq!(got, (put_together, followed), "{seconds} {read_seconds}");
        }
    }

    #[test]
    fn passes_end_when_one_more_is_of_no_use() {
        let table: [(&[i64], Option<i64>, Option<&str>); 9] = [
            (&[], Some(60), None),
            (&[500], None, None),
            (&[500], Some(499), None),
            (&[500], Some(500), Some("within spec.maxDowntime")),
            (&[500, 449], None, None),
            (&[500, 451], None, Some("hardly shorten")),
            (&[500, 700], Some(60), Some("hardly shorten")),
            (&[900, 700, 500, 400], Some(60), None),
            (&[900, 700, 500, 400, 300], Some(60), Some("5 passes")),
        ];
        for (forecasts, allowed, wanted) in table {
            let why = of_use_no_more(forecasts, allowed);
            assert_eq!(why.is_some(), wanted.is_some(), "{forecasts:?} {allowed:?}: {why:?}");
            assert!(why.unwrap_or_default().contains(wanted.unwrap_or_default()), "{forecasts:?}");
        }
    }

    #[test]
    fn passes_get_calmer_and_the_last_one_ends_before_a_known_time() {
        let at = |s: i64| Timestamp::from_second(s).ok();
        let copying = |while_waiting, seconds, passes| CopyingStatus {
            ended_at: at(10_000).map(Time),
            while_waiting,
            seconds,
            passes,
            ..Default::default()
        };
        let table = [
            ("never began", CopyingStatus::default(), None, 10_000, None),
            ("calm", copying(0, 60, 2), None, 10_000, Some(10_900)),
            ("calmer", copying(3, 60, 5), None, 10_000, Some(17_200)),
            ("long passes", copying(0, 1000, 2), None, 10_000, Some(14_000)),
            ("as many as may be", copying(9, 60, MOST), None, 10_000, None),
            ("a time far off", copying(0, 60, 2), at(50_000), 10_000, Some(10_900)),
            ("a time that is near", copying(4, 80, 2), at(11_000), 10_000, Some(10_840)),
            ("too near for one more", copying(0, 80, 2), at(10_200), 10_000, None),
            ("we were away", copying(4, 80, 2), at(11_000), 10_900, None),
        ];
        for (what, copying, cutover, now, wanted) in table {
            assert_eq!(due(&copying, cutover, at(now).unwrap()), wanted.and_then(at), "{what}");
        }
    }
}
