//! The example `server`, as an operator runs it: its flags, its messages, its log, and the signals that stop it.
#![cfg(feature = "server")]

mod support;

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::{Connection, until};

const PUBLISH: &str = r#"{"category":"c","data":"kept"}"#;

/// The program. It is built first where cargo runs this test, so that it is never an old one.
fn program() -> &'static Path {
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
            assert!(build.status().unwrap().success(), "the example builds");
        }
        profile
            .join("examples")
            .join(format!("server{}", env::consts::EXE_SUFFIX))
    })
}

/// Runs the program to its end, which is to come by itself.
fn run(flags: &[&str]) -> Output {
    Command::new(program()).args(flags).output().unwrap()
}

/// The server, running.
struct Tool {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    /// What came on standard output after the first line.
    printed: Arc<Mutex<Vec<String>>>,
}

impl Tool {
    fn start(flags: &[&str]) -> Self {
        Tool::start_by(Command::new(program()), flags)
    }

    fn start_by(mut command: Command, flags: &[&str]) -> Self {
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

    fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    fn publish(&self) {
        let mut connection = self.connect();
        connection.publish(PUBLISH);
        assert_eq!(connection.receive().status, 200);
    }

    fn logged(&self, words: &str) -> bool {
        self.log
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(words))
    }

    #[cfg(unix)]
    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end.
    fn ended(&mut self) -> ExitStatus {
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

    /// Waits for a clean end: nothing to complain about, nothing more on standard output.
    fn ended_cleanly(&mut self) {
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

/// The program refuses these flags with these words at the beginning of its only line.
fn refuses(flags: &[&str], words: &str) {
    let output = run(flags);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
    assert!(
        said.starts_with(words),
        "{flags:?}: {said:?} does not begin with {words:?}"
    );
    assert!(said.ends_with("; see --help\n"), "{said:?}");
    assert_eq!(said.lines().count(), 1, "{said:?}");
    assert!(output.stdout.is_empty());
    for field in [
        "FilePersistorInfo",
        "ServerInfo",
        "None",
        "handler_to",
        "_timeout",
        "max_",
        "_uri",
    ] {
        assert!(!said.contains(field), "{said:?} names {field}");
    }
}

#[test]
fn a_wrong_flag_is_named_and_help_is_referred_to() {
    refuses(&["--adress", "127.0.0.1:0"], "invalid option '--adress'");
    refuses(&["-x"], "invalid option '-x'");
    refuses(&["8080"], "unexpected argument \"8080\"");
    refuses(
        &["--keep-history=yes", "--file", "x"],
        "unexpected argument for option '--keep-history'",
    );
    refuses(&["--timeout"], "missing argument for option '--timeout'");
}

#[test]
fn a_value_that_can_not_be_read_names_its_flag() {
    for flag in [
        "--timeout",
        "--idle-timeout",
        "--write-timeout",
        "--restore-timeout",
        "--event-ttl",
    ] {
        for value in ["x", "", "-1", "nan", "inf"] {
            refuses(
                &[&format!("{flag}={value}")],
                &format!("{flag}: invalid value "),
            );
        }
    }
    for flag in ["--flush-period", "--max-wait"] {
        refuses(
            &["--file=x", &format!("{flag}=1s")],
            &format!("{flag}: invalid value \"1s\": "),
        );
    }
    for flag in [
        "--events-per-category",
        "--max-batch-size",
        "--max-event-bytes",
        "--max-event-size",
        "--max-parked",
    ] {
        for value in ["x", "1.5", "-1", "99999999999999999999999"] {
            refuses(
                &[&format!("{flag}={value}")],
                &format!("{flag}: invalid value {value:?}: "),
            );
        }
    }
    for flag in ["--write-buffer-size", "--max-queue-size"] {
        refuses(
            &["--file=x", flag, "1k"],
            &format!("{flag}: invalid value \"1k\": "),
        );
    }
    refuses(
        &["--trusted-proxy", "here"],
        "--trusted-proxy: invalid value \"here\": ",
    );
    refuses(
        &["--file", "x", "--durability", "safe"],
        "--durability: invalid value \"safe\": give buffered, synced or acknowledged",
    );
}

#[test]
fn a_setting_that_the_server_refuses_is_named_by_its_flag() {
    for (flags, words) in [
        (&["--address", "nowhere"][..], "--address: "),
        (&["--subscription-uri", "events"], "--subscription-uri: "),
        (&["--publish-uri", "/a?b"], "--publish-uri: "),
        (
            &["--publish-uri", "/events"],
            "--publish-uri: \"/events\" is the --subscription-uri, too",
        ),
        (&["--timeout", "0.5"], "--timeout: is under one second"),
        (&["--idle-timeout", "0"], "--idle-timeout: is zero"),
        (&["--write-timeout", "0"], "--write-timeout: is zero"),
        (
            &["--events-per-category", "0"],
            "--events-per-category: is 0",
        ),
        (&["--max-batch-size", "0"], "--max-batch-size: is 0"),
        (&["--max-event-size", "0"], "--max-event-size: is 0"),
        (&["--max-parked", "0"], "--max-parked: is 0"),
        (&["--event-ttl", "0"], "--event-ttl: is under a millisecond"),
        (&["--max-event-bytes", "5"], "--max-event-bytes: 5 bytes"),
        (&["--file", ""], "--file: "),
        (&["--file", "x", "--flush-period", "0"], "--flush-period: "),
        (
            &["--file", "x", "--max-queue-size", "0"],
            "--max-queue-size: ",
        ),
    ] {
        refuses(flags, words);
    }
}

#[test]
fn flags_that_only_concern_the_file_are_refused_without_one() {
    for flags in [
        &["--durability", "acknowledged"][..],
        &["--flush-period", "1"],
        &["--write-buffer-size", "1"],
        &["--max-queue-size", "1"],
        &["--max-wait", "1"],
        &["--keep-history"],
    ] {
        refuses(flags, &format!("{} has no effect without --file", flags[0]));
    }
}

#[test]
fn an_empty_token_is_refused() {
    for flag in ["--publish-token", "--subscribe-token"] {
        refuses(
            &[flag, ""],
            &format!("{flag}: invalid value \"\": it is empty"),
        );
    }
}

#[test]
fn help_goes_to_standard_output_and_names_every_flag_once() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag]);
        assert!(output.status.success() && output.stderr.is_empty());
        let help = String::from_utf8(output.stdout).unwrap();
        let flags = help.lines().filter(|line| line.starts_with("    --"));
        assert_eq!(flags.count(), 25, "{help}");
    }
}

#[test]
fn what_can_not_be_had_is_an_error_with_status_1_that_names_the_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none").join("events.log");
    for (flags, words) in [
        (["--address", &address], "--address: can't listen on "),
        (["--file", missing.to_str().unwrap()], "--file: "),
    ] {
        let output = run(&[&["--address", "127.0.0.1:0"], &flags[..]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with(words), "{said:?}");
    }
}

#[cfg(unix)]
mod signals {
    use super::*;

    #[test]
    fn each_signal_stops_cleanly_with_every_event_in_the_file_and_the_log_says_so() {
        for signal in ["HUP", "TERM", "INT"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("events.log");
            let file = path.to_str().unwrap();
            // Nothing is written by itself.
            let flags = ["--file", file, "--flush-period", "3600"];
            let mut tool = Tool::start(&flags);
            tool.publish();
            tool.publish();
            assert!(!fs::read_to_string(&path).unwrap().contains("kept"));
            let mut parked = tool.connect();
            parked.ask("GET", "/events?category=other&timeout=60");
            tool.signal(signal);
            tool.ended_cleanly();
            assert_eq!(parked.receive().status, 204);
            assert_eq!(
                fs::read_to_string(&path).unwrap().matches("kept").count(),
                2
            );
            for words in [
                &format!("the server listens on http://{}", tool.address),
                "events.log: 0 events read in ",
                "durability of new events: buffered",
                &format!("SIG{signal}: stopping"),
                "events.log: every event is written and synced",
                &format!("the server on http://{} stopped after ", tool.address),
            ] {
                assert!(tool.logged(words), "{words:?} is not in {:#?}", tool.log);
            }

            let mut again = Tool::start(&flags);
            assert!(again.logged("events.log: 2 events read in "));
            again.signal(signal);
            again.ended_cleanly();
        }
    }

    #[test]
    fn a_stop_does_not_wait_for_bodies_that_are_not_there() {
        let mut tool = Tool::start(&[]);
        let mut half = [5000, 31_000_000, 100].map(|length| {
            let mut connection = tool.connect();
            connection.send(format!(
                "POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{{"
            ));
            connection
        });
        // The one that is too large is refused at once, and the others have come as far.
        assert_eq!(half[1].receive().status, 413);
        tool.publish();
        let began = Instant::now();
        tool.signal("TERM");
        tool.ended_cleanly();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        for connection in &mut half {
            assert!(connection.is_over());
        }
    }

    #[test]
    fn thirty_starts_and_stops_log_no_warning() {
        for _ in 0..30 {
            let mut tool = Tool::start(&[]);
            tool.signal("TERM");
            tool.ended_cleanly();
        }
    }

    #[test]
    fn a_second_signal_ends_a_slow_stop_at_once() {
        use std::os::unix::process::ExitStatusExt;
        let mut tool = Tool::start(&["--write-timeout", "60", "--max-batch-size", "60000000"]);
        let mut publisher = tool.connect();
        for _ in 0..40 {
            let data = "x".repeat(1_000_000);
            publisher.publish(format!(r#"{{"category":"large","data":"{data}"}}"#));
            assert_eq!(publisher.receive().status, 200);
        }
        // A request in flight until the write timeout: its client does not read more than this of the answer.
        let mut stuck = tool.connect();
        stuck.ask("GET", "/events?category=large&timeout=1&since_time=1");
        until("the answer is on its way", || {
            stuck.stream().peek(&mut [0]).is_ok()
        });
        tool.signal("TERM");
        let began = Instant::now();
        let repeated = Duration::from_millis(1100);
        until("the second signal is no repetition", || {
            began.elapsed() > repeated
        });
        assert!(tool.child.try_wait().unwrap().is_none(), "{:#?}", tool.log);
        tool.signal("TERM");
        let status = tool.ended();
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(status.signal(), Some(15), "{status}: {:#?}", tool.log);
        assert!(tool.logged("ended at once by a second signal"));
    }

    #[test]
    fn one_signal_sent_twice_stops_cleanly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.log");
        let mut tool = Tool::start(&["--file", path.to_str().unwrap(), "--flush-period", "3600"]);
        tool.publish();
        tool.signal("TERM");
        // It may have ended already.
        let pid = tool.child.id().to_string();
        let second = Command::new("kill").args(["-s", "HUP", &pid]).output();
        assert!(second.is_ok());
        tool.ended_cleanly();
        assert!(fs::read_to_string(&path).unwrap().contains("kept"));
    }

    /// As under `nohup`.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' HUP; exec \"$0\" \"$@\""])
            .arg(program());
        let mut tool = Tool::start_by(command, &[]);
        tool.signal("HUP");
        tool.publish();
        tool.signal("TERM");
        tool.ended_cleanly();
        assert!(tool.logged("SIGTERM: stopping"), "{:#?}", tool.log);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_server_that_can_accept_nobody_says_so_and_goes_on() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -n 100; exec \"$0\" \"$@\""])
            .arg(program());
        let mut tool = Tool::start_by(command, &["--restore-timeout", "0.5"]);
        let mut before = tool.connect();
        before.publish(PUBLISH);
        assert_eq!(before.receive().status, 200);
        let crowd: Vec<Connection> = (0..150).map(|_| tool.connect()).collect();
        until("the failure is reported", || {
            tool.logged("; it is tried again")
        });
        before.publish(PUBLISH);
        assert_eq!(before.receive().status, 200);
        drop(crowd);
        let mut after = tool.connect();
        after.ask("GET", "/health");
        assert_eq!(after.receive().text(), "well\n");
        tool.signal("TERM");
        assert!(tool.ended().success(), "{:#?}", tool.log);
    }
}
