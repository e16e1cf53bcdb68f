//! The machine's apt configuration (or what the user says instead) becomes [`Mirrors`]: where Debian's archives are.
//!
//! No mirror is named in this program: a machine that can install packages has one configured, often one of its own network.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use deb822_fast::Deb822;

use crate::console::Hint;
use crate::lock::Archive;
use crate::spec::Debian;

/// Base URLs, without a trailing slash. The scheme is the one that apt uses: with plain HTTP, the chain of signature and digests
/// covers every byte just as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// The archive of releases.
    pub main: String,
    /// The archive of security updates.
    pub security: Option<String>,
}

/// One archive of the apt configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: String,
}

/// Names of Debian's releases; other projects' suites on the same machine are named otherwise, or have no `main`.
const RELEASES: [&str; 14] = [
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "stretch",
    "jessie",
];

impl Mirrors {
    /// The mirrors that the spec names, completed by those of the apt configuration in `apt` (`/etc/apt`).
    pub fn find(spec: &Debian, apt: &Path) -> Result<Mirrors> {
        let configured = if spec.mirror.is_some() && (spec.security_mirror.is_some() || !spec.security) {
            Vec::new()
        } else {
            sources(apt)?
        };
        let main = match &spec.mirror {
            Some(url) => trimmed(url),
            None => best(&configured, is_main)
                .ok_or_else(|| missing("archive", apt, "mirror", "--debian-mirror URL, or "))?,
        };
        if !spec.security {
            return Ok(Mirrors { main, security: None });
        }
        let security = match (&spec.security_mirror, &spec.mirror) {
            (Some(url), _) => trimmed(url),
            // A mirror that the user names for one archive has, by Debian's custom, the other one beside it.
            (None, Some(url)) if trimmed(url).ends_with("/debian") => format!("{}-security", trimmed(url)),
            _ => best(&configured, is_security)
                .ok_or_else(|| missing("security archive", apt, "security_mirror", "`security = false`, or "))?,
        };
        Ok(Mirrors { main, security: Some(security) })
    }

    /// The base URL of an archive.
    pub fn base(&self, archive: Archive) -> Result<&str> {
        match archive {
            Archive::Main => Ok(&self.main),
            Archive::Security => self
                .security
                .as_deref()
                .context("the lock names the security archive, but [debian] has `security = false`"),
        }
    }
}

fn trimmed(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

fn missing(what: &str, apt: &Path, key: &str, other: &str) -> anyhow::Error {
    anyhow!("no Debian {what} in the apt configuration under {}", apt.display())
        .context(Hint(format!("give {other}`{key} = \"URL\"` under [debian] in image.toml")))
        .context(format!("looking for a Debian {what}"))
}

/// The source that is most surely Debian's own, as other projects may use Debian's suite names too.
fn best(sources: &[Source], wanted: fn(&str) -> bool) -> Option<String> {
    let fits = |source: &&Source| {
        source.suites.iter().any(|suite| wanted(suite)) && source.components.iter().any(|name| name == "main")
    };
    let rank = |source: &&Source| {
        let path = source.uri.trim_end_matches('/');
        let named = path.ends_with("/debian") || path.ends_with("/debian-security");
        (source.signed_by.contains("debian-archive"), named)
    };
    // `max_by_key` prefers the last of equals, apt the first.
    sources.iter().rev().filter(fits).max_by_key(rank).map(|source| trimmed(&source.uri))
}

fn is_main(suite: &str) -> bool {
    let name = suite.strip_suffix("-updates").unwrap_or(suite);
    RELEASES.contains(&name)
}

fn is_security(suite: &str) -> bool {
    let name = suite.strip_suffix("-security").or_else(|| suite.strip_suffix("/updates"));
    name.is_some_and(|name| RELEASES.contains(&name))
}

/// Every enabled binary source, in apt's order: sources.list, then the files of sources.list.d by name (sources.list(5)).
fn sources(apt: &Path) -> Result<Vec<Source>> {
    let mut files: Vec<PathBuf> = vec![apt.join("sources.list")];
    let folder = apt.join("sources.list.d");
    if folder.is_dir() {
        let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        found.sort();
        files.extend(found);
    }
    let mut sources = Vec::new();
    for file in files {
        let read = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => one_line as fn(&str) -> Vec<Source>,
            Some("sources") => deb822,
            _ => continue,
        };
        match fs::read(&file) {
            Ok(text) => sources.extend(read(&String::from_utf8_lossy(&text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
        }
    }
    for source in &mut sources {
        if let Some(list) = source.uri.strip_prefix("mirror+file:") {
            // Cloud images name a file with mirrors, the preferred one first (apt-transport-mirror(1)).
            let text = fs::read_to_string(list).unwrap_or_default();
            let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
            source.uri = first.and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned();
        }
    }
    sources.retain(|source| source.uri.starts_with("http://") || source.uri.starts_with("https://"));
    Ok(sources)
}

/// `deb [options] URI SUITE COMPONENT...`
fn one_line(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t', '['])) else { continue };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        let signed_by =
            options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")).unwrap_or_default();
        sources.push(Source { uri, suites: vec![suite], components: words.collect(), signed_by: signed_by.to_owned() });
    }
    sources
}

/// Stanzas of `Types`, `URIs`, `Suites`, `Components`.
fn deb822(text: &str) -> Vec<Source> {
    // Commented-out lines may stand within a stanza, which the format's library takes for its end.
    let plain: String = text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    let Ok(stanzas) = plain.parse::<Deb822>() else { return Vec::new() };
    let mut sources = Vec::new();
    for stanza in stanzas.iter() {
        let words = |name: &str| -> Vec<String> {
            stanza.get(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        let enabled = !matches!(stanza.get("Enabled").map(str::trim), Some("no" | "false" | "off" | "0"));
        if !enabled || !words("Types").iter().any(|name| name == "deb") {
            continue;
        }
        for uri in words("URIs") {
            let signed_by = stanza.get("Signed-By").unwrap_or_default().to_owned();
            sources.push(Source { uri, suites: words("Suites"), components: words("Components"), signed_by });
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::Mirrors;
    use crate::spec::{Debian, ImageSpec};

    fn spec() -> Debian {
        ImageSpec::defaults().unwrap().debian
    }

    #[track_caller]
    fn check(files: &[(&str, &str)], spec: &Debian, want: Result<(&str, Option<&str>), &str>) {
        let apt = tempfile::tempdir().unwrap();
        std::fs::create_dir(apt.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            std::fs::write(apt.path().join(name), text).unwrap();
        }
        let got = Mirrors::find(spec, apt.path()).map_err(|error| format!("{error:#}"));
        match want {
            Ok((main, security)) => {
                assert_eq!(got.unwrap(), Mirrors { main: main.to_owned(), security: security.map(str::to_owned) });
            }
            Err(part) => assert!(got.as_ref().is_err_and(|error| error.contains(part)), "{got:?}"),
        }
    }

    const DEB822: &str = "Types: deb deb-src\n# a note\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
        Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\nTypes: deb\n\
        URIs: http://mirror.example/debian-security/\nSuites: bookworm-security\nComponents: main\n";

    #[test]
    fn both_forms_of_apt_configuration() {
        let both = Ok(("http://mirror.example/debian", Some("http://mirror.example/debian-security")));
        check(&[("sources.list.d/debian.sources", DEB822)], &spec(), both);
        let lines = "# deb http://old.example/debian bookworm main\ndeb-src http://mirror.example/debian bookworm main\n\
            deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib # comment\n\
            deb http://mirror.example/debian-security bookworm-security main\n";
        check(&[("sources.list", lines)], &spec(), both);
    }

    #[test]
    fn other_projects_are_told_apart() {
        let others = "deb https://packages.example/debian/12/prod bookworm main\ndeb https://node.example/node nodistro main\n\
            deb https://docker.example/linux/debian bookworm stable\n";
        let files = [("sources.list.d/a.list", others), ("sources.list.d/debian.sources", DEB822)];
        check(&files, &spec(), Ok(("http://mirror.example/debian", Some("http://mirror.example/debian-security"))));
        check(
            &[("sources.list.d/a.list.disabled", DEB822)],
            &spec(),
            Err("no Debian archive in the apt configuration"),
        );
        let disabled = DEB822.replace("Types: deb", "Enabled: no\nTypes: deb");
        check(
            &[("sources.list.d/debian.sources", &disabled)],
            &spec(),
            Err("hint: give --debian-mirror URL, or `mirror"),
        );
    }

    #[test]
    fn what_the_user_says_goes_first() {
        let named = Debian { mirror: Some("https://near.example/debian/".into()), ..spec() };
        check(&[], &named, Ok(("https://near.example/debian", Some("https://near.example/debian-security"))));
        let odd = Debian { mirror: Some("https://near.example/deb".into()), ..spec() };
        check(&[], &odd, Err("no Debian security archive"));
        check(&[], &Debian { security: false, ..odd.clone() }, Ok(("https://near.example/deb", None)));
        check(
            &[],
            &Debian { security_mirror: Some("http://s".into()), ..odd },
            Ok(("https://near.example/deb", Some("http://s"))),
        );
    }

    #[test]
    fn a_file_of_mirrors() {
        let list = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(list.path(), "# near\nhttps://near.example/debian\thost\nhttps://far.example/debian\n").unwrap();
        let text =
            DEB822.replace("http://mirror.example/debian\n", &format!("mirror+file:{}\n", list.path().display()));
        let both = Ok(("https://near.example/debian", Some("http://mirror.example/debian-security")));
        check(&[("sources.list.d/debian.sources", &text)], &spec(), both);
    }
}
