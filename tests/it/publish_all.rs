//! Several events in one publish: all of them are published, or none.

use std::sync::{Arc, Mutex};

use long_polling::server::{Request, Response};
use long_polling::{Broker, BrokerOptions, ErrorKind, EventId, PublishRequest, Publisher};

use crate::support::{buffered, info, publish, server, start};

pub(crate) fn requests(of: &[&str]) -> Vec<PublishRequest<usize>> {
    let numbered = of.iter().enumerate();
    numbered
        .map(|(number, category)| PublishRequest::new(*category, number))
        .collect()
}

#[test]
fn an_array_publishes_its_events_in_order_with_consecutive_ids() {
    let server = server();
    let body = r#" [{"category":"a","data":1},{"category":"b","data":2},{"category":"a","data":3,"ttl":60}]"#;
    let answer = publish(&server, body);
    assert_eq!(answer.status, 200);
    answer.has_the_promised_headers();
    let json = answer.json();
    assert_eq!(json["success"], true);
    let ids: Vec<&str> = json["ids"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|id| id.as_str())
        .collect();
    assert_eq!((ids.len(), ids[2]), (3, answer.position()));
    assert_eq!(buffered(&server, "a").ids(), [ids[0], ids[2]]);
    assert_eq!(buffered(&server, "b").ids(), [ids[1]]);
    let number = |id: &str| id.parse::<EventId>().unwrap().as_u128() & ((1 << 62) - 1);
    assert_eq!(number(ids[1]), number(ids[0]) + 1);
    assert_eq!(number(ids[2]), number(ids[0]) + 2);

    let publisher = Publisher::new(format!("http://{}/publish", server.local_addr()));
    let response = publisher.publish_all(&requests(&["c", "d"])).unwrap();
    assert_eq!(response.ids().len(), 2);
    assert_eq!(response.id, response.ids().last().copied());
    let one = publisher.publish("c", &5).unwrap();
    assert_eq!(one.ids(), [one.id.unwrap()]);
    let too_many = publisher.publish_all(&requests(&["c"; 1001]));
    assert_eq!(too_many.unwrap_err().kind(), ErrorKind::TooLarge);
    let all = publisher.publish_all(&requests(&["e"; 1000])).unwrap();
    assert_eq!(all.ids().len(), 1000);
}

#[test]
fn one_event_that_can_not_be_published_refuses_all() {
    let options = BrokerOptions::new().max_event_size(10);
    let server = start(info().broker(options));
    let good = r#"{"category":"c","data":1}"#;
    for (events, status, words) in [
        (
            format!("[{good},{{\"category\":\"\",\"data\":1}}]"),
            400,
            "event 2 of 2",
        ),
        (
            format!("[{good},{{\"category\":\"c\"}}]"),
            400,
            "event 2 of 2",
        ),
        (
            format!("[{good},{{\"category\":\"c\",\"data\":null}}]"),
            400,
            "null",
        ),
        (
            format!("[{{\"category\":\"c\",\"data\":\"longer than 10\"}},{good}]"),
            413,
            "max_event_size",
        ),
        (
            format!("[{good},{{\"category\":\"c\",\"data\":1,\"ttl\":-1}}]"),
            400,
            "ttl",
        ),
        (format!("[{good},[\"c\",1]]"), 400, "event 2 of 2"),
        (format!("[{good}"), 400, "the body is not"),
        ("[]".into(), 400, "no events"),
    ] {
        publish(&server, events).refuses(status, words);
    }
    assert_eq!(buffered(&server, "c").status, 204);
    let many = vec![r#"{"category":"c","data":1}"#; 1001].join(",");
    let server = crate::support::server();
    publish(&server, format!("[{many}]")).refuses(413, "1001 events");
    assert_eq!(buffered(&server, "c").status, 204);

    let broker = Broker::new(BrokerOptions::new().max_event_size(10).max_event_bytes(200)).unwrap();
    for (events, kind) in [
        (requests(&[]), ErrorKind::InvalidRequest),
        (requests(&["c"; 1001]), ErrorKind::TooLarge),
        (requests(&["c"; 10]), ErrorKind::TooLarge),
        (requests(&["c", ""]), ErrorKind::InvalidRequest),
    ] {
        assert_eq!(broker.publish_all(&events).unwrap_err().kind(), kind);
    }
    assert_eq!(broker.statistics().published, 0);
    assert_eq!(broker.statistics().refused, 4);
}

#[test]
fn the_hook_of_publishes_runs_for_each_event_and_can_refuse_all() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = calls.clone();
    let server = start(info().before_publish(move |request: &Request| {
        let category = request.category().unwrap_or_default().to_owned();
        let data = request.data().unwrap_or_default().to_owned();
        noted.lock().unwrap().push((category.clone(), data));
        match category.as_str() {
            "theirs" => Err(Response::error(403, "not yours")),
            _ => Ok(()),
        }
    }));
    let body = r#"[{"category":"mine","data":1},{"category":"theirs","data":2},{"category":"mine","data":3}]"#;
    publish(&server, body).refuses(403, "not yours");
    assert_eq!(buffered(&server, "mine").status, 204);
    let call = |category: &str, data: &str| (category.to_owned(), data.to_owned());
    let expected = [call("mine", "1"), call("theirs", "2")];
    assert_eq!(*calls.lock().unwrap(), expected);
    let body = r#"[{"category":"mine","data":1},{"category":"mine","data":3}]"#;
    assert_eq!(publish(&server, body).status, 200);
    assert_eq!(calls.lock().unwrap().len(), 4);
}
