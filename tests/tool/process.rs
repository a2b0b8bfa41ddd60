//! The program `long-polling-server`, as a process.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::support::{Connection, until};

pub(crate) const PUBLISH: &str = r#"{"category":"c","data":"kept"}"#;

/// The program, which cargo has built for these tests.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_long-polling-server");

/// The program, to be run with these flags, and without settings from the environment of the tests.
pub(crate) fn program(flags: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    clear(&mut command).args(flags);
    command
}

/// Removes what the program takes from its environment.
fn clear(command: &mut Command) -> &mut Command {
    let taken = [
        "RUST_LOG",
        "NOTIFY_SOCKET",
        "JOURNAL_STREAM",
        "LISTEN_FDS",
        "LISTEN_PID",
    ];
    let own = env::vars_os().map(|(name, _)| name);
    for name in own.filter(|name| name.to_string_lossy().starts_with("LONG_POLLING_")) {
        command.env_remove(name);
    }
    taken.iter().fold(command, Command::env_remove)
}

/// Runs the program until it ends by itself.
pub(crate) fn run(flags: &[&str]) -> Output {
    program(flags).output().unwrap()
}

/// A shell that runs this script, which ends with `exec "$0" "$@"`, the program and its flags.
#[cfg(unix)]
pub(crate) fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    clear(&mut command).args(["-c", script, PROGRAM]);
    command
}

/// The server, running.
pub(crate) struct Tool {
    pub(crate) child: Child,
    /// Where it listens on TCP.
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    /// Lines of standard output after the first.
    printed: Arc<Mutex<Vec<String>>>,
}

impl Tool {
    pub(crate) fn start(flags: &[&str]) -> Self {
        Tool::start_by(program(&[]), flags)
    }

    /// On a free port.
    pub(crate) fn start_by(mut command: Command, flags: &[&str]) -> Self {
        command.args(["--address", "127.0.0.1:0"]);
        command.stdin(Stdio::null());
        Tool::start_by_parent(command, flags)
    }

    /// Starts a command that gives the program its standard input, and perhaps its address.
    pub(crate) fn start_by_parent(mut command: Command, flags: &[&str]) -> Self {
        command.args(flags);
        let (mut tool, place) = Tool::spawn(command);
        let address = place.strip_prefix("http://").expect("an address");
        tool.address = address.parse().unwrap();
        tool
    }

    /// Starts a command that runs the program, and waits until it listens. Returns where, as the program prints it.
    pub(crate) fn spawn(mut command: Command) -> (Self, String) {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let printed = Arc::<Mutex<Vec<String>>>::default();
        let mut readers = vec![{
            let log = log.clone();
            thread::spawn(move || stderr.for_each(|line| log.lock().unwrap().push(line.unwrap())))
        }];
        let Some(Ok(line)) = stdout.next() else {
            panic!("it did not start: {:?}", log.lock().unwrap());
        };
        let place = line.strip_prefix("listening on ").expect("the place");
        readers.push({
            let printed = printed.clone();
            thread::spawn(move || {
                stdout.for_each(|line| printed.lock().unwrap().push(line.unwrap()))
            })
        });
        let tool = Tool {
            child,
            address: ([127, 0, 0, 1], 0).into(),
            log,
            readers,
            printed,
        };
        (tool, place.to_owned())
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    pub(crate) fn publish(&self) {
        let mut connection = self.connect();
        connection.publish(PUBLISH);
        assert_eq!(connection.receive().status, 200);
    }

    pub(crate) fn logged(&self, words: &str) -> bool {
        self.log
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(words))
    }

    /// Sends a signal, by its name without SIG (Unix only).
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("it has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.readers
            .drain(..)
            .for_each(|reader| reader.join().unwrap());
        status.unwrap()
    }

    /// Waits for a clean end: no warning, no error, and no more lines on standard output.
    pub(crate) fn ended_cleanly(&mut self) {
        let status = self.ended();
        let log = self.log.lock().unwrap();
        assert!(status.success(), "{status}: {log:#?}");
        let complaints = log
            .iter()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"));
        assert_eq!(complaints.count(), 0, "{log:#?}");
        assert_eq!(*self.printed.lock().unwrap(), [""; 0]);
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
