//! The metrics and the health check of a node.

use long_polling::{RedisBackplane, Server};

use crate::exposition::{Families, parse, value};
use crate::server::RedisServer;
use crate::support::{Connection, get, info, until};

const PASSWORD: &str = "password-0f-this-t3st";

fn metrics(server: &Server) -> Families {
    let answer = get(server, "/metrics");
    parse(answer.text()).unwrap_or_else(|error| panic!("{error}\n{}", answer.text()))
}

fn metrics_as_json(server: &Server) -> String {
    let mut connection = Connection::to(server);
    connection.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
    connection.receive().text().to_owned()
}

#[test]
fn a_node_without_redis_is_unhealthy_and_its_metrics_say_so() {
    let mut redis = RedisServer::with(&["--requirepass", PASSWORD]);
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}", redis.port);
    let info = info().metrics_uri("/metrics").health_uri("/health");
    let server = Server::start(info.redis(RedisBackplane::new(url))).unwrap();
    for number in 0..3 {
        server.publish("c", &number).unwrap();
    }
    until("the node has read them", || {
        server.statistics().published == 3
    });
    let families = metrics(&server);
    for (name, number) in [
        ("connected", 1.0),
        ("failing", 0.0),
        ("events_published_total", 3.0),
        ("events_read_total", 3.0),
        ("waiting_publishes", 0.0),
        ("reconnects_total", 0.0),
        ("losses_total", 0.0),
    ] {
        let name = format!("long_polling_backplane_{name}");
        assert_eq!(value(&families, &name), number, "{name}");
    }
    let backplane = serde_json::to_value(server.statistics().backplane).unwrap();
    let of_backplane = |name: &&String| name.starts_with("long_polling_backplane_");
    assert_eq!(
        families.keys().filter(of_backplane).count(),
        backplane.as_object().unwrap().len()
    );
    assert_eq!(get(&server, "/health").status, 200);

    redis.kill();
    until("the node is unhealthy", || {
        get(&server, "/health").status == 503
    });
    let failing = get(&server, "/health");
    assert!(failing.text().contains("the backplane"), "{failing:?}");
    let families = metrics(&server);
    assert_eq!(value(&families, "long_polling_backplane_connected"), 0.0);
    assert_eq!(value(&families, "long_polling_backplane_failing"), 1.0);
    let json = metrics_as_json(&server);
    assert!(
        json.contains(r#""failing":""#) && !json.contains(PASSWORD),
        "{json}"
    );

    redis.start_again();
    until("the node is healthy", || {
        get(&server, "/health").status == 200
    });
    assert!(value(&metrics(&server), "long_polling_backplane_reconnects_total") >= 1.0);
}
