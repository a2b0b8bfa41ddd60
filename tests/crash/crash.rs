//! Processes that are killed repeatedly, or whose disk is full, with real files.
#![cfg(unix)]

use crate::{process, support};

use std::collections::HashSet;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use long_polling::{
    Broker, BrokerOptions, Cursor, Durability, ErrorKind, Event, EventId, FilePersistorInfo, Server,
};
use process::Process;
use support::{Connection, LIMIT, info, poll, until};

const PUBLISHERS: usize = 16;
/// The events that a category keeps. They are few, so the file is compacted often.
const RING: usize = 64;

/// Opens the file with the same settings in the process that is killed and in the one that checks the file.
fn open(folder: &Path, level: &str) -> Result<Broker, long_polling::Error> {
    let options = BrokerOptions::new().events_per_category(RING);
    let period = Duration::from_millis(20);
    let info = FilePersistorInfo::new(folder.join("events.db"))
        .durability(match level {
            "buffered" => Durability::Buffered,
            "synced" => Durability::Synced { period },
            _ => Durability::Acknowledged,
        })
        .write_buffer_size(1 << 20)
        .write_flush_period(period)
        .compact_from(20_000);
    Broker::open(options, info)
}

/// Every other publisher gives its publishes idempotency keys.
fn has_keys(publisher: usize) -> bool {
    publisher % 2 == 1
}

fn key(publisher: usize, number: u64) -> String {
    format!("{publisher}: {number}")
}

fn log(folder: &Path) -> std::path::PathBuf {
    folder.join("published")
}

#[test]
#[ignore = "not a test: the process that is killed"]
fn publish_as_a_process() {
    let Some(arguments) = process::argument() else {
        return;
    };
    let [folder, level, first] = arguments.split(' ').collect::<Vec<_>>()[..] else {
        panic!("a folder, a level and a number");
    };
    let folder = Path::new(folder);
    let first: u64 = first.parse().unwrap();
    let broker = open(folder, level).unwrap();
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(log(folder));
    let log = log.unwrap();
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (broker, mut log) = (&broker, &log);
            scope.spawn(move || {
                for number in first.. {
                    let category = publisher.to_string();
                    let id = match has_keys(publisher) {
                        true => broker.publish_once(&key(publisher, number), &category, &number),
                        false => broker.publish(&category, &number),
                    };
                    let id = id.unwrap();
                    // Written before the next publish, so a kill can't undo it.
                    log.write_all(format!("{publisher} {number} {id}\n").as_bytes())
                        .unwrap();
                }
            });
        }
    });
}

/// The publishes that have returned in the killed processes.
struct Returned {
    log: BufReader<fs::File>,
    /// The numbers and ids of each publisher.
    published: Vec<Vec<(u64, EventId)>>,
}

impl Returned {
    fn new(folder: &Path) -> Self {
        let log = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .open(log(folder));
        Returned {
            log: BufReader::new(log.unwrap()),
            published: vec![Vec::new(); PUBLISHERS],
        }
    }

    /// Reads the lines that were written since the last call. The process that wrote them has been killed, and the kill may
    /// have cut its last line at the end of a page of memory: that publish has returned, too, and counts for nothing here.
    fn read(&mut self) {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            let Some(whole) = line.strip_suffix('\n') else {
                // The next process begins a line of its own.
                self.log.get_mut().write_all(b"\n").unwrap();
                let mut end = String::new();
                self.log.read_line(&mut end).unwrap();
                return;
            };
            let [publisher, number, id] = whole.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{whole:?}");
            };
            let publisher: usize = publisher.parse().unwrap();
            self.published[publisher].push((number.parse().unwrap(), id.parse().unwrap()));
            line.clear();
        }
    }
}

/// Checks the file of a killed process, whose events have numbers from `first` on. Returns how many publishers have lost their
/// last event.
fn check(broker: &Broker, returned: &Returned, first: u64, level: &str) -> usize {
    let poll = |category: &str, cursor| {
        let batch = broker.subscribe(category, cursor, Duration::ZERO).unwrap();
        let event = |event: &Event| (event.decode::<u64>().unwrap(), event.id());
        let events: Vec<(u64, EventId)> = batch.events().iter().map(event).collect();
        (events, batch.gap())
    };
    let acknowledged = level == "acknowledged";
    let mut seen = HashSet::new();
    let mut lost = 0;
    for (publisher, published) in returned.published.iter().enumerate() {
        let category = publisher.to_string();
        let (restored, _) = poll(&category, Cursor::Oldest);
        let context = format!("round of {first}, publisher {publisher}: {restored:?}");
        assert!(
            restored.iter().all(|(_, id)| seen.insert(*id)),
            "an id twice"
        );
        assert!(
            restored.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1),
            "{context}"
        );
        // No event is missing between the others, except at the end of a round, where a kill may have lost some.
        let newest = restored.last().map_or(0, |(number, _)| *number);
        if let Some(oldest) = restored.first() {
            let from = published.partition_point(|(number, _)| *number < first.max(oldest.0));
            for event in &published[from..] {
                assert_eq!(restored.contains(event), event.0 <= newest, "{context}");
            }
            let (rest, gap) = poll(&category, Cursor::LastId(oldest.1));
            assert_eq!(rest, restored[1..]);
            assert!(!(gap && acknowledged), "a gap, but no event is missing");
        }
        let Some(last) = published.last() else {
            continue;
        };
        // A position after the last restored event gets a gap.
        let (rest, gap) = poll(&category, Cursor::LastId(last.1));
        if restored.is_empty() || last.0 > newest {
            assert!(gap && !acknowledged, "{context}, but {last:?} had returned");
            lost += 1;
        } else {
            // An earlier kill may have lost the last publish that returned, with its key.
            if has_keys(publisher) && restored.contains(last) {
                // As a publisher does that has not got the answer.
                let again = broker.publish_once(&key(publisher, last.0), &category, &last.0);
                assert_eq!(again.unwrap(), last.1, "{context}");
            }
            let next = restored.iter().find(|(number, _)| *number > last.0);
            assert_eq!(rest.first(), next);
        }
    }
    lost
}

/// Starts a publishing process, kills it after it has written up to `max_bytes` to its log, and checks the file; this many
/// times.
fn kill_repeatedly(level: &str, rounds: u64, max_bytes: u64) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut lost = 0;
    let mut returned = Returned::new(folder);
    let size = || fs::metadata(log(folder)).unwrap().len();
    for round in 0..rounds {
        let first = round * 1_000_000;
        let arguments = format!("{} {level} {first}", folder.display());
        let enough = size() + random.u64(1..max_bytes);
        let mut command = process::this_program("crash::publish_as_a_process", &arguments);
        let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
        until("events are published", || {
            let ended = process.child.try_wait().unwrap();
            assert!(ended.is_none(), "the process ended by itself: {ended:?}");
            size() > enough
        });
        if round == 0 {
            let refused = open(folder, level).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::File);
            let text = refused.to_string();
            assert!(
                text.contains("events.db") && text.contains("another process"),
                "{text}"
            );
        }
        drop(process);
        returned.read();

        let broker = open(folder, level).unwrap();
        // Only the line that the kill has interrupted can be damaged.
        assert!(broker.statistics().store.damaged <= 1);
        lost += check(&broker, &returned, first, level);
        // Every other run of this process ends cleanly.
        if round % 2 == 0 {
            broker.stop(LIMIT).unwrap();
        }
    }
    let events: usize = returned.published.iter().map(Vec::len).sum();
    println!(
        "{level}: {rounds} rounds, {events} events; {lost} times a publisher's last events were lost"
    );
}

/// Runs 50 rounds, or as many as the environment variable `CRASH_ROUNDS` says.
#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let rounds = env::var("CRASH_ROUNDS").map_or(50, |rounds| rounds.parse().unwrap());
    kill_repeatedly("acknowledged", rounds, 60_000);
}

#[test]
fn a_kill_keeps_the_first_of_the_buffered_events_and_the_rest_is_a_gap() {
    kill_repeatedly("buffered", 10, 1_000_000);
    kill_repeatedly("synced", 10, 1_000_000);
}

#[test]
#[ignore = "not a test: the server whose disk is full"]
fn serve_as_a_process() {
    let Some(arguments) = process::argument() else {
        return;
    };
    let (level, file) = arguments.split_once(' ').expect("a level and a file");
    let file = FilePersistorInfo::new(file)
        .durability(match level {
            "buffered" => Durability::Buffered,
            _ => Durability::Acknowledged,
        })
        .write_flush_period(Duration::from_millis(10))
        .max_queue_size(20_000)
        .compact_from(None);
    let server = Server::start(info().file(file)).unwrap();
    process::serve(&server);
}

/// How the test fills a disk.
#[derive(Clone, Copy, Debug)]
enum Full {
    /// A limit on the blocks of a file. Further writes fail (EFBIG).
    Limit,
    /// A file system without space (ENOSPC), in the mount namespace of the server.
    FileSystem,
}

impl Full {
    /// The shell script that starts the server, "$0". "$1" is the folder of the file.
    fn script(self) -> &'static str {
        match self {
            Full::Limit => "trap '' XFSZ; ulimit -S -f 32; exec \"$0\" \"${@:2}\"",
            Full::FileSystem => {
                "mount -t tmpfs -o size=128k tmpfs \"$1\" && head -c 64K /dev/zero > \"$1/filler\" \
                && \"$0\" \"${@:2}\" && cp \"$1/events.db\" \"$1.db\""
            }
        }
    }

    fn command(self) -> Command {
        match self {
            Full::Limit => Command::new("bash"),
            Full::FileSystem => {
                let mut command = Command::new("unshare");
                command.args(["--user", "--map-root-user", "--mount", "bash"]);
                command
            }
        }
    }

    /// The error message of the operating system.
    fn reason(self) -> &'static str {
        match self {
            Full::Limit => "File too large",
            Full::FileSystem => "No space left on device",
        }
    }

    /// Makes space again, while the server runs.
    fn make_space(self, process: &Process, folder: &Path) {
        let pid = process.child.id().to_string();
        match self {
            Full::Limit => {
                let mut prlimit = Command::new("prlimit");
                prlimit.args(["--pid", &pid, "--fsize=unlimited"]);
                assert!(prlimit.status().expect("prlimit").success());
            }
            // The folder in the mount namespace of the process.
            Full::FileSystem => {
                let root = Path::new("/proc").join(pid).join("root");
                let folder = folder.strip_prefix("/").unwrap();
                fs::remove_file(root.join(folder).join("filler")).unwrap();
            }
        }
    }
}

fn a_full_disk(full: Full, level: &str) {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let file = disk.join("events.db");
    let mut command = full.command();
    command
        .args(["-c", full.script()])
        .arg(env::current_exe().unwrap())
        .arg(&disk);
    let arguments = format!("{level} {}", file.display());
    let command = process::run(&mut command, "crash::serve_as_a_process", &arguments);
    let (mut process, address) = Process::start_server(command);
    let mut connection = Connection::open(address);
    let mut number = 0;
    let mut publish = |connection: &mut Connection| {
        let data = "x".repeat(900);
        connection.publish(format!(r#"{{"category":"c","data":[{number},"{data}"]}}"#));
        let answer = connection.receive();
        if answer.status == 200 {
            number += 1;
        }
        (answer, number)
    };
    let refusal = loop {
        let (answer, accepted) = publish(&mut connection);
        assert!(accepted < 1000, "the disk does not get full");
        if answer.status != 200 {
            break answer;
        }
    };
    refusal.refuses(503, full.reason());
    assert!(refusal.header("Retry-After").is_some());
    // Reads go on.
    connection.ask("GET", &poll("c", 0, "&since_time=1"));
    let buffered = connection.receive().data().len();
    let (refused, accepted) = publish(&mut connection);
    assert_eq!((refused.status, buffered), (503, accepted));

    full.make_space(&process, &disk);
    until("publishing goes on", || {
        publish(&mut connection).0.status == 200
    });
    connection.ask("GET", &poll("c", 0, "&since_time=1"));
    let buffered = connection.receive().ids();
    assert!(process.stop());

    let file = match full {
        Full::Limit => file,
        Full::FileSystem => folder.path().join("disk.db"),
    };
    assert_restored(&file, &buffered);
}

/// Asserts that the file has exactly the events with these ids, and that no position after one of them gets a gap.
fn assert_restored(file: &Path, expected: &[String]) {
    let broker = Broker::open(BrokerOptions::default(), FilePersistorInfo::new(file)).unwrap();
    let batch = broker
        .subscribe("c", Cursor::Oldest, Duration::ZERO)
        .unwrap();
    let ids: Vec<String> = batch
        .events()
        .iter()
        .map(|event| event.id().to_string())
        .collect();
    assert_eq!(ids, expected);
    let last = batch.events().last().unwrap().id();
    let first = batch.events()[0].id();
    for position in [first, last] {
        let follower = broker.subscribe("c", Cursor::LastId(position), Duration::ZERO);
        assert!(!follower.unwrap().gap());
    }
    assert_eq!(broker.statistics().store.damaged, 0);
}

#[test]
fn a_full_disk_refuses_publishes_and_nothing_else_until_there_is_space() {
    for level in ["buffered", "acknowledged"] {
        a_full_disk(Full::Limit, level);
    }
    // Needs permission to mount a file system.
    let mut mount = Full::FileSystem.command();
    let mount = mount.args(["-c", "mount -t tmpfs tmpfs /mnt"]).status();
    if !mount.is_ok_and(|status| status.success()) {
        println!("no file system can be mounted here: only the limit of a file was tested");
        return;
    }
    for level in ["buffered", "acknowledged"] {
        a_full_disk(Full::FileSystem, level);
    }
}
