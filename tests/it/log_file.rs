//! The log as a file: its mode, owner and links, other processes that have it, and files that are not logs.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process;
use crate::support::{LIMIT, info, until};
use long_polling::{
    Broker, BrokerOptions, Cursor, Durability, Error, ErrorKind, FilePersistorInfo, Server,
};
use tempfile::TempDir;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    (folder, file)
}

/// Opens a broker whose file is compacted soon.
fn open(file: &Path, durability: Durability) -> Result<Broker, Error> {
    let options = BrokerOptions::new().events_per_category(3);
    let info = FilePersistorInfo::new(file)
        .durability(durability)
        .write_buffer_size(0)
        .write_flush_period(Duration::from_millis(5))
        .compact_from(2000);
    Broker::open(options, info)
}

fn numbers(broker: &Broker) -> Vec<u64> {
    let batch = broker
        .subscribe("c", Cursor::Oldest, Duration::ZERO)
        .unwrap();
    let events = batch.events().iter();
    events.map(|event| event.decode().unwrap()).collect()
}

/// Publishes until the file has been replaced once more.
fn replace(broker: &Broker) {
    let before = broker.statistics().store.rewritten;
    let mut number = 0;
    until("replaced", || {
        number += 1;
        let _ = broker.publish("c", &number);
        until("written", || broker.statistics().store.pending == 0);
        broker.statistics().store.rewritten > before
    });
}

/// Returns the bytes of every file in a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect()
}

/// Returns the file's mode, owner and group.
fn attributes(file: &Path) -> (u32, u32, u32) {
    let metadata = fs::metadata(file).unwrap();
    (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
}

#[test]
fn every_file_that_replaces_the_log_keeps_its_mode_and_owner() {
    let (folder, file) = folder();
    fs::write(&file, "{\"timestamp\":1,\"cat").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    // Only root can give a file away.
    let _ = chown(&file, Some(1000), Some(1000));
    let before = attributes(&file);
    let broker = open(&file, Durability::Buffered).unwrap();
    replace(&broker);
    assert_eq!(attributes(&file), before, "compacted");
    fs::remove_file(&file).unwrap();
    replace(&broker);
    assert_eq!(attributes(&file), before, "written anew");
    broker.stop(LIMIT).unwrap();
    // The text of a damaged line has data of events too.
    let corrupt = folder.path().join("events.db.corrupt-0");
    assert_eq!(attributes(&corrupt), before);
}

#[test]
fn a_log_behind_a_symbolic_link_is_compacted_there() {
    for exists in [false, true] {
        let (folder, link) = folder();
        let volume = folder.path().join("volume");
        fs::create_dir(&volume).unwrap();
        let file = volume.join("real.db");
        if exists {
            fs::write(&file, "").unwrap();
        }
        symlink("volume/real.db", folder.path().join("other")).unwrap();
        symlink("other", &link).unwrap();
        let broker = open(&link, Durability::Buffered).unwrap();
        let first = fs::metadata(&file).unwrap().ino();
        replace(&broker);
        let expected = numbers(&broker);
        broker.stop(LIMIT).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("other"));
        assert_ne!(fs::metadata(&file).unwrap().ino(), first);
        assert!(!file.is_symlink() && fs::metadata(&file).unwrap().len() < 4000);
        assert_eq!(
            numbers(&open(&file, Durability::Buffered).unwrap()),
            expected
        );
    }
}

#[test]
fn a_second_broker_is_refused_under_every_name_of_the_file() {
    let (folder, file) = folder();
    let (symbolic, hard) = (folder.path().join("symbolic"), folder.path().join("hard"));
    fs::write(&file, "").unwrap();
    symlink(&file, &symbolic).unwrap();
    fs::hard_link(&file, &hard).unwrap();
    let names = [file, symbolic, hard, folder.path().join("./events.db")];
    for first in &names {
        let broker = open(first, Durability::Buffered).unwrap();
        broker.publish("c", &1).unwrap();
        let before = files(folder.path()).into_keys().collect::<Vec<_>>();
        for second in &names {
            let error = open(second, Durability::Buffered).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::File);
            let message = error.to_string();
            assert!(message.contains("another process has it"), "{message}");
        }
        // A start that was refused leaves no lock file behind.
        assert!(files(folder.path()).into_keys().eq(before));
        broker.stop(LIMIT).unwrap();
    }
}

#[test]
fn a_second_broker_is_refused_after_the_file_was_replaced_and_its_lock_file_removed() {
    let (folder, file) = folder();
    let broker = open(&file, Durability::Buffered).unwrap();
    replace(&broker);
    fs::remove_file(folder.path().join("events.db.lock")).unwrap();
    let error = open(&file, Durability::Buffered).unwrap_err();
    assert!(
        error.to_string().contains("another process has it"),
        "{error}"
    );
    assert!(!folder.path().join("events.db.lock").exists());
    broker.stop(LIMIT).unwrap();
    open(&file, Durability::Buffered).unwrap();
}

#[test]
fn a_log_of_another_broker_in_the_place_of_this_one_is_left_alone() {
    let (folder, file) = folder();
    let broker = open(&file, Durability::Acknowledged).unwrap();
    broker.publish("c", &1).unwrap();
    fs::remove_file(&file).unwrap();
    fs::remove_file(folder.path().join("events.db.lock")).unwrap();
    let other = open(&file, Durability::Acknowledged).unwrap();
    until("the publish is refused", || {
        assert!(broker.publish("c", &2).is_err());
        let failing = broker.statistics().store.failing;
        failing.is_some_and(|reason| reason.contains("another process uses the new one"))
    });
    other.publish("c", &3).unwrap();
    assert!(broker.stop(LIMIT).is_err());
    other.stop(LIMIT).unwrap();
    assert_eq!(
        numbers(&open(&file, Durability::Acknowledged).unwrap()),
        [3]
    );
}

#[test]
fn a_log_that_was_removed_is_written_anew_before_anything_more_is_acknowledged() {
    for durability in [Durability::Buffered, Durability::Acknowledged] {
        let (folder, file) = folder();
        let broker = open(&file, durability).unwrap();
        broker.publish("c", &1).unwrap();
        until("written", || broker.statistics().store.pending == 0);
        fs::remove_file(&file).unwrap();
        until("a publish is accepted", || broker.publish("c", &2).is_ok());
        until("the file is there again", || {
            fs::read_to_string(&file).is_ok_and(|text| text.contains("\"data\":2"))
        });
        until("counted", || {
            let store = broker.statistics().store;
            store.failures > 0 && store.rewritten > 0
        });
        // A kill would leave these bytes.
        let copy = folder.path().join("copy");
        fs::copy(&file, &copy).unwrap();
        assert_eq!(numbers(&open(&copy, durability).unwrap()), [1, 2]);
        broker.stop(LIMIT).unwrap();
    }
}

#[test]
fn a_file_with_another_hard_link_is_not_compacted() {
    let (folder, file) = folder();
    fs::write(&file, "").unwrap();
    fs::hard_link(&file, folder.path().join("backup")).unwrap();
    let broker = open(&file, Durability::Buffered).unwrap();
    for number in 0..200 {
        broker.publish("c", &number).unwrap();
        until("written", || broker.statistics().store.pending == 0);
    }
    assert_eq!(broker.statistics().store.rewritten, 0);
    assert_eq!(broker.statistics().store.failures, 0);
    broker.stop(LIMIT).unwrap();
    let metadata = fs::metadata(&file).unwrap();
    assert!(metadata.nlink() == 2 && metadata.len() > 20_000);
}

#[test]
fn a_file_that_is_no_log_is_refused_and_left_as_it_is() {
    let (folder, file) = folder();
    let mut random = fastrand::Rng::with_seed(7);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take(300_000)
        .collect();
    // Not this test program, which has lines of logs in it.
    let program = fs::read("/bin/sh").unwrap();
    for (what, content) in [
        ("random bytes", &noise[..]),
        ("a program", &program[..program.len().min(1 << 20)]),
        ("a configuration", b"{\n  \"address\": \"0.0.0.0:80\"\n}\n"),
        ("JSON on one line", b"{\"address\":\"0.0.0.0:80\"}"),
        ("text", b"# Notes\n\nSome text.\n"),
        ("text that ends within a line", b"some text"),
        (
            "another program's log",
            b"{\"timestamp\":1700000000,\"level\":\"info\",\"message\":\"x\"}\n",
        ),
    ] {
        fs::write(&file, content).unwrap();
        fs::write(folder.path().join("events.db.new"), "of another program").unwrap();
        let before = files(folder.path());
        let error = open(&file, Durability::Buffered).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::File, "{what}");
        let message = error.to_string();
        assert!(
            message.contains("it is no log") && message.contains("name another file"),
            "{message}"
        );
        assert!(files(folder.path()) == before, "{what}");
    }
}

#[test]
fn a_start_that_is_refused_leaves_no_lock_file() {
    let (folder, file) = folder();
    let bad_option = BrokerOptions::new().events_per_category(0);
    assert!(Broker::open(bad_option, FilePersistorInfo::new(&file)).is_err());
    let bad_file = FilePersistorInfo::new(&file).max_queue_size(0);
    assert!(Broker::open(BrokerOptions::default(), bad_file).is_err());
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let info = info().address(occupied.local_addr().unwrap().to_string());
    let refused = Server::start(info.file(FilePersistorInfo::new(&file)));
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::Listen);
    assert!(open(folder.path(), Durability::Buffered).is_err());
    assert!(
        open(
            &folder.path().join("no folder/events.db"),
            Durability::Buffered
        )
        .is_err()
    );
    assert!(
        files(folder.path()).is_empty(),
        "{:?}",
        files(folder.path())
    );
}

#[test]
fn a_log_in_a_folder_that_may_not_be_written_is_used_and_not_compacted() {
    let (folder, file) = folder();
    fs::write(&file, "").unwrap();
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o555)).unwrap();
    let is_root = fs::write(folder.path().join("probe"), "").is_ok();
    let mut command = Command::new(&program);
    if is_root {
        // Root may write to any folder, other users may not.
        chown(&file, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
        command.uid(OTHER_USER).gid(OTHER_USER);
    }
    let test = "log_file::use_a_log_in_a_folder_that_may_not_be_written";
    let output = process::run(&mut command, test, file.to_str().unwrap()).output();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let output = output.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "{output:?}"
    );
}

/// A user who owns nothing else.
const OTHER_USER: u32 = 54_321;

#[test]
#[ignore = "a_log_in_a_folder_that_may_not_be_written_is_used_and_not_compacted runs it in a process of its own"]
fn use_a_log_in_a_folder_that_may_not_be_written() {
    let Some(file) = process::argument() else {
        return;
    };
    let file = Path::new(&file);
    assert!(fs::write(file.with_file_name("probe"), "").is_err());
    let broker = open(file, Durability::Acknowledged).unwrap();
    for number in 0..100 {
        broker.publish("c", &number).unwrap();
    }
    assert_eq!(broker.statistics().store.rewritten, 0);
    assert!(open(file, Durability::Acknowledged).is_err());
    broker.stop(LIMIT).unwrap();
    let broker = open(file, Durability::Acknowledged).unwrap();
    assert_eq!(numbers(&broker), [97, 98, 99]);
    broker.stop(LIMIT).unwrap();
}
