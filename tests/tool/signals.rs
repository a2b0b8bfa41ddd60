//! The program `long-polling-server`, as a service manager and a terminal run it: the signals that stop it, its log, and a lack of
//! descriptors.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{PUBLISH, Tool, shell};
use crate::support::{Connection, until};

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
        // Accepted before the stop, and so answered, also where the poll is not parked yet.
        let mut parked = tool.connect();
        parked.ask("GET", "/health");
        assert_eq!(parked.receive().status, 200);
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
        again.signal(signal);
        again.ended_cleanly();
        assert!(again.logged("events.log: 2 events read in "));
    }
}

#[test]
fn a_stop_does_not_wait_for_bodies_that_are_not_there() {
    let mut tool = Tool::start(&[]);
    let mut half = [5000, 31_000_000, 100].map(|length| {
        let mut connection = tool.connect();
        connection.send(format!(
            "POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{{"
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
        // New connections have the server probe itself while it stops.
        let mut crowd: Vec<Connection> = (0..30).map(|_| tool.connect()).collect();
        for connection in &mut crowd {
            connection.publish(PUBLISH);
            assert_eq!(connection.receive().status, 200);
        }
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
    until("the stop has begun", || tool.logged("SIGTERM: stopping"));
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
    // As when a terminal closes: the second one may find the process gone.
    let pid = tool.child.id();
    let both = format!("kill -s HUP {pid}; kill -s TERM {pid} 2>&-; true");
    assert!(
        Command::new("sh")
            .args(["-c", &both])
            .status()
            .unwrap()
            .success()
    );
    tool.ended_cleanly();
    assert!(fs::read_to_string(&path).unwrap().contains("kept"));
}

/// As under `nohup`.
#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let command = shell("trap '' HUP; exec \"$0\" \"$@\"");
    let mut tool = Tool::start_by(command, &[]);
    tool.signal("HUP");
    tool.publish();
    tool.signal("TERM");
    tool.ended_cleanly();
    assert!(tool.logged("SIGTERM: stopping"), "{:#?}", tool.log);
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_that_can_accept_no_connection_logs_that_and_goes_on() {
    let command = shell("ulimit -n 100; exec \"$0\" \"$@\"");
    let mut tool = Tool::start_by(command, &["--restore-timeout", "0.5"]);
    let mut before = tool.connect();
    before.publish(PUBLISH);
    assert_eq!(before.receive().status, 200);
    let crowd: Vec<Connection> = (0..150).map(|_| tool.connect()).collect();
    until("the failure is reported", || {
        tool.logged("; the server tries again")
    });
    before.publish(PUBLISH);
    assert_eq!(before.receive().status, 200);
    drop(crowd);
    let mut after = tool.connect();
    after.ask("GET", "/health");
    assert_eq!(after.receive().text(), r#"{"status":"ok"}"#);
    tool.signal("TERM");
    assert!(tool.ended().success(), "{:#?}", tool.log);
}
