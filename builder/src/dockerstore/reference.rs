//! The name of an image, however short it is written, becomes the one long form that docker means by it.

/// Docker's own form (distribution/reference, `ParseNormalizedNamed` and `TagNameOnly`): `nginx` is `docker.io/library/nginx:latest`.
pub fn normal(reference: &str) -> String {
    let first = reference.split_once('/').map_or("", |(first, _)| first);
    let registry = first == "localhost" || first.contains(['.', ':']);
    let path = match reference.strip_prefix("index.docker.io/").or_else(|| reference.strip_prefix("docker.io/")) {
        Some(path) => path,
        None if registry => return tagged(reference.to_owned()),
        None => reference,
    };
    tagged(if path.contains('/') { format!("docker.io/{path}") } else { format!("docker.io/library/{path}") })
}

fn tagged(name: String) -> String {
    if tag(&name).is_some() || name.contains('@') { name } else { format!("{name}:latest") }
}

/// The tag: behind the last colon, unless that is the port of a registry.
fn tag(reference: &str) -> Option<&str> {
    let name = reference.split('@').next().unwrap_or(reference);
    name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.contains('/'))
}

/// Whether kubelet asks a registry for the image at every start, though it is there (Kubernetes API, `imagePullPolicy`).
pub fn pulled_always(reference: &str, policy: Option<&str>) -> bool {
    match policy {
        Some(policy) => policy == "Always",
        None => !reference.contains('@') && matches!(tag(reference), None | Some("latest")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_dockers() {
        for (short, long) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1", "docker.io/library/nginx:1"),
            ("docker.io/nginx:1", "docker.io/library/nginx:1"),
            ("index.docker.io/library/nginx:1", "docker.io/library/nginx:1"),
            ("a/b", "docker.io/a/b:latest"),
            ("localhost/b:1", "localhost/b:1"),
            ("registry.k8s.io/etcd:3.7.3-0", "registry.k8s.io/etcd:3.7.3-0"),
            ("registry.example:5000/x", "registry.example:5000/x:latest"),
            ("x@sha256:00", "docker.io/library/x@sha256:00"),
        ] {
            assert_eq!(normal(short), long);
            assert_eq!(normal(long), long);
        }
    }

    #[test]
    fn without_a_tag_a_registry_is_asked_every_time() {
        for (reference, policy, always) in [
            ("x", None, true),
            ("x:latest", None, true),
            ("r.example:5000/x", None, true),
            ("x:1", None, false),
            ("x@sha256:00", None, false),
            ("x", Some("IfNotPresent"), false),
            ("x:1", Some("Always"), true),
        ] {
            assert_eq!(pulled_always(reference, policy), always, "{reference} {policy:?}");
        }
    }
}
