//! The log of a process that is killed, again and again, and of one whose disk is full: real files and real processes.
#![cfg(unix)]

use crate::{process, support};

use std::collections::HashSet;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
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
/// Events that a category keeps: so few that the file is made smaller now and then.
const RING: usize = 64;

/// The settings of the process that is killed, and of the one that looks at what it left.
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

fn log(folder: &Path) -> std::path::PathBuf {
    folder.join("published")
}

#[test]
#[ignore = "not a test: the process that the others kill"]
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
                    let id = broker.publish(&publisher.to_string(), &number).unwrap();
                    // In the system's hands before the next one: a kill does not take it back.
                    log.write_all(format!("{publisher} {number} {id}\n").as_bytes())
                        .unwrap();
                }
            });
        }
    });
}

/// What the processes were told that they had published.
struct Told {
    log: BufReader<fs::File>,
    /// Numbers and ids of each publisher.
    published: Vec<Vec<(u64, EventId)>>,
}

impl Told {
    fn new(folder: &Path) -> Self {
        let log = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .open(log(folder));
        Told {
            log: BufReader::new(log.unwrap()),
            published: vec![Vec::new(); PUBLISHERS],
        }
    }

    /// Reads on. Lines are whole: each is one write, and who writes has been killed.
    fn read(&mut self) {
        for line in self.log.by_ref().lines() {
            let line = line.unwrap();
            let [publisher, number, id] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line:?}");
            };
            let publisher: usize = publisher.parse().unwrap();
            self.published[publisher].push((number.parse().unwrap(), id.parse().unwrap()));
        }
    }
}

/// Looks at what a killed process left: what it published has numbers from `first` on. Says how many publishers' last
/// events were lost.
fn check(broker: &Broker, told: &Told, first: u64, level: &str) -> usize {
    let poll = |category: &str, cursor| {
        let batch = broker.subscribe(category, cursor, Duration::ZERO).unwrap();
        let event = |event: &Event| (event.decode::<u64>().unwrap(), event.id());
        let held: Vec<(u64, EventId)> = batch.events().iter().map(event).collect();
        (held, batch.gap())
    };
    let acknowledged = level == "acknowledged";
    let mut seen = HashSet::new();
    let mut lost = 0;
    for (publisher, published) in told.published.iter().enumerate() {
        let category = publisher.to_string();
        let (held, _) = poll(&category, Cursor::Oldest);
        let context = format!("round of {first}, publisher {publisher}: {held:?}");
        assert!(held.iter().all(|(_, id)| seen.insert(*id)), "an id twice");
        assert!(
            held.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1),
            "{context}"
        );
        // What is there has no hole, but for what a kill cost at the end of a round.
        let newest = held.last().map_or(0, |(number, _)| *number);
        if let Some(oldest) = held.first() {
            let from = published.partition_point(|(number, _)| *number < first.max(oldest.0));
            for event in &published[from..] {
                assert_eq!(held.contains(event), event.0 <= newest, "{context}");
            }
            let (rest, gap) = poll(&category, Cursor::LastId(oldest.1));
            assert_eq!(rest, held[1..]);
            assert!(!(gap && acknowledged), "a gap, though nothing is missing");
        }
        let Some(last) = published.last() else {
            continue;
        };
        // Whoever has seen more than is left is told so.
        let (rest, gap) = poll(&category, Cursor::LastId(last.1));
        if held.is_empty() || last.0 > newest {
            assert!(gap && !acknowledged, "{context}, but {last:?} was told");
            lost += 1;
        } else {
            let next = held.iter().find(|(number, _)| *number > last.0);
            assert_eq!(rest.first(), next);
        }
    }
    lost
}

/// Kills a publishing process so many times, each time once it has told of at most so many bytes of events, and looks at
/// what it left.
fn kill_again_and_again(level: &str, rounds: u64, most: u64) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut lost = 0;
    let mut told = Told::new(folder);
    let size = || fs::metadata(log(folder)).unwrap().len();
    for round in 0..rounds {
        let first = round * 1_000_000;
        let arguments = format!("{} {level} {first}", folder.display());
        let enough = size() + random.u64(1..most);
        let mut command = process::this_program("crash::publish_as_a_process", &arguments);
        let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
        until("published", || {
            let ended = process.0.try_wait().unwrap();
            assert!(ended.is_none(), "it ended by itself: {ended:?}");
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
        told.read();

        let broker = open(folder, level).unwrap();
        // At most the line that was being written.
        assert!(broker.statistics().store.damaged <= 1);
        lost += check(&broker, &told, first, level);
        // Every other run ends as it should, between two that do not.
        if round % 2 == 0 {
            broker.stop(LIMIT).unwrap();
        }
    }
    let events: usize = told.published.iter().map(Vec::len).sum();
    println!(
        "{level}: {rounds} rounds, {events} events; {lost} times a publisher's last events were lost"
    );
}

/// 50 rounds, or what `CRASH_ROUNDS` says.
#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let rounds = env::var("CRASH_ROUNDS").map_or(50, |rounds| rounds.parse().unwrap());
    kill_again_and_again("acknowledged", rounds, 60_000);
}

#[test]
fn a_kill_leaves_the_beginning_of_what_was_buffered_and_the_rest_is_told_as_a_gap() {
    kill_again_and_again("buffered", 10, 1_000_000);
    kill_again_and_again("synced", 10, 1_000_000);
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

/// How a disk is made full in earnest.
#[derive(Clone, Copy, Debug)]
enum Full {
    /// A file may have so many blocks: what is written beyond fails (EFBIG).
    Limit,
    /// A file system of its own has no space left (ENOSPC), in a mount namespace of the server's.
    FileSystem,
}

impl Full {
    /// What comes before the server, which is "$0"; "$1" is the folder of the file.
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

    /// What the system says.
    fn reason(self) -> &'static str {
        match self {
            Full::Limit => "File too large",
            Full::FileSystem => "No space left on device",
        }
    }

    fn relieve(self, process: &Process, folder: &Path) {
        let pid = process.0.id().to_string();
        match self {
            Full::Limit => {
                let mut relieve = Command::new("prlimit");
                relieve.args(["--pid", &pid, "--fsize=unlimited"]);
                assert!(relieve.status().expect("prlimit").success());
            }
            // As the process sees its folder.
            Full::FileSystem => {
                let seen = Path::new("/proc").join(pid).join("root");
                let folder = folder.strip_prefix("/").unwrap();
                fs::remove_file(seen.join(folder).join("filler")).unwrap();
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
        let (answer, taken) = publish(&mut connection);
        assert!(taken < 1000, "never full");
        if answer.status != 200 {
            break answer;
        }
    };
    refusal.refuses(503, full.reason());
    assert!(refusal.header("Retry-After").is_some());
    // Reads go on.
    connection.ask("GET", &poll("c", 0, "&since_time=1"));
    let held = connection.receive().data().len();
    let (refused, taken) = publish(&mut connection);
    assert_eq!((refused.status, held), (503, taken));

    // There is space again.
    full.relieve(&process, &disk);
    until("publishing goes on", || {
        publish(&mut connection).0.status == 200
    });
    connection.ask("GET", &poll("c", 0, "&since_time=1"));
    let held = connection.receive().ids();
    assert!(process.stop());

    let file = match full {
        Full::Limit => file,
        Full::FileSystem => folder.path().join("disk.db"),
    };
    let broker = Broker::open(BrokerOptions::default(), FilePersistorInfo::new(&file)).unwrap();
    let batch = broker
        .subscribe("c", Cursor::Oldest, Duration::ZERO)
        .unwrap();
    let ids: Vec<String> = batch
        .events()
        .iter()
        .map(|event| event.id().to_string())
        .collect();
    assert_eq!(ids, held);
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
    // Where a file system may be mounted.
    let mut mount = Full::FileSystem.command();
    let mount = mount.args(["-c", "mount -t tmpfs tmpfs /mnt"]).status();
    if !mount.is_ok_and(|status| status.success()) {
        println!("no file system can be mounted here: a file's limit had to do");
        return;
    }
    for level in ["buffered", "acknowledged"] {
        a_full_disk(Full::FileSystem, level);
    }
}
