//! What can't work is refused with a clear error, and nothing is lost.

use std::time::{Duration, Instant};

use long_polling::{Broker, BrokerOptions, Error, ErrorKind, RedisBackplane, Server, ServerInfo};

use crate::basics::held;
use crate::ports::ClosedPort;
use crate::server::RedisServer;
use crate::support::{LIMIT, info, until};

fn error_of(backplane: RedisBackplane) -> Error {
    Broker::connect(BrokerOptions::new(), backplane).unwrap_err()
}

#[track_caller]
fn refuses(error: Error, kind: ErrorKind, words: &[&str]) {
    let report = error.report().to_string();
    assert_eq!(error.kind(), kind, "{report}");
    for words in words {
        assert!(report.contains(words), "{report:?} has no {words:?}");
    }
}

#[test]
fn a_redis_that_is_not_there_and_a_wrong_url_keep_a_node_from_starting() {
    let closed = ClosedPort::new();
    let nobody = || RedisBackplane::new(format!("redis://{}", closed.address));
    refuses(
        error_of(nobody()),
        ErrorKind::Unreachable,
        &["can't be reached", "start it"],
    );
    let wrong = RedisBackplane::new("http://127.0.0.1");
    refuses(
        error_of(wrong),
        ErrorKind::InvalidSetting,
        &["redis: ", "is not the URL"],
    );
    let server = Server::start(ServerInfo::new("127.0.0.1:0").redis(nobody()));
    refuses(
        server.unwrap_err(),
        ErrorKind::Unreachable,
        &["can't be reached"],
    );
}

#[test]
fn a_wrong_password_is_refused_and_the_right_one_is_not() {
    let redis = RedisServer::with(&["--requirepass", "secret"]);
    refuses(
        error_of(redis.backplane()),
        ErrorKind::InvalidSetting,
        &["redis: ", "password"],
    );
    let wrong = RedisBackplane::new(format!("redis://:wrong@127.0.0.1:{}", redis.port));
    refuses(
        error_of(wrong),
        ErrorKind::InvalidSetting,
        &["redis: ", "password in the URL"],
    );
    let right = RedisBackplane::new(format!("redis://:secret@127.0.0.1:{}/1", redis.port));
    let node = Broker::connect(BrokerOptions::new(), right).unwrap();
    node.publish("c", "x").unwrap();
    until("the event is read", || held(&node, "c") == ["x"]);
}

#[test]
fn a_key_of_another_type_is_refused_and_left_alone() {
    let redis = RedisServer::start();
    for key in ["lp:{0}:events", "lp:{0}:state"] {
        redis.run("FLUSHALL");
        redis.run(&format!("SET {key} precious"));
        let words = ["redis: ", "WRONGTYPE", "key_prefix"];
        refuses(
            error_of(redis.backplane()),
            ErrorKind::InvalidSetting,
            &words,
        );
        assert_eq!(
            redis.run(&format!("GET {key}")),
            redis::Value::BulkString("precious".into())
        );
        let node = Broker::connect(BrokerOptions::new(), redis.backplane().key_prefix("other:"));
        node.unwrap().publish("c", "x").unwrap();
    }
}

#[test]
fn deleting_retrievals_are_refused_at_the_start() {
    let redis = RedisServer::start();
    let options = BrokerOptions::new().delete_after_first_retrieval(true);
    let refused = Broker::connect(options, redis.backplane()).unwrap_err();
    refuses(
        refused,
        ErrorKind::InvalidSetting,
        &["delete_after_first_retrieval", "Redis"],
    );
}

#[test]
fn a_redis_whose_memory_is_full_refuses_publishes_and_nothing_else() {
    let redis = RedisServer::with(&["--maxmemory-policy", "noeviction"]);
    let server = Server::start(info().redis(redis.backplane())).unwrap();
    server.publish("c", "before").unwrap();
    until("the event is read", || {
        held(server.broker(), "c") == ["before"]
    });
    redis.run("CONFIG SET maxmemory 1");
    let began = Instant::now();
    let answer = crate::support::publish(&server, r#"{"category":"c","data":"x"}"#);
    answer.refuses(503, "maxmemory");
    assert!(answer.header("Retry-After").is_some());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it was not refused at once"
    );
    assert_eq!(held(server.broker(), "c"), ["before"]);
    assert!(!server.statistics().backplane.unwrap().connected);
    redis.run("CONFIG SET maxmemory 0");
    server.publish("c", "after").unwrap();
    until("the event is read", || {
        held(server.broker(), "c") == ["before", "after"]
    });
    assert!(server.statistics().backplane.unwrap().connected);
}

#[test]
fn while_redis_is_away_publishes_get_503_and_polls_go_on() {
    let mut redis = RedisServer::with_appendfsync_always();
    let backplane = redis.backplane().max_wait(Duration::from_millis(200));
    let server = Server::start(info().redis(backplane)).unwrap();
    let id = server.publish("c", "before").unwrap();
    until("the event is read", || {
        held(server.broker(), "c") == ["before"]
    });
    let mut parked = crate::support::Connection::to(&server);
    parked.ask(
        "GET",
        &format!("/events?category=c&timeout=60&last_id={id}"),
    );
    until("parked", || server.statistics().parked == 1);
    redis.kill();
    until("the node notices", || {
        !server.statistics().backplane.unwrap().connected
    });
    let answer = crate::support::publish(&server, r#"{"category":"c","data":"x"}"#);
    answer.refuses(503, "was not published");
    assert!(answer.header("Retry-After").is_some());
    assert_eq!(crate::support::buffered(&server, "c").data(), ["before"]);
    assert_eq!(server.statistics().parked, 1);
    redis.start_again();
    until("publishes go through", || {
        // A try without an answer may be in the stream.
        server.publish_once("after", "c", "after").is_ok()
    });
    assert_eq!(parked.receive().data(), ["after"]);
    until("no refused event was published", || {
        held(server.broker(), "c") == ["before", "after"]
    });
    server.stop(LIMIT).unwrap();
}

#[test]
fn a_publish_can_wait_for_a_replica_and_a_replica_itself_is_no_redis_for_a_node() {
    let redis = RedisServer::start();
    let backplane = || redis.backplane().wait_for_replicas(1);
    let node = Broker::connect(
        BrokerOptions::new(),
        backplane().max_wait(Duration::from_secs(2)),
    );
    let node = node.unwrap();
    // No replica has it, but all subscribers do.
    let error = node.publish("c", "alone").unwrap_err();
    refuses(
        error,
        ErrorKind::TimedOut,
        &["is published", "0 of 1 replicas"],
    );
    until("the event is read", || held(&node, "c") == ["alone"]);

    let port = redis.port.to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]);
    until("the replica is connected", || {
        format!("{:?}", redis.run("ROLE")).contains(&replica.port.to_string())
    });
    let patient = Broker::connect(BrokerOptions::new(), backplane().max_wait(LIMIT)).unwrap();
    patient.publish("c", "safe").unwrap();
    let read = format!("{:?}", replica.run("XRANGE lp:{0}:events - +"));
    assert!(read.contains(&format!(
        "{:?}",
        redis::Value::BulkString(b"\"safe\"".to_vec())
    )));
    refuses(
        error_of(replica.backplane()),
        ErrorKind::Unreachable,
        &["is a replica"],
    );
}
