//! A Redis Cluster of three masters, among which the streams are spread.

use long_polling::{Broker, BrokerOptions};

use crate::basics::held;
use crate::ports::ClosedPort;
use crate::server::RedisServer;
use crate::support::until;

const STREAMS: usize = 12;

/// Three masters that have a third of the slots each, and what keeps the ports between them.
fn cluster() -> (Vec<RedisServer>, Vec<ClosedPort>) {
    let bus: Vec<ClosedPort> = (0..3).map(|_| ClosedPort::for_a_server()).collect();
    let start = |bus: &ClosedPort| {
        let port = bus.address.port().to_string();
        RedisServer::with(&["--cluster-enabled", "yes", "--cluster-port", &port])
    };
    let masters: Vec<RedisServer> = bus.iter().map(start).collect();
    for (master, slots) in masters.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        master.run(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
    }
    for (master, bus) in masters.iter().zip(&bus) {
        let bus = bus.address.port();
        masters[0].run(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", master.port));
    }
    for master in &masters {
        until("the cluster is complete", || {
            let nodes = format!("{:?}", master.run("CLUSTER NODES"));
            let info = format!("{:?}", master.run("CLUSTER INFO"));
            info.contains("cluster_state:ok") && nodes.matches("connected").count() >= 3
        });
    }
    (masters, bus)
}

#[test]
fn streams_spread_over_the_masters_of_a_redis_cluster() {
    let (masters, _bus) = cluster();
    // Each node starts at another master.
    let node = |at: usize| {
        let backplane = masters[at].backplane().streams(STREAMS);
        Broker::connect(BrokerOptions::new(), backplane).unwrap()
    };
    let nodes = [node(0), node(1), node(2)];
    let categories: Vec<String> = (0..60).map(|number| format!("category {number}")).collect();
    for (at, category) in categories.iter().enumerate() {
        nodes[at % 3].publish(category, category).unwrap();
    }
    for node in &nodes {
        for category in &categories {
            until("every node has the event", || {
                held(node, category) == [category.as_str()]
            });
        }
    }
    for master in &masters {
        let redis::Value::Int(keys) = master.run("DBSIZE") else {
            panic!("no number");
        };
        assert!(keys >= 2, "a master has no stream");
    }
}
