//! How many connections the system allows, each with a descriptor and a thread.

use std::fs;

/// The most connections by default.
pub(super) const MOST: usize = 10_000;
/// The most on a system that does not say what it allows.
const UNKNOWN: usize = 1000;
/// Mappings of a thread: its stack and its signal stack, each with a guard page. std ends the process where there is none
/// left for the signal stack.
const MAPPINGS: usize = 4;
/// Bytes of address space of a thread besides its stack.
const SIGNAL_STACK: usize = 64 * 1024;
/// What is left to the rest of the program, at most: descriptors, threads, and mappings.
const RESERVE: usize = 64;

/// The most connections that the limits of the process and of the system allow: by descriptors, mappings, threads and
/// address space. At least one.
pub(super) fn of_system(stack_size: usize) -> usize {
    let Ok(limits) = fs::read_to_string("/proc/self/limits") else {
        return UNKNOWN;
    };
    let descriptors =
        limit(&limits, "Max open files").map(|most| most.saturating_sub(open_descriptors()));
    let mappings = number("/proc/sys/vm/max_map_count");
    let mappings = mappings.map(|most| most.saturating_sub(mapped()) / MAPPINGS);
    let address_space = limit(&limits, "Max address space");
    // Half of it: heaps reserve more than they use.
    let address_space =
        address_space.map(|most| most / 2 / stack_size.saturating_add(SIGNAL_STACK));
    // Others have threads, too.
    let threads = [
        limit(&limits, "Max processes"),
        number("/proc/sys/kernel/threads-max"),
        number("/proc/sys/kernel/pid_max"),
        pids_of_cgroup(),
    ];
    let threads = threads.into_iter().flatten().min().map(|most| most / 4 * 3);
    let least = [descriptors, mappings, address_space, threads]
        .into_iter()
        .flatten()
        .min();
    let least = least.unwrap_or(UNKNOWN);
    (least - RESERVE.min(least / 4)).max(1)
}

/// The soft limit of this name in the table of `/proc/self/limits`, unless there is none.
fn limit(limits: &str, name: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn number(path: &str) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn mapped() -> usize {
    fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count())
}

/// The limit of threads of this process's control group (cgroup v2).
fn pids_of_cgroup() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    number(&format!("/sys/fs/cgroup{group}/pids.max"))
}
