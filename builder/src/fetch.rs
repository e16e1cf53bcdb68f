//! A [`Lock`] becomes files in the store: four downloads at a time, each verified before it has a name.
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

use crate::console::{Console, Hint};
use crate::debian::mirror::Mirrors;
use crate::http::{Http, Other};
use crate::lock::{Artifact, Lock, Origin};
use crate::store::{Digest, Store};

/// Downloads at a time: enough to hide latency, few enough to be no burden for a mirror.
const AT_ONCE: usize = 4;

/// Runs the same work on several threads and gives back the first error.
pub(crate) fn in_parallel(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        // All are waited for: a thread that is left behind would go on writing.
        let mut result = Ok(());
        for thread in started {
            let ended = thread.join().unwrap_or_else(|_| Err(anyhow!("a thread of this program panicked")));
            result = result.and(ended);
        }
        result
    })
}

/// The Debian packages and tarballs of a lock that the store lacks, with digest and size. What is compiled or local is not fetched.
pub fn missing<'a>(lock: &'a Lock, store: &Store) -> Vec<(&'a Artifact, Digest, u64)> {
    let fetched = lock
        .artifacts
        .iter()
        .filter(|artifact| matches!(artifact.origin, Origin::DebianPackage { .. } | Origin::Tarball { .. }));
    // The parts of a Kubernetes release are of one tarball.
    let mut seen = BTreeSet::new();
    fetched
        .filter_map(|artifact| Some((artifact, artifact.sha256?, artifact.size?)))
        .filter(|(_, digest, _)| !store.has(digest) && seen.insert(*digest))
        .collect()
}

/// Refuses to go on without the network if the store lacks something, naming it.
pub fn offline(lock: &Lock, store: &Store) -> Result<()> {
    let missing = missing(lock, store);
    let Some((artifact, digest, _)) = missing.first() else { return Ok(()) };
    let others = match missing.len() - 1 {
        0 => String::new(),
        count => format!(" and {count} other artifacts"),
    };
    Err(anyhow!("the store {} has no file with the digest {digest}", store.root().display())
        .context(Hint("the same command without --offline fetches it".into()))
        .context(format!("{} {} is missing{others}, and the network may not be used", artifact.name, artifact.version)))
}

/// Fetches what the store lacks. Tells how many artifacts and bytes that were.
pub fn all(lock: &Lock, store: &Store, mirrors: &Mirrors, http: &Http, console: &Console) -> Result<(usize, u64)> {
    // Archives drop superseded packages after a while.
    let hint = |name: &str| format!("if the archive has a newer version by now: kscratch-image lock --update {name}");
    each(lock, store, mirrors, http, console, &hint)
}

/// [`all`] for a lock that was made a moment ago and is in no file: there is nothing that its user could bring up to date.
pub fn just_resolved(
    lock: &Lock,
    store: &Store,
    mirrors: &Mirrors,
    http: &Http,
    console: &Console,
) -> Result<(usize, u64)> {
    let hint = |_: &str| "the mirror is being updated, or is broken: try again in a while".to_owned();
    each(lock, store, mirrors, http, console, &hint)
}

/// What helps where the server has another file than the lock, or none, by the artifact's name.
type HintFor<'a> = &'a (dyn Fn(&str) -> String + Sync);

fn each(
    lock: &Lock,
    store: &Store,
    mirrors: &Mirrors,
    http: &Http,
    console: &Console,
    hint: HintFor<'_>,
) -> Result<(usize, u64)> {
    let mut wanted = missing(lock, store);
    // The largest first: the last ones to finish are small.
    wanted.sort_by_key(|(_, _, size)| std::cmp::Reverse(*size));
    let total = wanted.iter().map(|(_, _, size)| size).sum();
    if wanted.is_empty() {
        return Ok((0, 0));
    }
    let progress = Mutex::new(console.bytes(&format!("fetching {} artifacts", wanted.len()), total));
    let next = AtomicUsize::new(0);
    in_parallel(AT_ONCE.min(wanted.len()), || {
        while let Some((artifact, digest, size)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let told = &mut |bytes| progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).add(bytes);
            if let Err(error) = one(artifact, digest, *size, store, mirrors, http, told) {
                next.store(wanted.len(), Ordering::Relaxed);
                let error =
                    if error.root_cause().is::<Other>() { error.context(Hint(hint(&artifact.name))) } else { error };
                return Err(error.context(format!("fetching {} {}", artifact.name, artifact.version)));
            }
            console.detail(format_args!("fetched {} {}", artifact.name, artifact.version));
        }
        Ok(())
    })?;
    Ok((wanted.len(), total))
}

fn one(
    artifact: &Artifact,
    digest: &Digest,
    size: u64,
    store: &Store,
    mirrors: &Mirrors,
    http: &Http,
    told: &mut dyn FnMut(u64),
) -> Result<()> {
    let url = match &artifact.origin {
        Origin::DebianPackage { archive, path } => format!("{}/{path}", mirrors.base(*archive)?),
        Origin::Tarball { url, .. } => url.clone(),
        Origin::GoBuild { .. } | Origin::LocalFile { .. } => return Ok(()),
    };
    let part = store.part(digest);
    http.download(&url, &part, size, digest, told)?;
    store.publish(&part, digest)
}
