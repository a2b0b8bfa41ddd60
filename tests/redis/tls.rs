//! TLS to Redis, with a certificate authority of the test's own. Needs the program `openssl`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use long_polling::{Broker, BrokerOptions, RedisBackplane};

use crate::basics::held;
use crate::ports::ClosedPort;
use crate::process;
use crate::server::RedisServer;
use crate::support::until;

#[test]
#[ignore = "not a test: a node that trusts the authority that SSL_CERT_FILE names"]
fn publish_as_a_process() {
    let Some(url) = process::argument() else {
        return;
    };
    let backplane = RedisBackplane::new(url).max_wait(Duration::ZERO);
    let node = Broker::connect(BrokerOptions::new(), backplane).unwrap();
    node.publish("c", "secret").unwrap();
    until("the event is read", || held(&node, "c") == ["secret"]);
}

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(folder);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = command
        .status()
        .expect("openssl: install the package openssl");
    assert!(status.success(), "{arguments}");
}

#[test]
fn a_node_connects_over_tls_and_only_to_a_redis_that_it_trusts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost").unwrap();
    for arguments in [
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout redis.key -out redis.csr",
        "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out redis.pem",
    ] {
        openssl(folder, arguments);
    }
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let kept = ClosedPort::for_a_server();
    let (port, ca, key, certificate) = (
        kept.address.port().to_string(),
        path("ca.pem"),
        path("redis.key"),
        path("redis.pem"),
    );
    let redis = RedisServer::with(&[
        "--tls-port",
        &port,
        "--tls-ca-cert-file",
        &ca,
        "--tls-key-file",
        &key,
        "--tls-cert-file",
        &certificate,
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://localhost:{port}");
    let node = |trusted: &str| {
        let mut command = process::this_program("tls::publish_as_a_process", &url);
        command.env("SSL_CERT_FILE", trusted);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    };
    assert!(node(&ca));
    until("the event is in Redis", || {
        redis.run("XLEN lp:{0}:events") == redis::Value::Int(1)
    });
    // Another authority with the same name.
    openssl(
        folder,
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout o.key -out other.pem",
    );
    assert!(!node(&path("other.pem")));
    assert_eq!(redis.run("XLEN lp:{0}:events"), redis::Value::Int(1));
}
