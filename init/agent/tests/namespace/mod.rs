//! A network of a test's own for programs that also leave files in `/run`.
pub use kscratch_namespace::run;

/// Runs the test again in a network of its own, with an empty `/run`, and its body there.
#[track_caller]
pub fn of_its_own(name: &str, body: impl FnOnce()) {
    kscratch_namespace::of_its_own(name, || {
        run("mount -t tmpfs tmpfs /run");
        run("ip link set lo up");
        body();
    });
}
