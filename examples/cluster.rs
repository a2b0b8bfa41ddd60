//! Three nodes with one history of events in Redis. Each node is a process of its own. Followers change nodes at every poll;
//! one node is killed and started again meanwhile, and the followers miss nothing.
//!
//! ```text
//! cargo run --example cluster --features redis
//! ```
//!
//! It starts a redis-server of its own, where one is installed. `REDIS_SERVER` names another program, such as
//! `valkey-server`.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use long_polling::{
    PublishRequest, RedisBackplane, Server, ServerInfo, SubscriptionRequest, publish, subscription,
};

const EVENTS: usize = 300;
const FOLLOWERS: usize = 4;
/// The longest time for all of it.
const LIMIT: Duration = Duration::from_secs(50);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A process that is killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Serves until standard input is closed: the process of a node.
fn serve(redis: &str, address: &str) -> Outcome<()> {
    let info = ServerInfo::new(address).redis(RedisBackplane::new(redis));
    let server = Server::start(info)?;
    println!("listening on http://{}", server.local_addr());
    io::stdin().read_to_end(&mut Vec::new())?;
    server.stop(Duration::from_secs(10))?;
    Ok(())
}

/// Starts the process of a node, and waits until it listens.
fn start_node(redis: &str, address: &str) -> Outcome<Process> {
    let child = Command::new(env::current_exe()?)
        .args(["node", redis, address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut node = Process(child);
    let output = node.0.stdout.take().ok_or("no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    match line.starts_with("listening on") {
        true => Ok(node),
        false => Err(format!("the node on {address} did not start").into()),
    }
}

/// Follows the events, at another node with each poll. Returns the numbers that came.
fn follow(nodes: &[String], end: Instant) -> Outcome<Vec<usize>> {
    let (mut numbers, mut position) = (Vec::new(), None);
    for at in 0.. {
        if numbers.len() >= EVENTS || Instant::now() > end {
            break;
        }
        let request = SubscriptionRequest::new("numbers").timeout(Duration::from_secs(5));
        let request = match position {
            None => request.since_time(1),
            position => request.last_id(position),
        };
        let url = format!("http://{}/events", nodes[at % nodes.len()]);
        // A node that is down: the next one has the events.
        let Ok(response) = subscription(&url, None, &request, None, None) else {
            continue;
        };
        assert!(!response.gap, "a gap");
        for event in &response.events {
            numbers.push(event.decode()?);
        }
        position = response.last_id.or(position);
    }
    Ok(numbers)
}

/// Publishes the numbers, each through another node.
fn publish_numbers(nodes: &[String], end: Instant) -> Outcome<()> {
    for number in 0..EVENTS {
        let request = PublishRequest::new("numbers", number);
        let accepted = (number..).any(|at| {
            // Not repeated after an exchange that broke: the example does not publish through the node that is killed.
            let url = format!("http://{}/publish", nodes[1 + at % (nodes.len() - 1)]);
            let response = publish(&url, Duration::from_secs(10), None, &request, None, None);
            response.is_ok_and(|response| response.success()) || Instant::now() > end
        });
        if !accepted || Instant::now() > end {
            return Err("the events could not be published in time".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn run(program: &str) -> Outcome<()> {
    let (end, port) = (Instant::now() + LIMIT, free_port()?);
    let folder = env::temp_dir().join(format!("long-polling-cluster-{port}"));
    fs::create_dir_all(&folder)?;
    let redis = Command::new(program)
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .arg("--dir")
        .arg(&folder)
        .stdout(Stdio::null())
        .spawn();
    let _redis = Process(redis?);
    let redis = format!("redis://127.0.0.1:{port}");
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > end {
            return Err("redis-server does not listen".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    let addresses = (0..3).map(|_| Ok(format!("127.0.0.1:{}", free_port()?)));
    let addresses: Vec<String> = addresses.collect::<io::Result<_>>()?;
    let mut nodes = Vec::new();
    for address in &addresses {
        nodes.push(start_node(&redis, address)?);
    }
    println!("three nodes: {}", addresses.join(", "));
    let followed = thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_numbers(&addresses, end));
        let followers: Vec<_> = (0..FOLLOWERS)
            .map(|_| scope.spawn(|| follow(&addresses, end)))
            .collect();
        thread::sleep(Duration::from_millis(300));
        nodes.remove(0);
        println!("killed the node on {}", addresses[0]);
        thread::sleep(Duration::from_millis(500));
        nodes.push(start_node(&redis, &addresses[0])?);
        println!("started it again");
        let joined = |_| "a thread panicked";
        publisher.join().map_err(joined)??;
        let followed = followers
            .into_iter()
            .map(|thread| thread.join().map_err(joined)?);
        followed.collect::<Outcome<Vec<Vec<usize>>>>()
    })?;
    let expected: Vec<usize> = (0..EVENTS).collect();
    let whole = followed.iter().filter(|numbers| **numbers == expected);
    let whole = whole.count();
    println!("{whole} of {FOLLOWERS} followers have all {EVENTS} events, in order and once");
    let _ = fs::remove_dir_all(&folder);
    match whole {
        FOLLOWERS => Ok(()),
        _ => Err("events were lost".into()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    let done = match &arguments[..] {
        [node, redis, address] if node == "node" => serve(redis, address),
        _ if Command::new(&program).arg("--version").output().is_err() => {
            println!(
                "{program} is not installed. On Debian and Ubuntu: apt-get install redis-server. Or name another \
                 program, such as valkey-server, in REDIS_SERVER."
            );
            return ExitCode::SUCCESS;
        }
        _ => run(&program),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
