//! How many connections the system allows, each with a descriptor and a thread.

use std::fs;

/// The most connections by default.
const MOST: usize = 10_000;
/// The most on a system that does not say what it allows.
const UNKNOWN: usize = 1000;
/// Mappings of a thread: its stack and its signal stack, each with a guard page. std ends the process where there is none
/// left for the signal stack.
const MAPPINGS: usize = 4;
/// Bytes of address space of a thread besides its stack.
const SIGNAL_STACK: usize = 64 * 1024;
/// What is left to the rest of the program, at most: descriptors, threads, and mappings.
const RESERVE: usize = 64;

/// The most connections: the setting, or its default, as far as the system allows it.
pub(super) fn max_connections(setting: Option<usize>, stack_size: usize) -> usize {
    let allowed = of_system(stack_size);
    if let Some(max) = setting.filter(|max| *max > allowed) {
        log::warn!("max_connections is {max}, and the system allows {allowed}: that is the limit");
    }
    setting.unwrap_or(MOST).min(allowed)
}

/// The most connections that the limits of the process and of the system allow, at least one.
fn of_system(stack_size: usize) -> usize {
    let Ok(limits) = fs::read_to_string("/proc/self/limits") else {
        return UNKNOWN;
    };
    // The soft limit; `None` for `unlimited`.
    let limit = |name: &str| -> Option<usize> {
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let mapped = fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count());
    let threads = [
        limit("Max processes"),
        number("/proc/sys/kernel/threads-max"),
        number("/proc/sys/kernel/pid_max"),
        pids_of_cgroup(),
    ];
    let least = [
        limit("Max open files").map(|most| most.saturating_sub(open)),
        number("/proc/sys/vm/max_map_count").map(|most| most.saturating_sub(mapped) / MAPPINGS),
        // Half of it: heaps reserve more than they use.
        limit("Max address space").map(|most| most / 2 / stack_size.saturating_add(SIGNAL_STACK)),
        // Three quarters: other programs have threads, too.
        threads.into_iter().flatten().min().map(|most| most / 4 * 3),
    ];
    let least = least.into_iter().flatten().min().unwrap_or(UNKNOWN);
    (least - RESERVE.min(least / 4)).max(1)
}

fn number(path: &str) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The limit of threads of this process's control group (cgroup v2).
fn pids_of_cgroup() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    number(&format!("/sys/fs/cgroup{group}/pids.max"))
}
