//! Lifts a clock that is before the image's date or the cluster's first second, and tells of one that is after the cluster's end.
//!
//! A machine whose battery is empty wakes up in 1970 or in the year of its firmware: no certificate is valid then, and no boot may wait
//! for a time server to say so. Where the clock is proven wrong, the last time that is known is better than the first that is possible: others hold certificates
//! that were signed between the two.
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use kscratch_metadata::{RoleMetadata, Validity, validity};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::log;
use crate::sntp::keeper::Floor;
use crate::sys::Sys;

/// Every file of the root bears the image's date.
const DATED: &str = "/usr/share/kscratch/release.json";

/// What is to be done about the clock.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decision {
    /// The time to set it to, in seconds since 1970.
    set: Option<i64>,
    /// What a person should know.
    told: Option<String>,
}

/// Sets the clock to the image's date where it is before that, which is all that is known while the metadata are looked for: a server that has them may
/// have to prove itself, and no certificate is valid in 1970. Gives whether the clock was wrong; [`lift`] has the last word of it.
///
/// # Errors
/// As [`lift`].
pub fn lift_to_image(sys: &dyn Sys, root: &Path) -> Result<bool> {
    act(sys, decide(seconds(SystemTime::now()), floor_of(dated(root)?, None), None, None, false))
}

/// Sets the clock where it cannot be right. `written` is when state was last written to before this boot, in seconds since 1970; `lifted` says that the
/// clock was found wrong in this boot, and is at the image's date for no better reason.
///
/// # Errors
/// The image has no date, or the clock cannot be set.
pub fn lift(sys: &dyn Sys, root: &Path, metadata: &RoleMetadata, written: Option<i64>, lifted: bool) -> Result<()> {
    let ca = ca(metadata);
    let now = seconds(SystemTime::now());
    act(sys, decide(now, floor_of(dated(root)?, ca), ca, written, lifted)).map(drop)
}

/// Says whether the clock was set.
fn act(sys: &dyn Sys, decision: Decision) -> Result<bool> {
    let Decision { set, told } = decision;
    told.iter().for_each(log::line);
    set.map_or(Ok(()), |to| sys.set_clock(to)).context("setting the clock")?;
    Ok(set.is_some())
}

/// What no clock of this machine can be before, whatever a time server says.
///
/// # Errors
/// The image has no date.
pub fn floor(root: &Path, metadata: &RoleMetadata) -> Result<Floor> {
    Ok(floor_of(dated(root)?, ca(metadata)))
}

/// The image's date, in seconds since 1970.
fn dated(root: &Path) -> Result<i64> {
    let file = root.join(DATED.trim_start_matches('/'));
    let image = std::fs::metadata(file).and_then(|metadata| metadata.modified());
    Ok(seconds(image.with_context(|| format!("reading the date of {DATED}"))?))
}

fn ca(metadata: &RoleMetadata) -> Option<Validity> {
    metadata.cluster.as_ref().and_then(|cluster| validity(cluster.ca.as_deref()?))
}

fn floor_of(image: i64, ca: Option<Validity>) -> Floor {
    match ca.map(|ca| ca.from) {
        Some(first) if first > image => Floor { seconds: first, what: "the first second of the cluster's CA" },
        _ => Floor { seconds: image, what: "the image's date" },
    }
}

fn decide(now: i64, floor: Floor, ca: Option<Validity>, written: Option<i64>, lifted: bool) -> Decision {
    let Floor { seconds: least, what } = floor;
    // What was written after the cluster's end was written by a clock that had gone mad.
    let last = written.filter(|at| *at > least && ca.is_some_and(|ca| *at <= ca.until));
    if now < least {
        let (to, why) = last.map_or((least, ""), |at| (at, ", when state was last written to"));
        let told = format!("the clock says {}, which is before {what}: set to {}{why}", text(now), text(to));
        return Decision { set: Some(to), told: Some(told) };
    }
    if let Some(at) = last.filter(|at| lifted && *at > now) {
        let told = format!(
            "the clock was wrong, and says {} now: set to {}, when state was last written to",
            text(now),
            text(at)
        );
        return Decision { set: Some(at), told: Some(told) };
    }
    let ended = ca.filter(|ca| ca.until < now).map(|ca| {
        format!(
            "the clock says {}, and the cluster's CA ended on {}: nobody in this cluster will trust another; if the clock is wrong, set it in the firmware",
            text(now),
            text(ca.until)
        )
    });
    Decision { set: None, told: ended }
}

fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    }
}

/// `2026-11-24T12:34:56Z`; what no calendar reaches as a number.
fn text(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|moment| moment.format(&Rfc3339).ok());
    moment.unwrap_or_else(|| format!("{seconds} s after 1970"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, UNIX_EPOCH};

    use kscratch_metadata::{Cluster, RoleMetadata, Validity};

    use super::{decide, floor_of, lift, lift_to_image};
    use crate::sys::Recording;

    const IMAGE: i64 = 1_795_000_000;

    #[track_caller]
    fn check(now: i64, ca: Option<(i64, i64)>, set: Option<i64>, told: &str) {
        check_with(now, ca, None, false, set, told);
    }

    #[track_caller]
    fn check_with(now: i64, ca: Option<(i64, i64)>, written: Option<i64>, lifted: bool, set: Option<i64>, told: &str) {
        let ca = ca.map(|(from, until)| Validity { from, until });
        let decision = decide(now, floor_of(IMAGE, ca), ca, written, lifted);
        assert_eq!((decision.set, decision.told.as_deref().unwrap_or_default()), (set, told));
    }

    #[test]
    fn only_a_clock_that_cannot_be_right_is_set() {
        check(IMAGE, None, None, "");
        check(IMAGE + 1, Some((IMAGE - 9, IMAGE + 9)), None, "");
        let before =
            "the clock says 1970-01-01T00:00:00Z, which is before the image's date: set to 2026-11-18T11:06:40Z";
        check(0, None, Some(IMAGE), before);
        check(0, Some((IMAGE - 9, IMAGE + 9)), Some(IMAGE), before);
        check(
            IMAGE,
            Some((IMAGE + 60, IMAGE + 99)),
            Some(IMAGE + 60),
            "the clock says 2026-11-18T11:06:40Z, which is before the first second of the cluster's CA: set to 2026-11-18T11:07:40Z",
        );
        check(
            IMAGE + 60,
            Some((IMAGE - 9, IMAGE + 9)),
            None,
            "the clock says 2026-11-18T11:07:40Z, and the cluster's CA ended on 2026-11-18T11:06:49Z: nobody in this cluster will trust another; if the clock is wrong, set it in the firmware",
        );
        check(i64::MAX, None, None, "");
    }

    #[test]
    fn the_last_time_that_is_known_is_better_than_the_first_that_is_possible() {
        let ca = Some((IMAGE + 60, IMAGE + 999));
        let first = "the clock says 1970-01-01T00:00:00Z, which is before the first second of the cluster's CA: set to 2026-11-18T11:07:40Z";
        let last = "the clock says 1970-01-01T00:00:00Z, which is before the first second of the cluster's CA: set to 2026-11-18T11:08:20Z, when state was last written to";
        check_with(0, ca, Some(IMAGE + 100), false, Some(IMAGE + 100), last);
        check_with(0, ca, Some(IMAGE), false, Some(IMAGE + 60), first);
        check_with(0, ca, Some(IMAGE + 1000), false, Some(IMAGE + 60), first);
        // A clock that may be right is left alone.
        check_with(IMAGE + 61, ca, Some(IMAGE + 100), false, None, "");
    }

    /// That it stands at the image's date since a moment ago does not make it one that may be right.
    #[test]
    fn a_clock_that_was_lifted_before_the_metadata_were_read_is_lifted_on() {
        let ca = Some((IMAGE - 60, IMAGE + 999));
        let last = "the clock was wrong, and says 2026-11-18T11:06:45Z now: set to 2026-11-18T11:08:20Z, when state was last written to";
        check_with(IMAGE + 5, ca, Some(IMAGE + 100), true, Some(IMAGE + 100), last);
        check_with(IMAGE + 5, ca, Some(IMAGE + 4), true, None, "");
        check_with(IMAGE + 5, ca, Some(IMAGE + 1000), true, None, "");
        check_with(IMAGE + 5, None, Some(IMAGE + 100), true, None, "");
        check_with(
            IMAGE + 5,
            Some((IMAGE + 60, IMAGE + 999)),
            None,
            true,
            Some(IMAGE + 60),
            "the clock says 2026-11-18T11:06:45Z, which is before the first second of the cluster's CA: set to 2026-11-18T11:07:40Z",
        );
    }

    #[test]
    fn the_image_has_a_date() {
        let root = tempfile::tempdir().unwrap();
        let sys = Recording::new();
        let mut metadata = RoleMetadata::standalone();
        let error = lift(&sys, root.path(), &metadata, None, false).unwrap_err();
        assert!(
            format!("{error:#}").starts_with("reading the date of /usr/share/kscratch/release.json: "),
            "{error:#}"
        );
        fs::create_dir_all(root.path().join("usr/share/kscratch")).unwrap();
        fs::write(root.path().join("usr/share/kscratch/release.json"), "").unwrap();
        metadata.cluster = Some(Cluster::default());
        lift(&sys, root.path(), &metadata, None, false).unwrap();
        assert!(!lift_to_image(&sys, root.path()).unwrap());
        assert_eq!(sys.calls(), Vec::<String>::new(), "a file of just now is not in the future");
    }

    #[test]
    fn the_images_date_alone_lifts_a_clock_before_there_are_metadata() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/share/kscratch")).unwrap();
        let file = fs::File::create(root.path().join("usr/share/kscratch/release.json")).unwrap();
        // In 2200: whatever clock runs the test is before that.
        file.set_modified(UNIX_EPOCH + Duration::from_secs(7_258_118_400)).unwrap();
        let sys = Recording::new();
        assert!(lift_to_image(&sys, root.path()).unwrap());
        assert_eq!(sys.calls(), ["clock 7258118400"]);
        let refuses = Recording::new().failing("clock", std::io::ErrorKind::PermissionDenied);
        assert!(lift_to_image(&refuses, root.path()).is_err());
    }
}
