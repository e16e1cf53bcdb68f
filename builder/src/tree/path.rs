//! A path of the root, or a link's target, becomes the path where things really stand.

/// The directories of the root that are links into `/usr`, as in Debian.
pub const USR_MERGED: [(&str, &str); 4] =
    [("/bin", "usr/bin"), ("/lib", "usr/lib"), ("/lib64", "usr/lib64"), ("/sbin", "usr/sbin")];

/// The path below `/usr` where a file of a merged directory really stands: `/lib64/x` is `/usr/lib64/x`.
pub fn usr_merged(path: &str) -> String {
    let first_end = path.get(1..).and_then(|rest| rest.find('/')).map_or(path.len(), |at| at + 1);
    let (first, rest) = path.split_at(first_end);
    match USR_MERGED.iter().find(|(link, _)| *link == first) {
        Some((_, target)) if !rest.is_empty() => format!("/{target}{rest}"),
        _ => path.to_owned(),
    }
}

/// The directory that holds `path`; `None` for the root.
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/') {
        _ if path == "/" => None,
        Some(0) => Some("/"),
        Some(at) => Some(&path[..at]),
        None => None,
    }
}

/// Follows `..` and `.` of `target`, a link that stands at `link`, to an absolute path. What climbs above the root stays there, as
/// in the kernel (path_resolution(7)).
pub fn link_target(link: &str, target: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    if !target.starts_with('/') {
        parts.extend(parent(link).unwrap_or("/").split('/').filter(|part| !part.is_empty()));
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::link_target;

    #[track_caller]
    fn check_target(link: &str, target: &str, want: &str) {
        assert_eq!(link_target(link, target), want);
    }

    #[test]
    fn links_are_followed_as_the_kernel_does() {
        check_target("/usr/lib/x86_64-linux-gnu/libc.so", "libc.so.6", "/usr/lib/x86_64-linux-gnu/libc.so.6");
        check_target("/usr/lib64/ld.so", "../lib/x86_64-linux-gnu/ld.so", "/usr/lib/x86_64-linux-gnu/ld.so");
        check_target("/a", "../../b", "/b");
        check_target("/a/b", "/c/./d//e", "/c/d/e");
    }
}
