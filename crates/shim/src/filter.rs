//! The filter of system calls that `seccomp: default` puts on a process: what changes the machine rather than the
//! process is refused with `EPERM`, everything else is let through.
//!
//! A list of what is refused, not of what is allowed: programs of every age run under it unchanged, and a call
//! that the kernel learns tomorrow is not refused by accident. It is a second wall behind users and namespaces.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{Failure, Unsatisfiable};

/// `libc` does not name this one for musl's programs of that family, whose kernel has it all the same.
#[cfg(all(target_arch = "aarch64", target_env = "musl"))]
const KEXEC_FILE_LOAD: libc::c_long = 294;
#[cfg(not(all(target_arch = "aarch64", target_env = "musl")))]
const KEXEC_FILE_LOAD: libc::c_long = libc::SYS_kexec_file_load;

/// Refused whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_quotactl,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_lookup_dcookie,
    libc::SYS_io_uring_setup,
    // Keys of the kernel's rings know no namespaces.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_unshare,
    libc::SYS_setns,
    // The machine's clock and name.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];

/// Flags of `clone` that make namespaces.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// The numbers of the same calls in the 32-bit form that 64-bit kernels of that family may know.
#[cfg(target_arch = "x86_64")]
const OTHER_FORM: Option<i64> = Some(0x4000_0000);
#[cfg(not(target_arch = "x86_64"))]
const OTHER_FORM: Option<i64> = None;

/// Puts the filter on this process and on what it becomes.
pub(super) fn apply() -> Result<(), Failure> {
    // The flags of `clone3` lie in memory, which a filter cannot read. Without the call, programs use `clone`.
    let without_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    for (rules, errno) in [(without_clone3, libc::ENOSYS), (refused()?, libc::EPERM)] {
        let program = compile(rules, errno)?;
        seccompiler::apply_filter(&program).map_err(failed)?;
    }
    Ok(())
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, Failure> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    let refusal = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch).map_err(failed)?;
    filter.try_into().map_err(failed)
}

fn refused() -> Result<BTreeMap<i64, Vec<SeccompRule>>, Failure> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    let mut of_clone = Vec::new();
    for flag in NAMESPACES {
        let flag = u64::from(flag.unsigned_abs());
        let has_flag = SeccompCondition::new(
            0,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::MaskedEq(flag),
            flag,
        );
        let rule = has_flag.and_then(|condition| SeccompRule::new(vec![condition]));
        of_clone.push(rule.map_err(failed)?);
    }
    rules.insert(libc::SYS_clone, of_clone);
    if let Some(offset) = OTHER_FORM {
        let other: Vec<_> = rules
            .iter()
            .map(|(call, rules)| (call + offset, rules.clone()))
            .collect();
        rules.extend(other);
    }
    Ok(rules)
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Unsatisfiable {
        code: Unsatisfiable::SeccompRefused,
        message: format!("system calls cannot be filtered here: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_knows_every_form_of_a_call() {
        let rules = refused().unwrap();
        assert!(rules.contains_key(&libc::SYS_mount));
        if let Some(offset) = OTHER_FORM {
            assert!(rules.contains_key(&(libc::SYS_mount + offset)));
        }
        assert_eq!(rules[&libc::SYS_clone].len(), NAMESPACES.len());
        assert!(!compile(rules, libc::EPERM).unwrap().is_empty());
    }
}
