//! nginx before the nodes, with the configuration of the guide: it needs nginx, and is ignored otherwise.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use long_polling::{Cursor, Publisher, Server, Subscriber};

use crate::server::{RedisServer, free_port};
use crate::support::{LIMIT, info, until};

const PAGE: &str = include_str!("../../src/guide/redis.md");

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts nginx with the guide's configuration, but for the addresses and TLS.
fn nginx(folder: &std::path::Path, nodes: &[SocketAddr]) -> (Nginx, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (_, block) = PAGE.split_once("```nginx\n").expect("a block of nginx");
    let mut site = block.split_once("```").expect("its end").0.to_owned();
    let listen = format!("listen {address};");
    let nodes = nodes.iter().map(SocketAddr::to_string);
    let nodes: Vec<String> = nodes.collect();
    for (written, tested) in [
        ("10.0.0.1:8080", &*nodes[0]),
        ("10.0.0.2:8080", &nodes[1]),
        ("10.0.0.3:8080", &nodes[2]),
        ("listen 80;", &listen),
    ] {
        assert!(
            site.contains(written),
            "{written} is not in src/guide/redis.md"
        );
        site = site.replace(written, tested);
    }
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; client_body_temp_path body; proxy_temp_path proxy;
            fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            {site}
        }}"
    );
    let configuration = folder.join("nginx.conf");
    fs::write(&configuration, text).unwrap();
    let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"];
    let program = program
        .iter()
        .find(|path| std::path::Path::new(path).exists());
    let process = Command::new(program.expect("nginx: install the package nginx-light"))
        .args(["-e", "stderr", "-p"])
        .arg(folder)
        .arg("-c")
        .arg(&configuration)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let nginx = Nginx(process);
    until("nginx accepts connections", || {
        TcpStream::connect(address).is_ok()
    });
    (nginx, address)
}

#[test]
#[ignore = "needs nginx"]
fn a_follower_behind_nginx_misses_nothing_while_nodes_come_and_go() {
    let redis = RedisServer::start();
    let start = |address: &str| {
        let info = info().address(address).redis(redis.backplane());
        Server::start(info).unwrap()
    };
    let mut nodes: Vec<Server> = (0..3).map(|_| start("127.0.0.1:0")).collect();
    let addresses: Vec<SocketAddr> = nodes.iter().map(Server::local_addr).collect();
    let folder = tempfile::tempdir().unwrap();
    let (_nginx, address) = nginx(folder.path(), &addresses);
    let url = format!("http://{address}");
    let soon = Duration::from_millis(10);
    let events = Subscriber::new(format!("{url}/events"), "c")
        .start_at(Cursor::Oldest)
        .backoff(soon, soon);
    let publisher = Publisher::new(format!("{url}/publish"));
    publisher.publish("c", &0).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..300 {
                // A publish over nginx could meet a node that stops, and nginx does not repeat it.
                nodes[number % 3].publish("c", &number).unwrap();
                if number % 100 == 50 {
                    let at = number / 100;
                    nodes[at].stop(LIMIT).unwrap();
                    nodes[at] = start(&addresses[at].to_string());
                }
            }
        });
        let mut seen = Vec::new();
        for event in events.take(300) {
            seen.push(event.unwrap().decode::<usize>().unwrap());
        }
        assert_eq!(seen, (0..300).collect::<Vec<_>>());
    });
}
