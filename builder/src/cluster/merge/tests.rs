//! Tables of kubeconfigs before and after a cluster was put into them and taken out again.
use expect_test::{Expect, expect};

use super::{Addition, merged, without};
use crate::console::error_lines;

const LAB: Addition<'_> = Addition { name: "lab", folder: "/home/me/lab" };

/// As `cluster new` writes it.
const OWN: &str = "apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster: {server: 'https://192.168.7.10:6443', certificate-authority-data: Q0E=}
users:
- name: kubernetes-admin
  user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
contexts:
- name: kubernetes-admin@lab
  context: {cluster: lab, user: kubernetes-admin}
current-context: kubernetes-admin@lab
";

/// As kubectl writes it after `kubectl config set-...`, with what it has no fields for here.
const WORK: &str = r#"apiVersion: v1
clusters:
- cluster:
    certificate-authority: /home/me/work.crt
    extensions:
    - extension:
        last-update: Tue, 24 Nov 2026 10:00:00 UTC
        version: v1.38.1
      name: cluster_info
    server: https://work.example:443
    tls-server-name: "no"
  name: work
contexts:
- context:
    cluster: work
    namespace: "1e3"
    user: me
  name: work
current-context: work
kind: Config
preferences:
  colors: true
users:
- name: me
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      args:
      - token
      - --cluster
      - "0123"
      command: work-login
      env: null
      interactiveMode: IfAvailable
      provideClusterInfo: false
"#;

#[track_caller]
fn check(before: &str, want: &Expect) -> String {
    let text = merged(before, LAB, OWN, false).unwrap();
    want.assert_eq(&text);
    text
}

#[track_caller]
fn refused(before: &str, want: &[&str]) {
    let said = error_lines(&merged(before, LAB, OWN, false).unwrap_err());
    assert_eq!(said, want, "{before}");
}

#[test]
fn into_nothing_comes_a_whole_kubeconfig() {
    let want = expect![[r#"
        apiVersion: v1
        clusters:
        - cluster:
            certificate-authority-data: Q0E=
            extensions:
            - extension:
                folder: /home/me/lab
              name: kscratch
            server: https://192.168.7.10:6443
          name: lab
        contexts:
        - context:
            cluster: lab
            extensions:
            - extension:
                folder: /home/me/lab
              name: kscratch
            user: lab
          name: lab
        current-context: lab
        kind: Config
        users:
        - name: lab
          user:
            client-certificate-data: Q0VSVA==
            client-key-data: S0VZ
            extensions:
            - extension:
                folder: /home/me/lab
              name: kscratch
    "#]];
    let text = check("", &want);
    // The second time nothing changes.
    assert_eq!(merged(&text, LAB, OWN, false).unwrap(), text);
    // As kubectl leaves a kubeconfig from which all was deleted.
    let empty = "apiVersion: v1\nclusters: null\ncontexts: null\ncurrent-context: \"\"\nkind: Config\nusers: null\n";
    for before in ["# nothing yet\n", "{}", empty] {
        assert_eq!(merged(before, LAB, OWN, false).unwrap(), text, "{before}");
    }
    let (left, names) = without(&text, LAB.folder).unwrap().unwrap();
    assert_eq!(names, ["lab"]);
    assert_eq!(merged(&left, LAB, OWN, false).unwrap(), text);
    expect![[r#"
        apiVersion: v1
        clusters: []
        contexts: []
        current-context: ""
        kind: Config
        users: []
    "#]]
    .assert_eq(&left);
}

#[test]
fn what_others_have_in_it_stays() {
    let text = check(
        WORK,
        &expect![[r#"
        apiVersion: v1
        clusters:
        - cluster:
            certificate-authority: /home/me/work.crt
            extensions:
            - extension:
                last-update: Tue, 24 Nov 2026 10:00:00 UTC
                version: v1.38.1
              name: cluster_info
            server: https://work.example:443
            tls-server-name: "no"
          name: work
        - cluster:
            certificate-authority-data: Q0E=
            extensions:
            - extension:
                folder: /home/me/lab
              name: kscratch
            server: https://192.168.7.10:6443
          name: lab
        contexts:
        - context:
            cluster: work
            namespace: "1e3"
            user: me
          name: work
        - context:
            cluster: lab
            extensions:
            - extension:
                folder: /home/me/lab
              name: kscratch
            user: lab
          name: lab
        current-context: work
        kind: Config
        preferences:
          colors: true
        users:
        - name: me
          user:
            exec:
              apiVersion: client.authentication.k8s.io/v1
              args:
              - token
              - --cluster
              - "0123"
              command: work-login
              env: null
              interactiveMode: IfAvailable
              provideClusterInfo: false
        - name: lab
          user:
            client-certificate-data: Q0VSVA==
            client-key-data: S0VZ
            extensions:
            - extension:
                folder: /home/me/lab
              name: kscratch
    "#]],
    );
    let (left, names) = without(&text, LAB.folder).unwrap().unwrap();
    assert_eq!((left.as_str(), names), (merged_and_back(WORK).as_str(), vec!["lab".to_owned()]));
    assert_eq!(without(&text, "/home/me/other").unwrap(), None);
    assert_eq!(without(WORK, LAB.folder).unwrap(), None);
}

/// The text as it is written here: the same values, which is what counts.
fn merged_and_back(text: &str) -> String {
    let value: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    super::text(value.as_object().unwrap().clone()).unwrap()
}

#[test]
fn own_entries_are_made_anew_where_they_stand() {
    let before = merged(WORK, LAB, OWN, false).unwrap();
    let after = merged(&before, LAB, &OWN.replace("S0VZ", "TkVX").replace("6443", "6444"), false).unwrap();
    assert_eq!(after, before.replace("S0VZ", "TkVX").replace("6443", "6444"));
    // The context's namespace is the user's choice.
    let chosen = before.replace("    user: lab\n", "    namespace: web\n    user: lab\n");
    assert_ne!(chosen, before);
    assert_eq!(merged(&chosen, LAB, OWN, false).unwrap(), chosen);
    // A second context of the same cluster is another entry.
    let second = merged(&after, Addition { name: "second", ..LAB }, OWN, false).unwrap();
    let (left, names) = without(&second, LAB.folder).unwrap().unwrap();
    assert_eq!(names, ["lab", "second"]);
    assert_eq!(left, merged_and_back(WORK));
}

#[test]
fn a_context_that_was_chosen_stays_and_one_that_goes_is_chosen_no_more() {
    let chosen =
        |text: &str| text.lines().find_map(|line| line.strip_prefix("current-context: ")).unwrap_or("none").to_owned();
    assert_eq!(chosen(&merged("", LAB, OWN, false).unwrap()), "lab");
    assert_eq!(chosen(&merged(WORK, LAB, OWN, false).unwrap()), "work");
    // Another file that kubectl reads with it may choose.
    assert_eq!(chosen(&merged("", LAB, OWN, true).unwrap()), "none");
    let unchosen = WORK.replace("current-context: work\n", "");
    assert_eq!(chosen(&merged(&unchosen, LAB, OWN, false).unwrap()), "lab");
    let ours = merged(&unchosen, LAB, OWN, false).unwrap();
    assert_eq!(chosen(&without(&ours, LAB.folder).unwrap().unwrap().0), "\"\"");
}

#[test]
fn what_somebody_else_made_is_not_replaced() {
    let hint = "hint: --context OTHER takes another name for context, cluster and user";
    for (before, what) in [
        ("clusters: [{name: lab, cluster: {server: 'https://a'}}]", "cluster"),
        ("users: [{name: lab, user: {token: a}}]", "user"),
        ("contexts: [{name: lab, context: {cluster: a, user: a}}]", "context"),
    ] {
        refused(
            before,
            &[&format!("error: it has a {what} lab already, and kscratch-image did not put it there"), hint],
        );
    }
    let elsewhere = merged("", Addition { folder: "/srv/lab", ..LAB }, OWN, false).unwrap();
    refused(&elsewhere, &["error: it has a cluster lab already, and it belongs to the cluster in /srv/lab", hint]);
    let named = merged(&elsewhere, Addition { name: "mine", ..LAB }, OWN, false).unwrap();
    assert_eq!(without(&named, "/srv/lab").unwrap().unwrap().1, ["lab"]);
}

#[test]
fn what_is_no_kubeconfig_is_not_touched() {
    refused("- a\n- b\n", &["error: it is no kubeconfig"]);
    refused("kind: Pod", &["error: it is no kubeconfig: its kind is \"Pod\", not Config"]);
    refused("apiVersion: v2", &["error: it is no kubeconfig: its apiVersion is \"v2\", not v1"]);
    refused("clusters: {lab: 1}", &["error: it is no kubeconfig: its clusters are no list"]);
    assert!(merged("a: [", LAB, OWN, false).is_err());
    assert!(merged("kind: Config\nkind: Config\n", LAB, OWN, false).is_err());
    let error = merged("", LAB, "kind: Config", false).unwrap_err().to_string();
    assert_eq!(error, "the cluster's own kubeconfig has no /clusters/0/cluster");
}
