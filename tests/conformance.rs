//! HTTP/1.1 to the letter: the table of bad and odd requests, and pipelining.
#![cfg(feature = "server")]

mod support;

use support::{Connection, buffered, server};

#[test]
fn pipelined_publishes_take_effect_in_order() {
    let server = server();
    let mut connection = Connection::to(&server);
    for round in 0..2000 {
        let mut both = String::new();
        for number in 0..4 {
            let body = format!(r#"{{"category":"c{round}","data":{number}}}"#);
            let length = body.len();
            both.push_str(&format!(
                "POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n{body}"
            ));
        }
        connection.send(&both);
        for _ in 0..4 {
            assert_eq!(connection.receive().status, 200);
        }
        assert_eq!(
            buffered(&server, &format!("c{round}")).data(),
            [0, 1, 2, 3],
            "{round}"
        );
    }
}
