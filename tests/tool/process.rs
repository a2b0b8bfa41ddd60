//! The example `server`, as a process.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};

use crate::support::{Connection, until};

pub(crate) const PUBLISH: &str = r#"{"category":"c","data":"kept"}"#;

/// The program. It is built first where cargo runs this test, so that it is never an old one.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = env::current_exe().unwrap();
        let profile = test
            .parent()
            .and_then(Path::parent)
            .expect("a profile's folder");
        if let Some(cargo) = env::var_os("CARGO") {
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--example", "server", "--target-dir"]);
            build.arg(profile.parent().expect("a target folder"));
            build.current_dir(env!("CARGO_MANIFEST_DIR"));
            if profile.ends_with("release") {
                build.arg("--release");
            }
            if cfg!(feature = "testing") {
                build.args(["--features", "testing"]);
            }
            if cfg!(feature = "redis") {
                build.args(["--features", "redis"]);
            }
            assert!(build.status().unwrap().success(), "the example builds");
        }
        profile
            .join("examples")
            .join(format!("server{}", env::consts::EXE_SUFFIX))
    })
}

/// Runs the program until it ends by itself.
pub(crate) fn run(flags: &[&str]) -> Output {
    Command::new(program()).args(flags).output().unwrap()
}

/// The server, running.
pub(crate) struct Tool {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    /// Lines of standard output after the first.
    printed: Arc<Mutex<Vec<String>>>,
}

impl Tool {
    pub(crate) fn start(flags: &[&str]) -> Self {
        Tool::start_by(Command::new(program()), flags)
    }

    pub(crate) fn start_by(mut command: Command, flags: &[&str]) -> Self {
        command.args(["--address", "127.0.0.1:0"]).args(flags);
        command.env_remove("RUST_LOG");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
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
        let address = line
            .strip_prefix("listening on http://")
            .expect("the address");
        let address = address.parse().unwrap();
        readers.push({
            let printed = printed.clone();
            thread::spawn(move || {
                stdout.for_each(|line| printed.lock().unwrap().push(line.unwrap()))
            })
        });
        Tool {
            child,
            address,
            log,
            readers,
            printed,
        }
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
