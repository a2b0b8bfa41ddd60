//! The example `incremental_updates`, a client that saves its position in a file, is killed repeatedly.
#![cfg(unix)]

// Includes the example's code, because its program exists only after a build of the examples.
#[allow(dead_code)]
#[path = "../../examples/incremental_updates.rs"]
mod incremental_updates;

use crate::{process, support};

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use incremental_updates::follow;
use long_polling::{Cursor, EventId, Server};
use process::Process;
use support::{server, until};

const KILLS: usize = 20;
const EVENTS: usize = 2000;
/// The most events that the follower may be behind. The server keeps more.
const MAX_BEHIND: usize = 40;

#[test]
#[ignore = "not a test: the process of the follower"]
fn follow_as_a_process() {
    let Some(arguments) = process::argument() else {
        return;
    };
    let (url, file) = arguments.split_once(' ').expect("a URL and a file");
    follow(url, "updates", Path::new(file), usize::MAX).expect("it runs until it is killed");
}

/// The process of the follower, and the folder of its files.
struct Follower<'a> {
    process: Process,
    folder: &'a Path,
}

/// The result of one run of the follower.
struct FollowerRun {
    /// The numbers of the events that it processed.
    processed: Vec<usize>,
    committed: Option<EventId>,
}

fn position(folder: &Path) -> PathBuf {
    folder.join("position")
}

impl<'a> Follower<'a> {
    fn start(server: &Server, folder: &'a Path) -> Self {
        let (address, position) = (server.local_addr(), position(folder));
        let file = |name| File::create(folder.join(name)).unwrap();
        let arguments = format!("http://{address} {}", position.display());
        let mut command = process::this_program("committed::follow_as_a_process", &arguments);
        command
            .stdin(Stdio::null())
            .stdout(file("log"))
            .stderr(file("errors"));
        let process = Process::start(&mut command);
        Follower { process, folder }
    }

    fn processed(&self) -> Vec<usize> {
        let log = fs::read_to_string(self.folder.join("log")).unwrap();
        let (lines, _) = log.rsplit_once('\n').unwrap_or_default();
        let updates = lines.lines().filter_map(|line| line.split_once("Update: "));
        let numbers = updates.map(|(_, number)| number.parse().unwrap());
        numbers.collect()
    }

    fn committed(&self) -> Option<EventId> {
        // No file before the first commit.
        let text = fs::read_to_string(position(self.folder)).ok()?;
        match text.trim().parse() {
            Ok(Cursor::LastId(id)) => Some(id),
            other => panic!("{other:?} is not the id of an event"),
        }
    }

    /// Kills the process with SIGKILL.
    fn kill(mut self) -> FollowerRun {
        self.process.child.kill().unwrap();
        let status = self.process.child.wait().unwrap();
        assert_eq!(
            status.code(),
            None,
            "the follower ended before it was killed"
        );
        let errors = fs::read_to_string(self.folder.join("errors")).unwrap();
        assert_eq!(errors, "", "a gap or an error");
        FollowerRun {
            processed: self.processed(),
            committed: self.committed(),
        }
    }
}

#[test]
fn a_follower_killed_at_random_goes_on_exactly_after_the_position_that_it_committed() {
    let seed = env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SEED={seed} in the environment draws the same numbers again");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = server();
    let folder = tempfile::tempdir().unwrap();

    let done = AtomicUsize::new(0);
    let publish = |number| {
        until("the follower has caught up", || {
            number < done.load(SeqCst) + MAX_BEHIND
        });
        server.publish("updates", &number).unwrap()
    };
    // Returns `true` if the follower has processed more than before.
    let count = |processed: &[usize]| {
        let last = processed.last();
        last.is_some_and(|last| done.fetch_max(last + 1, SeqCst) <= *last)
    };
    let process_until = |follower: &Follower, enough: usize| {
        while done.load(SeqCst) < enough {
            until("the follower has processed more", || {
                count(&follower.processed())
            });
        }
    };
    let mut runs = Vec::new();
    let ids = thread::scope(|scope| {
        let publisher = scope.spawn(|| (0..EVENTS).map(publish).collect::<Vec<EventId>>());
        for _ in 0..KILLS {
            let follower = Follower::start(&server, folder.path());
            // The kill comes at a random moment, sometimes during the start.
            let more = random.usize(..=EVENTS / KILLS).saturating_sub(20);
            process_until(&follower, EVENTS.min(done.load(SeqCst) + more));
            thread::park_timeout(Duration::from_micros(random.u64(..20_000)));
            let run = follower.kill();
            count(&run.processed);
            runs.push(run);
        }
        let follower = Follower::start(&server, folder.path());
        process_until(&follower, EVENTS);
        let ids = publisher.join().unwrap();
        until("the last event is committed", || {
            follower.committed() == ids.last().copied()
        });
        runs.push(follower.kill());
        ids
    });

    // The event that the next run must begin with.
    let mut next = 0;
    for (at, run) in runs.iter().enumerate() {
        let end = next + run.processed.len();
        let expected: Vec<usize> = (next..end).collect();
        assert_eq!(run.processed, expected, "run {at}");
        let number = |id| ids.iter().position(|other| *other == id).unwrap();
        next = run.committed.map_or(0, |id| number(id) + 1);
        // The last event may have been processed and not committed.
        let least = end - run.processed.len().min(1);
        assert!((least..=end).contains(&next), "run {at}: {next} of {end}");
    }
    assert_eq!(next, EVENTS);
    assert_eq!(server.statistics().gaps, 0);
}
