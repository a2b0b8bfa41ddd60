//! [`RedisServer`]: a redis-server that a test starts, pauses, kills and starts again.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use long_polling::{Broker, BrokerOptions, RedisBackplane};
use redis::{Client, Connection};
use tempfile::TempDir;

use crate::ports::ClosedPort;
use crate::support::until;

/// A redis-server. It is killed when this is dropped.
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    /// Keeps the port while the process is killed, too.
    _kept: ClosedPort,
    pub(crate) folder: TempDir,
    options: Vec<String>,
    process: Child,
}

fn spawn(port: u16, folder: &Path, options: &[String]) -> Child {
    let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let mut command = Command::new(program);
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--dir"])
        .arg(folder)
        .args(options)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command
        .spawn()
        .expect("redis-server: install the package redis-server")
}

impl RedisServer {
    /// Starts one that keeps nothing on the disk.
    pub(crate) fn start() -> Self {
        RedisServer::with(&[])
    }

    /// Starts one that has every event on the disk before it answers.
    pub(crate) fn with_appendfsync_always() -> Self {
        RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kept = ClosedPort::for_a_server();
        let port = kept.address.port();
        let options: Vec<String> = options.iter().map(|option| option.to_string()).collect();
        let process = spawn(port, folder.path(), &options);
        let mut server = RedisServer {
            port,
            _kept: kept,
            folder,
            options,
            process,
        };
        server.wait();
        server
    }

    fn wait(&mut self) {
        until("redis-server answers", || {
            let ended = self.process.try_wait().unwrap();
            let log = || fs::read_to_string(self.folder.path().join("log"));
            assert!(ended.is_none(), "redis-server ended: {ended:?} {:?}", log());
            self.answers()
        });
    }

    fn answers(&self) -> bool {
        let client = Client::open(self.url()).unwrap();
        let Ok(mut connection) = client.get_connection() else {
            return false;
        };
        // A server with a password answers, too.
        match redis::cmd("PING").query::<String>(&mut connection) {
            Ok(_) => true,
            Err(error) => error.code() == Some("NOAUTH"),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn connection(&self) -> Connection {
        Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// Runs a command, given as words.
    pub(crate) fn run(&self, command: &str) -> redis::Value {
        let mut words = command.split_whitespace();
        let mut cmd = redis::cmd(words.next().unwrap());
        words.for_each(|word| _ = cmd.arg(word));
        cmd.query(&mut self.connection()).unwrap()
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, with its folder and port.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(self.port, self.folder.path(), &self.options);
        self.wait();
    }

    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.unwrap().success());
    }

    pub(crate) fn backplane(&self) -> RedisBackplane {
        RedisBackplane::new(self.url())
    }

    /// A node without HTTP.
    pub(crate) fn node(&self) -> Broker {
        Broker::connect(BrokerOptions::new(), self.backplane()).unwrap()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // A paused process is killed, too.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
