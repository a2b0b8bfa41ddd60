//! Purging a category: `DELETE` on the endpoint for publishes, and `Broker::purge`.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use long_polling::server::{Handler, Request, Response};
use long_polling::testing::{self, ManualClock};
use long_polling::{
    Broker, BrokerOptions, Cursor, Durability, EventId, FilePersistorInfo, PublishRequest, Server,
};

use crate::support::{
    Answer, Connection, LIMIT, ask, buffered, get, info, poll, server, start, until, until_parked,
};

fn delete(server: &Server, category: &str) -> Answer {
    ask(server, "DELETE", &format!("/publish?category={category}"))
}

#[test]
fn a_delete_purges_one_category_and_answers_204() {
    let server = server();
    for number in 0..3 {
        server.publish("a b", &number).unwrap();
        server.publish("other", &number).unwrap();
    }
    let answer = delete(&server, "a+b");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    answer.has_the_promised_headers();
    let position: EventId = answer.position().parse().unwrap();
    assert_eq!(buffered(&server, "a%20b").status, 204);
    assert_eq!(buffered(&server, "other").ids().len(), 3);
    // Nothing is left to purge.
    let again = delete(&server, "a+b");
    assert_eq!((again.status, again.position()), (204, answer.position()));
    assert_eq!(delete(&server, "unknown").status, 204);
    let next = server.publish("a b", "next").unwrap();
    assert!(next > position);
    assert_eq!(buffered(&server, "a%20b").ids(), [next.to_string()]);
    let statistics = server.statistics();
    assert_eq!((statistics.purged, statistics.published), (3, 7));

    for (query, words) in [
        ("", "category is missing"),
        ("?x=1", "category is missing"),
        ("?category=", "empty category"),
        ("?category=a&category=b", "several categories"),
        ("?category=%ff", "UTF-8"),
    ] {
        ask(&server, "DELETE", &format!("/publish{query}")).refuses(400, words);
    }
    ask(&server, "DELETE", "/events?category=other").refuses(405, "method");
    assert_eq!(buffered(&server, "other").ids().len(), 3);
}

#[test]
fn a_server_purges_and_publishes_several_events_without_http() {
    let server = server();
    let request = |number: i32| PublishRequest::new("c", number);
    let before = server.publish_all(&[request(1), request(2)]).unwrap();
    assert_eq!(buffered(&server, "c").ids().len(), before.len());
    let position = server.purge("c").unwrap();
    assert!(position > before[1]);
    let after = server.publish_all(&[request(3)]).unwrap();
    assert_eq!(buffered(&server, "c").ids(), [after[0].to_string()]);
}

#[test]
fn the_hook_of_publishes_decides_about_a_purge() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let server = start(info().before_publish(move |request: &Request| {
        let category = request.category().unwrap_or_default().to_owned();
        let is_allowed = request.method() != "DELETE" || category == "mine";
        let (method, data) = (request.method().to_owned(), request.data().is_some());
        noted.lock().unwrap().push((method, category, data));
        match is_allowed {
            true => Ok(()),
            false => Err(Response::error(403, "not yours")),
        }
    }));
    server.publish("mine", "x").unwrap();
    server.publish("theirs", "x").unwrap();
    delete(&server, "theirs").refuses(403, "not yours");
    assert_eq!(delete(&server, "mine").status, 204);
    assert_eq!(buffered(&server, "theirs").ids().len(), 1);
    assert_eq!(buffered(&server, "mine").status, 204);
    let expected = ["theirs", "mine"].map(|name| ("DELETE".to_owned(), name.to_owned(), false));
    assert_eq!(*seen.lock().unwrap(), expected);

    let server = start(info().before_publish(Handler::bearer_token("secret")));
    server.publish("c", "x").unwrap();
    delete(&server, "c").refuses(401, "unauthorized");
    let mut connection = Connection::to(&server);
    connection.send(
        "DELETE /publish?category=c HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer secret\r\n\r\n",
    );
    assert_eq!(connection.receive().status, 204);
    assert_eq!(buffered(&server, "c").status, 204);
}

#[test]
fn followers_from_before_a_purge_get_a_gap_with_their_next_events() {
    let server = server();
    let first = server.publish("c", "first").unwrap();
    let last = server.publish("c", "last").unwrap();
    // Some are parked, one of them in two categories; all have received everything.
    let follow = |categories: &'static [&'static str]| {
        let broker = server.broker().clone();
        thread::spawn(move || {
            broker
                .subscribe(categories, Cursor::LastId(last), LIMIT)
                .unwrap()
        })
    };
    let parked = [follow(&["c"]), follow(&["c", "d"])];
    until_parked(&server, 2);
    let target = poll("c", 1, &format!("&last_id={last}"));
    let position = server.broker().purge("c").unwrap();
    // A poll without events keeps the position, so that the next one reports the gap.
    let waited = get(&server, &target);
    assert_eq!(
        (waited.status, waited.position()),
        (204, &*last.to_string())
    );
    let next = server.publish("c", "next").unwrap();
    for thread in parked {
        let batch = thread.join().unwrap();
        assert!(batch.gap(), "{batch:?}");
        assert_eq!(batch.events()[0].id(), next);
        let cursor = Cursor::LastId(batch.last_id());
        let later = server.subscribe("c", cursor, Duration::ZERO).unwrap();
        assert!(!later.gap() && later.events().is_empty());
    }
    for (cursor, gap) in [
        (Cursor::LastId(first), true),
        (Cursor::LastId(last), true),
        (Cursor::LastId(position), false),
        (Cursor::Oldest, false),
    ] {
        let batch = server.subscribe("c", cursor, Duration::ZERO).unwrap();
        let ids: Vec<EventId> = batch.events().iter().map(|event| event.id()).collect();
        assert_eq!((ids, batch.gap()), (vec![next], gap), "{cursor}");
    }
    // Followers of other categories have missed nothing.
    let other = server.subscribe("d", Cursor::LastId(first), Duration::ZERO);
    assert!(!other.unwrap().gap());
}

#[test]
fn a_purged_category_stays_purged_after_a_restart_a_kill_and_a_compaction() {
    for durability in [Durability::Buffered, Durability::Acknowledged] {
        for compact_from in [None, Some(1)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("events.db");
            let open = |path: &std::path::Path| {
                let info = FilePersistorInfo::new(path)
                    .durability(durability)
                    .write_flush_period(Duration::from_millis(1))
                    .compact_from(compact_from);
                Broker::open(BrokerOptions::new(), info).unwrap()
            };
            let broker = open(&path);
            let secret = broker.publish("c", &"secret".repeat(100)).unwrap();
            broker.publish("d", "kept").unwrap();
            broker.purge("c").unwrap();
            let next = broker.publish("c", "next").unwrap();
            let check = |broker: &Broker| {
                let after = broker.subscribe("c", Cursor::LastId(secret), Duration::ZERO);
                let after = after.unwrap();
                let ids: Vec<EventId> = after.events().iter().map(|event| event.id()).collect();
                assert_eq!((ids, after.gap()), (vec![next], true));
                let other = broker.subscribe("d", Cursor::LastId(secret), Duration::ZERO);
                let other = other.unwrap();
                assert_eq!((other.events().len(), other.gap()), (1, false));
            };
            check(&broker);
            until("everything is written", || {
                broker.statistics().store.pending == 0
            });
            if compact_from.is_some() {
                until("the file is compacted", || {
                    broker.publish("e", "x").unwrap();
                    !std::fs::read_to_string(&path).unwrap().contains("secret")
                });
                until("everything is written", || {
                    broker.statistics().store.pending == 0
                });
            }
            // The file that a kill would leave.
            let killed = folder.path().join("killed.db");
            std::fs::copy(&path, &killed).unwrap();
            broker.stop(LIMIT).unwrap();
            if durability == Durability::Acknowledged {
                check(&open(&killed));
            }
            let broker = open(&path);
            check(&broker);
            broker.stop(LIMIT).unwrap();
        }
    }
}

/// The purge is followed by a look for expired events in all categories, the purged one included.
#[test]
fn a_purge_returns_when_other_events_have_expired() {
    let clock = ManualClock::at(1_700_000_000_000);
    let options = BrokerOptions::new().event_ttl(Duration::from_secs(1));
    let broker = testing::broker(options, &clock).unwrap();
    broker.publish("expired", "x").unwrap();
    clock.advance(Duration::from_secs(2));
    broker.publish("c", "x").unwrap();
    clock.advance(Duration::from_millis(500));
    let (done, returned) = mpsc::channel();
    let purging = broker.clone();
    thread::spawn(move || done.send(purging.purge("c")));
    returned.recv_timeout(LIMIT).expect("no deadlock").unwrap();
    assert_eq!(broker.statistics().events, 0);
}
