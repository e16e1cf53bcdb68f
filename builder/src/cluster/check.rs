//! A cluster's folder, and the images of its machines, are held against a table of rules, and its endpoint asked where it answers.
use std::cell::OnceCell;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use kscratch_pki::OffsetDateTime;

use super::folder::Folder;
use endpoint::Answer;
use finished::Finished;

mod endpoint;
mod finished;
mod rules;
mod skew;
mod versions;

/// A folder, images, the time, and what its endpoint says.
struct Subject<'a> {
    folder: &'a Folder,
    now: OffsetDateTime,
    images: Vec<Finished>,
    /// Why some images could not be read.
    unread: Vec<String>,
    /// Asked once. The error is in words: it is told for each rule that needed the answer.
    answer: OnceCell<Result<Answer, String>>,
}

/// What a rule found.
#[derive(Default)]
struct Found {
    /// What breaks the rule, a line each.
    faults: Vec<String>,
    /// What is worth knowing where it holds, such as remaining days.
    note: String,
}

/// One rule.
struct Check {
    /// What holds in a good cluster.
    name: &'static str,
    /// What goes wrong where it does not hold.
    why: &'static str,
    /// Looks. An error means that it could not be found out.
    run: fn(&Subject<'_>) -> Result<Found>,
}

const CHECKS: [Check; 10] = [
    Check {
        name: "settings are sound, ranges apart",
        why: "machines would refuse their metadata",
        run: rules::settings,
    },
    Check { name: "secrets are their owner's alone", why: "who reads them owns the cluster", run: rules::private },
    Check {
        name: "keys fit their certificates",
        why: "masters could not make certificates that anyone believes",
        run: rules::pairs,
    },
    Check {
        name: "authorities last",
        why: "every certificate of the cluster ends with its authority",
        run: rules::authorities,
    },
    Check {
        name: "service account keys are sound",
        why: "pods would be nobody to the API server, and stored secrets unreadable",
        run: rules::keys,
    },
    Check { name: "kubeconfigs are good", why: "people would be refused", run: rules::kubeconfigs },
    Check { name: "a token is good", why: "no new machine could join", run: rules::tokens },
    Check { name: "the endpoint proves itself", why: "nodes and people would refuse it", run: rules::endpoint },
    Check {
        name: "the endpoint's clock is right",
        why: "certificates and tokens would count as ended or not begun",
        run: rules::clock,
    },
    Check {
        name: "versions fit the API server",
        why: "Kubernetes supports no kubelet that is newer than its API server, or four minors older",
        run: versions::running,
    },
];

/// Of these there is nothing to say without images.
const IMAGE_CHECKS: [Check; 2] = [
    Check {
        name: "images hold what they name",
        why: "pods would wait for a registry that may not be there",
        run: versions::closed,
    },
    Check {
        name: "images fit one another",
        why: "Kubernetes supports no kubelet that is newer than its API server, or four minors older",
        run: versions::together,
    },
];

/// How a check of a whole cluster ended.
pub struct Report {
    /// The table, for people.
    pub table: String,
    /// Rules that are broken.
    pub failed: usize,
    /// Rules of which it could not be found out.
    pub unknown: usize,
}

impl Report {
    /// The program's: 0 where all rules hold, 1 where one is broken, 3 where none is known to be but not all could be checked. (2 is for
    /// wrong arguments.)
    pub fn exit_code(&self) -> u8 {
        match (self.failed, self.unknown) {
            (0, 0) => 0,
            (0, _) => 3,
            _ => 1,
        }
    }
}

/// Runs every check; those of images too where some are named.
pub fn cluster(folder: &Folder, images: &[PathBuf], now: OffsetDateTime) -> Report {
    let mut subject = Subject { folder, now, images: Vec::new(), unread: Vec::new(), answer: OnceCell::new() };
    for path in images {
        match finished::read(path) {
            Ok(image) => subject.images.push(image),
            Err(error) => subject.unread.push(format!("{error:#}")),
        }
    }
    let mut report = Report { table: String::new(), failed: 0, unknown: 0 };
    let image_checks: &[Check] = if images.is_empty() { &[] } else { &IMAGE_CHECKS };
    for check in CHECKS.iter().chain(image_checks) {
        let (word, note, lines) = match (check.run)(&subject) {
            Ok(found) if found.faults.is_empty() => ("ok", found.note, Vec::new()),
            Ok(found) => {
                report.failed += 1;
                ("failed", check.why.to_owned(), found.faults)
            }
            Err(error) => {
                report.unknown += 1;
                ("could not check", String::new(), format!("{error:#}").lines().map(str::to_owned).collect())
            }
        };
        let line = format!("{word:15}  {:33}  {note}", check.name);
        let _ = writeln!(report.table, "{}", line.trim_end());
        for line in lines {
            let _ = writeln!(report.table, "                   {line}");
        }
    }
    report
}
