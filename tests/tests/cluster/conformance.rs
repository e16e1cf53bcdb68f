//! Behaviours that upstream's `[Conformance]` suite asks for, offline, with our own image: `cases.rs` says which case each check stands for (A7).
mod cases;
mod interfaces;
mod pods;
mod workloads;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write as _;

use kscratch_tests::cluster::Cluster;
use kscratch_tests::step::step;
use serde_json::{Value, json};

use cases::CASES;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// What is asked of every cluster before this, of this one too.
const ACCEPTED: [&str; 4] = ["pods reach pods", "nodes reach pods", "a port of every node", "the API server's version"];

/// All of it, in three waves: every pod takes its time to start under emulation, and too many at once only wait for one another.
pub fn holds(cluster: &Cluster) {
    let checked = Checked::default();
    ACCEPTED.into_iter().for_each(|what| checked.stands(what));
    step("pods that end", || {
        cluster.apply(&foundations());
        let once = pods::that_end();
        cluster.apply(&once.iter().map(|(_, pod)| pod.clone()).collect::<Vec<_>>());
        once.iter().for_each(|(what, pod)| pods::succeeds(cluster, &checked, what, pod));
    });
    step("pods that stay", || {
        cluster.apply(&pods::that_stay());
        pods::hold(cluster, &checked);
    });
    step("workloads", || {
        cluster.apply(&workloads::objects());
        workloads::hold(cluster, &checked);
    });
    step("names", || interfaces::names(cluster, &checked));
    step("service accounts", || interfaces::service_accounts(cluster, &checked));
    step("API machinery", || interfaces::api_machinery(cluster, &checked));
    step("end of workloads", || workloads::end(cluster, &checked));
    step("kinds", || interfaces::kinds(cluster, &checked));
    pods::never_became_ready(cluster, &checked);
    checked.print();
}

/// The checks that have passed.
#[derive(Default)]
struct Checked(RefCell<BTreeSet<&'static str>>);

impl Checked {
    /// A check has passed; it must be one that stands for a case.
    #[track_caller]
    fn stands(&self, what: &'static str) {
        assert!(CASES.iter().any(|(_, by)| *by == what), "no case says that {what:?} stands for it");
        self.0.borrow_mut().insert(what);
    }

    /// Prints upstream's cases and what stood for each; ends the test where nothing did.
    #[track_caller]
    fn print(&self) {
        let checked = self.0.borrow();
        let mut list = String::new();
        for (case, by) in CASES {
            assert!(checked.contains(by), "{by:?} was not checked, which stands for {case}");
            list.push_str(&format!("{case}\n    by: {by}\n"));
        }
        // As in `step`: the harness keeps to itself what is printed otherwise.
        let _ = write!(std::io::stderr(), "{} cases of upstream's conformance suite:\n{list}", CASES.len());
    }
}

fn get(cluster: &Cluster, path: &str) -> Value {
    let (code, text) = cluster.api().get(path);
    if code == 200 { serde_json::from_str(&text).unwrap_or_default() } else { Value::Null }
}

/// Lays the fields of one object over another's.
fn lay(onto: &mut Value, fields: Value) {
    if let (Some(onto), Value::Object(fields)) = (onto.as_object_mut(), fields) {
        onto.extend(fields);
    }
}

/// A pod that runs the probe once with these arguments; it succeeds or it does not.
fn once(name: &str, arguments: &[&str], spec: Value, container: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "once": name } },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{ "name": "once", "image": "kscratch-probe:test", "imagePullPolicy": "Never", "args": arguments }],
        },
    });
    lay(&mut pod["spec"], spec);
    lay(&mut pod["spec"]["containers"][0], container);
    pod
}

/// What pods refer to.
fn foundations() -> Vec<Value> {
    vec![
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings", "namespace": "default" },
            "data": { "colour": "blue" } }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "word", "namespace": "default" },
            "stringData": { "word": "open" } }),
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "brief" } }),
        json!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "none", "namespace": "brief" },
            "spec": { "hard": { "pods": "1" } } }),
    ]
}
