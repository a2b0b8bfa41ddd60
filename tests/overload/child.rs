//! A server in a process of its own, whose threads and descriptors can be counted and limited.
#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use long_polling::server::{Fallback, Request, Response};
use long_polling::{Broker, Server};

use crate::process;
use crate::support::{Connection, info};

/// What the process is limited to.
pub(crate) enum Limit {
    None,
    /// Descriptors.
    Descriptors(u32),
    /// Threads, in addition to those that the user has already.
    Threads(u32),
    /// Kilobytes of address space.
    Memory(u32),
}

pub(crate) struct Process {
    process: process::Process,
    pub(crate) address: SocketAddr,
    /// The program, where others may run it.
    _program: tempfile::TempDir,
}

/// Milliseconds of idle timeout and of write timeout.
pub(crate) struct Timeouts(pub(crate) u64, pub(crate) u64);

impl Process {
    /// Starts the test `serve_as_a_process` of this program in a process with this limit.
    pub(crate) fn start(limit: &Limit, timeouts: &Timeouts) -> Self {
        // Limits of threads don't count for root, so the process gets a user of its own, who must be able to run it.
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let (limit, user) = match limit {
            Limit::None => (String::new(), None),
            Limit::Descriptors(most) => (format!("ulimit -n {most}; "), None),
            Limit::Memory(most) => (format!("ulimit -v {most}; "), None),
            Limit::Threads(more) if is_root() => (format!("ulimit -u {more}; "), Some(OTHER_USER)),
            Limit::Threads(more) => (
                format!("ulimit -u {}; ", threads_of_this_user() + more),
                None,
            ),
        };
        let mut command = Command::new("bash");
        command.args(["-c", &format!("{limit}exec \"$0\" \"$@\"")]);
        command.arg(&program).current_dir("/");
        let arguments = format!("{} {}", timeouts.0, timeouts.1);
        process::run(&mut command, "connections::serve_as_a_process", &arguments);
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let (process, address) = process::Process::start_server(&mut command);
        Process {
            process,
            address,
            _program: folder,
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.count("task")
    }

    pub(crate) fn descriptors(&self) -> usize {
        self.count("fd")
    }

    fn count(&self, what: &str) -> usize {
        let folder = format!("/proc/{}/{what}", self.process.child.id());
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }

    /// The largest resident memory so far, in kilobytes.
    pub(crate) fn peak_memory(&self) -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let size = line.and_then(|line| line.split_whitespace().nth(1));
        size.expect("VmHWM").parse().unwrap()
    }

    /// How many events have been published.
    // The program `overload_native` has the only test that asks.
    #[allow(dead_code)]
    pub(crate) fn published(&self) -> usize {
        let mut connection = Connection::open(self.address);
        connection.ask("GET", "/statistics");
        let published = connection.receive().json()["published"].as_u64();
        published.expect("a number") as usize
    }

    /// Stops the server. Returns `true` if it ended without an error.
    pub(crate) fn stop(mut self) -> bool {
        self.process.stop()
    }
}

/// The body of the test that serves, until its standard input is closed.
pub(crate) fn serve() {
    let Some(timeouts) = process::argument() else {
        return;
    };
    let (idle, write) = timeouts.split_once(' ').expect("two numbers");
    let milliseconds = |text: &str| Duration::from_millis(text.parse().expect("a number"));
    let statistics = |_: &Request, broker: &Broker| Response::json(200, &broker.statistics());
    let info = info()
        .idle_timeout(milliseconds(idle))
        .write_timeout(milliseconds(write))
        .fallback(Fallback::with_broker(statistics));
    let server = Server::start(info).unwrap();
    process::serve(&server);
}

/// A user who has no processes.
const OTHER_USER: u32 = 54_321;

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| owner(&me) == 0)
}

fn threads_of_this_user() -> u32 {
    let me = owner(&std::fs::metadata("/proc/self").unwrap());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mine =
        processes.filter(|process| process.metadata().is_ok_and(|other| owner(&other) == me));
    mine.map(|process| std::fs::read_dir(process.path().join("task")).map_or(0, Iterator::count))
        .sum::<usize>() as u32
}

fn owner(metadata: &std::fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::uid(metadata)
}
