//! The persistor on real files.

use std::fs;
use std::time::Instant;

use tempfile::TempDir;

use super::*;
use crate::event::{Draft, Event};
use crate::position::{EventId, Run};

/// An event whose sequence number is its timestamp.
pub(super) fn event(timestamp: u64, data: &str) -> Event {
    let id = EventId::new(Run::new(1_700_000_000_000, 7), timestamp);
    let draft = Draft::new("category".into(), data).unwrap();
    draft.stamp(timestamp, id)
}

pub(super) fn wait_until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "nothing happened for {LIMIT:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

const LIMIT: Duration = Duration::from_secs(20);

fn folder() -> (TempDir, FilePersistorInfo) {
    let folder = tempfile::tempdir().unwrap();
    let info = FilePersistorInfo::new(folder.path().join("events.log"));
    (folder, info)
}

fn open(info: &FilePersistorInfo) -> (FilePersistor, Vec<Event>, Loaded) {
    let mut events = Vec::new();
    let (persistor, loaded) = FilePersistor::open(info, |record| match record {
        Record::Published(event) => events.push(event),
        mark => panic!("{mark:?}"),
    })
    .unwrap();
    assert_eq!(loaded.events, events.len() as u64);
    (persistor, events, loaded)
}

fn append(persistor: &FilePersistor, events: &[Event]) {
    events
        .iter()
        .for_each(|event| persistor.append(Record::Published(event.clone())));
}

#[test]
fn every_event_is_there_again_in_order_after_a_stop() {
    let (_folder, info) = folder();
    let events: Vec<Event> = (1..=5000).map(|number| event(number, "é\n")).collect();
    for part in events.chunks(1250) {
        let (persistor, before, loaded) = open(&info);
        assert_eq!(events[..before.len()], before);
        assert_eq!(loaded.unreadable, 0);
        append(&persistor, part);
        persistor.stop(LIMIT).unwrap();
        assert_eq!(persistor.statistics().written, 1250);
    }
    let (persistor, after, loaded) = open(&info);
    assert_eq!(after, events);
    assert_eq!(loaded.bytes, fs::metadata(&info.file_name).unwrap().len());
    assert_eq!(persistor.statistics().loaded, 5000);
}

#[test]
fn several_threads_may_append_and_no_line_is_mangled() {
    let (_folder, info) = folder();
    let (persistor, ..) = open(&info);
    thread::scope(|scope| {
        for first in 0..4 {
            let persistor = &persistor;
            scope.spawn(move || {
                for number in 0..1000 {
                    persistor.append(Record::Published(event(first * 1000 + number, "x")));
                }
            });
        }
    });
    drop(persistor);
    let (_persistor, events, loaded) = open(&info);
    assert_eq!((events.len(), loaded.unreadable), (4000, 0));
    for thread in 0..4 {
        let of_thread = events
            .iter()
            .filter(|event| event.timestamp() / 1000 == thread);
        assert!(of_thread.is_sorted_by_key(|event| event.timestamp()));
    }
}

#[test]
fn the_file_grows_when_the_buffer_is_full_or_the_period_over() {
    let (_folder, info) = folder();
    for info in [
        FilePersistorInfo {
            write_buffer_size: 2000,
            write_flush_period: Duration::MAX,
            ..info.clone()
        },
        FilePersistorInfo {
            write_buffer_size: usize::MAX,
            write_flush_period: Duration::from_millis(5),
            ..info.clone()
        },
    ] {
        let before = fs::metadata(&info.file_name).map_or(0, |metadata| metadata.len());
        let (persistor, ..) = open(&info);
        append(&persistor, &[event(1, &"x".repeat(2000))]);
        wait_until(|| fs::metadata(&info.file_name).unwrap().len() > before + 2000);
    }
}

#[test]
fn golongpolls_file_is_read_completely_and_continued() {
    let (_folder, info) = folder();
    let line = |timestamp: u64, data: &str| {
        format!(
            "\n{{\"timestamp\":{timestamp},\"category\":\"c\",\"data\":{data},\"id\":\"d1f5a7c2-5d5e-4b0e-9c39-{:012}\"}}",
            timestamp % 1_000_000
        )
    };
    let long = format!("\"{}\"", "x".repeat(70_000));
    let file = line(1_616_040_198_889, r#"{"a":"\u003cb\u003e","n":1.10}"#)
        + &line(1_616_040_198_000, &long)
        + "\n"
        + &line(3, "[null]");
    fs::write(&info.file_name, &file).unwrap();

    let (persistor, mut events, loaded) = open(&info);
    let timestamps: Vec<u64> = events.iter().map(Event::timestamp).collect();
    assert_eq!(timestamps, [1_616_040_198_889, 1_616_040_198_000, 3]);
    assert_eq!(events[0].data(), r#"{"a":"\u003cb\u003e","n":1.10}"#);
    assert_eq!(events[1].data(), long);
    assert_eq!((loaded.unreadable, loaded.ends_with_newline), (0, false));
    drop(persistor);
    assert_eq!(
        fs::read_to_string(&info.file_name).unwrap(),
        file,
        "opening changes nothing"
    );

    let (persistor, ..) = open(&info);
    append(&persistor, &[event(4, "ours"), event(5, "ours")]);
    persistor.stop(LIMIT).unwrap();
    events.extend([event(4, "ours"), event(5, "ours")]);
    let expected = format!("{file}\n{}\n{}\n", events[3], events[4]);
    assert_eq!(fs::read_to_string(&info.file_name).unwrap(), expected);
    assert_eq!(open(&info).1, events);
}

#[test]
fn a_file_cut_anywhere_in_its_last_lines_loses_only_what_was_cut() {
    let (_folder, info) = folder();
    let events: Vec<Event> = (1..=4).map(|number| event(number, "é")).collect();
    let lines: Vec<String> = events.iter().map(|event| format!("{event}\n")).collect();
    let file = lines.concat();
    let last_two = file.len() - lines[2].len() - lines[3].len();
    for cut in last_two..=file.len() {
        fs::write(&info.file_name, &file.as_bytes()[..cut]).unwrap();
        // A line is whole without its newline, too.
        let whole = (0..=4).rfind(|count| lines[..*count].concat().trim_end().len() <= cut);
        let mut expected = events[..whole.unwrap()].to_vec();
        let torn = lines[..expected.len()].concat().len() < cut;

        let (persistor, read, loaded) = open(&info);
        assert_eq!(read, expected, "cut at {cut}");
        assert_eq!(loaded.unreadable, u64::from(torn), "cut at {cut}");
        append(&persistor, &[event(5, "x"), event(6, "x")]);
        persistor.stop(LIMIT).unwrap();

        expected.extend([event(5, "x"), event(6, "x")]);
        let (_persistor, read, loaded) = open(&info);
        assert_eq!(read, expected, "cut at {cut}");
        assert_eq!(loaded.unreadable, u64::from(torn), "cut at {cut}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_setting_and_a_way_out() {
    let (folder, _) = folder();
    fs::write(folder.path().join("file"), "").unwrap();
    for (name, advice) in [
        ("missing/events.log", "its folder does not exist"),
        (".", "it is a folder"),
        ("file/events.log", "it can't be opened"),
    ] {
        let info = FilePersistorInfo::new(folder.path().join(name));
        let error = FilePersistor::open(&info, |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::File);
        let text = error.to_string();
        let path = format!("{:?}", info.file_name);
        for part in ["FilePersistorInfo::file_name", &path, advice, "os error"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let no_period = FilePersistorInfo {
        write_flush_period: Duration::ZERO,
        ..FilePersistorInfo::new("events.log")
    };
    for (info, name) in [
        (no_period, "FilePersistorInfo::write_flush_period"),
        (FilePersistorInfo::new(""), "FilePersistorInfo::file_name"),
    ] {
        let error = FilePersistor::open(&info, |_| {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSetting);
        assert!(error.to_string().starts_with(name), "{error}");
    }
}
