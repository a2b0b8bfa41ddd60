//! Processes that a test starts, watches and kills: this test program itself, run again for one ignored test, which serves,
//! publishes or follows until it is killed or its standard input is closed.

use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use long_polling::Server;

use crate::support::{LIMIT, until};

const ARGUMENT: &str = "LONG_POLLING_TEST_ARGUMENT";

/// Has a command run one ignored test of this test program, by its name with its module. The command is the test program,
/// or a shell whose script passes its arguments on to the test program. `argument` is what the test needs to know.
pub(crate) fn run<'a>(command: &'a mut Command, test: &str, argument: &str) -> &'a mut Command {
    command
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(ARGUMENT, argument)
}

/// This test program, to be run again for one ignored test.
pub(crate) fn this_program(test: &str, argument: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    run(&mut command, test, argument);
    command
}

/// The argument of the ignored test that runs in a process of its own; none in a run of all ignored tests.
pub(crate) fn argument() -> Option<String> {
    env::var(ARGUMENT).ok()
}

/// The rest of a test that serves in a process of its own: reports the address, and stops when standard input is closed.
pub(crate) fn serve(server: &Server) {
    println!("listening on {}", server.local_addr());
    let _ = io::stdin().read_to_end(&mut Vec::new());
    server.stop(LIMIT).unwrap();
}

/// A process that is killed at the end of the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// Reads the standard error of a server.
    errors: Option<JoinHandle<Vec<u8>>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Process {
            child: command.spawn().expect("a program that can be run"),
            errors: None,
        }
    }

    /// Starts a process whose test ends with [`serve`], and waits for its address.
    pub(crate) fn start_server(command: &mut Command) -> (Self, SocketAddr) {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Process::start(command);
        let mut stderr = process.child.stderr.take().unwrap();
        process.errors = Some(thread::spawn(move || {
            let mut errors = Vec::new();
            let _ = stderr.read_to_end(&mut errors);
            errors
        }));
        let mut lines = BufReader::new(process.child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("a server").unwrap();
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.parse().unwrap();
            }
        };
        // The rest of what it prints is ignored.
        thread::spawn(move || lines.for_each(drop));
        (process, address)
    }

    /// Closes the standard input of a server, and waits. Returns `true` if it ended without an error.
    pub(crate) fn stop(&mut self) -> bool {
        drop(self.child.stdin.take());
        let mut status = None;
        until("the process has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let has_succeeded = status.is_some_and(|status| status.success());
        if !has_succeeded {
            self.print_errors();
        }
        has_succeeded
    }

    /// Prints what a server that has ended wrote to standard error.
    fn print_errors(&mut self) {
        let errors = self.errors.take().and_then(|errors| errors.join().ok());
        if let Some(errors) = errors {
            eprintln!("the process: {}", String::from_utf8_lossy(&errors));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            self.print_errors();
        }
    }
}
