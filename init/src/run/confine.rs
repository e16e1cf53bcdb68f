//! Turns this process into one that may do no more than a service's [`Rights`] say, for good.
//!
//! The calls act on one thread; the process that becomes a service has no other.
use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, remove_capability_from_bounding_set,
    set_capabilities, set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::plan::Rights;

/// Gives up everything else. What was given up comes back by no program that is executed later, not even one that is setuid.
///
/// # Errors
/// The kernel refuses; what the process may do then is not known, and it must not become the service.
pub fn confine(rights: Rights) -> Result<()> {
    let left = rights.capabilities;
    bound(left).context("dropping the capabilities that it shall not have")?;
    // A change from root to another user would take the rest with it, too.
    set_keep_capabilities(true).context("keeping capabilities over the change of user")?;
    let (user, group) = (Uid::from_raw(rights.user), Gid::from_raw(rights.user));
    set_thread_groups(&[]).context("leaving root's groups")?;
    set_thread_res_gid(group, group, group).with_context(|| format!("becoming group {}", rights.user))?;
    set_thread_res_uid(user, user, user).with_context(|| format!("becoming user {}", rights.user))?;
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable: left })
        .with_context(|| format!("taking the capabilities of {rights}"))?;
    // Only ambient ones outlive the execution of a program by a user that is not root (capabilities(7), "Transformation of
    // capabilities during execve()").
    for one in left.iter() {
        configure_capability_in_ambient_set(one, true)
            .with_context(|| format!("handing on the capabilities of {rights}"))?;
    }
    set_no_new_privs(true).context("refusing further privileges")
}

/// Takes all others that the kernel knows out of the bounding set. They are numbered without gaps.
fn bound(left: CapabilitySet) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if left.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            Err(Errno::INVAL) => break,
            done => done?,
        }
    }
    Ok(())
}
