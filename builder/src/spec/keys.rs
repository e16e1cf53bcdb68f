//! The keys that an `image.toml` may have, section by section, turn a typing error into its line and the key that was meant.

/// Sections (`""` the top level) and their keys. A test holds this against the types.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "version",
            "drop",
            "debian",
            "kernel",
            "hardware",
            "boot",
            "kubernetes",
            "cri_dockerd",
            "etcd",
            "coredns",
            "disk",
            "images",
            "manifests",
            "overlays",
            "program",
            "file",
            "bundle",
        ],
    ),
    ("debian", &["suite", "updates", "security", "mirror", "security_mirror", "components", "keyring", "packages"]),
    ("kernel", &["flavour", "console", "cmdline", "modules", "initramfs", "netboot", "load"]),
    ("hardware", &["storage", "usb", "network", "console", "firmware", "microcode"]),
    ("boot", &["stub_package", "stub"]),
    ("kubernetes", &["version", "source"]),
    ("cri_dockerd", &["version", "source"]),
    ("etcd", &["version"]),
    ("coredns", &["version"]),
    ("disk", &["esp", "root", "state", "sector_size"]),
    ("images", &["load"]),
    ("manifests", &["files"]),
    ("overlays", &["folders"]),
    ("program", &["package", "path", "as", "links", "roles"]),
    ("file", &["package", "path", "as", "roles"]),
    ("bundle", &["package", "path", "as", "roles"]),
];

/// The keys of a section.
pub(super) fn of(section: &str) -> &'static [&'static str] {
    KEYS.iter().find(|(name, _)| *name == section).map_or(&[], |(_, keys)| keys)
}

/// The key of `known` that `typed` was most likely meant to be.
pub(super) fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, key) = known.iter().map(|key| (distance(typed, key), *key)).min()?;
    (distance <= 1 + typed.len() / 4).then_some(key)
}

/// Levenshtein's distance, in letters, `-` and `_` being one letter.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| text.to_ascii_lowercase().replace('-', "_").into_bytes();
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
