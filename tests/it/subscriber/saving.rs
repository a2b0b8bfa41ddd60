//! `Subscriber::save_position`: what a restart continues with, and what happens if the file can't be used.

use std::fs;
use std::path::{Path, PathBuf};

use long_polling::{Cursor, ErrorKind, Subscriber};
use tempfile::TempDir;

use super::{position, subscriber, text};
use crate::scripted::{ScriptedServer, event, events, id, no_events, response};

/// A folder, and the path of a file in it.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.position");
    (folder, file)
}

fn saved(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a file");
    text.strip_suffix('\n').expect("a whole line").to_owned()
}

fn last_id(number: u32) -> String {
    format!("last_id={}", id(number))
}

fn file_error(subscriber: &mut Subscriber) -> String {
    let error = subscriber.next().expect("not the end").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File);
    error.report().to_string()
}

#[test]
fn a_restart_repeats_the_event_that_was_being_processed_and_loses_none() {
    let (folder, file) = folder();
    let server = ScriptedServer::start([events(&[1, 2]), events(&[2, 3])]);
    let mut first = subscriber(&server)
        .start_at(Cursor::Oldest)
        .save_position(&file);
    assert_eq!(text(&mut first), "event 1");
    assert!(!file.exists(), "the first event is not processed yet");
    assert_eq!(text(&mut first), "event 2");
    assert_eq!(saved(&file), last_id(1));
    drop(first);
    assert_eq!(server.request().parameter("since_time"), Some("1"));

    let mut second = subscriber(&server)
        .start_at(Cursor::Oldest)
        .save_position(&file);
    assert_eq!(text(&mut second), "event 2");
    assert_eq!(server.request().parameter("last_id"), Some(&*id(1)));
    assert_eq!(text(&mut second), "event 3");
    assert_eq!(saved(&file), last_id(2));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_commit_saves_the_event_that_was_returned_last() {
    let (_folder, file) = folder();
    let server = ScriptedServer::start([events(&[1, 2])]);
    let mut subscriber = subscriber(&server).save_position(&file);
    subscriber.commit().unwrap();
    assert!(!file.exists());
    for (number, event) in [(1, "event 1"), (2, "event 2")] {
        assert_eq!(text(&mut subscriber), event);
        subscriber.commit().unwrap();
        assert_eq!(saved(&file), last_id(number));
    }
    // Without a file there is nothing to save.
    Subscriber::new(server.url("/events"), "c")
        .commit()
        .unwrap();
}

#[test]
fn the_end_saves_the_last_event_that_was_processed() {
    let (_folder, file) = folder();
    let server = ScriptedServer::start([events(&[1])]);
    let mut subscriber = subscriber(&server).save_position(&file);
    text(&mut subscriber);
    subscriber.stopper().stop();
    assert!(subscriber.next().is_none());
    assert_eq!(saved(&file), last_id(1));
}

#[test]
fn responses_without_events_move_the_saved_position() {
    let (_folder, file) = folder();
    let server = ScriptedServer::start([no_events(4), no_events(9), events(&[10])]);
    let mut subscriber = subscriber(&server).save_position(&file);
    assert_eq!(text(&mut subscriber), "event 10");
    assert_eq!(saved(&file), last_id(9));
}

#[test]
fn golongpolls_positions_have_a_time() {
    let (_folder, file) = folder();
    let one = |number| response(200, &[], &format!(r#"{{"events":[{}]}}"#, event(number)));
    let server = ScriptedServer::start([one(50), one(70)]);
    let mut first = subscriber(&server)
        .start_at(Cursor::Oldest)
        .save_position(&file);
    text(&mut first);
    first.commit().unwrap();
    assert_eq!(saved(&file), format!("{}&since_time=50", last_id(50)));
    server.request();
    text(&mut subscriber(&server).save_position(&file));
    let sent = server.request();
    assert_eq!(sent.parameter("last_id"), Some(&*id(50)));
    assert_eq!(sent.parameter("since_time"), Some("50"));
}

#[test]
fn a_damaged_file_ends_the_subscriber_before_its_first_poll() {
    let (folder, file) = folder();
    fs::write(&file, "garbage").unwrap();
    let missing = folder.path().join("missing").join("c.position");
    let server = ScriptedServer::start([events(&[1])]);
    for (file, words) in [
        (&*file, r#"has no position: "garbage""#),
        (&*missing, "does not exist; create it"),
        (folder.path(), "can't read the position"),
    ] {
        let mut subscriber = subscriber(&server)
            .start_at(position(1))
            .save_position(file);
        let error = file_error(&mut subscriber);
        assert!(error.contains(words), "{error}");
        assert!(subscriber.next().is_none());
        subscriber.commit().unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "garbage");
    assert_eq!(server.count_requests(), 0);
}

#[test]
fn a_position_that_cannot_be_saved_is_an_error_before_the_next_event_and_loses_none() {
    let (folder, file) = folder();
    // A folder in the way of the new file.
    let in_the_way = folder.path().join("c.position.new");
    fs::create_dir(&in_the_way).unwrap();
    let server = ScriptedServer::start([events(&[1, 2]), no_events(2), no_events(2), events(&[3])]);
    let mut subscriber = subscriber(&server)
        .start_at(Cursor::Oldest)
        .save_position(&file);
    assert_eq!(text(&mut subscriber), "event 1");
    let error = file_error(&mut subscriber);
    assert!(error.contains("can't save the position"), "{error}");
    assert!(error.contains("c.position"), "{error}");
    assert_eq!(text(&mut subscriber), "event 2");
    file_error(&mut subscriber);
    // The next poll has no event, and the subscriber tries again.
    file_error(&mut subscriber);
    assert!(subscriber.commit().is_err());
    assert!(!file.exists());
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(text(&mut subscriber), "event 3");
    assert_eq!(saved(&file), last_id(2));
}
