//! A process of nginx with a configuration of the guide.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::ports::ClosedPort;
use crate::support::{Connection, until};

/// The page of the guide that has the configuration before one server.
pub(crate) const PAGE: &str = include_str!("../../src/guide/deploying.md");

/// Dropping it ends the process.
pub(crate) struct Nginx {
    process: Child,
    pub(crate) address: SocketAddr,
    _port: ClosedPort,
    _folder: TempDir,
}

/// The configuration of nginx on a page of the guide.
pub(crate) fn configuration(page: &str) -> &str {
    let (_, block) = page.split_once("```nginx\n").expect("a block of nginx");
    block.split_once("```").expect("its end").0
}

impl Nginx {
    /// Starts nginx with the configuration of a page, with these replacements, and with a free port in place of `listen`, a
    /// directive of the configuration. Every text that is replaced must occur.
    pub(crate) fn start(page: &str, listen: &str, replacements: &[(&str, &str)]) -> Self {
        let port = ClosedPort::for_a_server();
        let address = port.address;
        let here = format!("listen {address};");
        let mut site = configuration(page).to_owned();
        for (written, tested) in [(listen, &*here)].iter().chain(replacements) {
            assert!(site.contains(written), "{written} is not on the page");
            site = site.replace(written, tested);
        }
        let folder = tempfile::tempdir().unwrap();
        let configuration = folder.path().join("nginx.conf");
        // One process, so that killing it ends nginx whole, and no file outside of the folder.
        let text = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr;
            events {{ worker_connections 1024; }}
            http {{
                access_log off; client_body_temp_path body; proxy_temp_path proxy;
                fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                {site}
            }}"
        );
        fs::write(&configuration, text).unwrap();
        let mut process = Command::new(program())
            .args([Path::new("-e"), Path::new("stderr"), Path::new("-p")])
            .args([folder.path(), Path::new("-c"), &configuration])
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx starts");
        until("nginx accepts connections", || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "nginx ended: {ended:?}");
            TcpStream::connect(address).is_ok()
        });
        Nginx {
            process,
            address,
            _port: port,
            _folder: folder,
        }
    }

    /// Starts nginx with the configuration of the page `deploying`, with all differences from it: addresses, no TLS, times
    /// that a test can wait for, and the test's own replacements. Every text that is replaced must occur.
    pub(crate) fn changed(upstream: impl ToString, more: &[(&str, &str)]) -> Self {
        let upstream = upstream.to_string();
        let mut replacements = vec![
            ("ssl_certificate     /etc/ssl/events.example.com.pem;", ""),
            ("ssl_certificate_key /etc/ssl/events.example.com.key;", ""),
            ("127.0.0.1:8080", &*upstream),
            ("client_header_timeout 10s", "client_header_timeout 1s"),
            ("client_body_timeout 10s", "client_body_timeout 2s"),
        ];
        replacements.extend(more);
        Nginx::start(PAGE, "listen 443 ssl http2;", &replacements)
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.process.kill().expect("nginx can be killed");
        self.process.wait().expect("nginx has ended");
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    let mut programs = folders.iter().map(|folder| folder.join("nginx"));
    let found = programs.find(|program| program.is_file());
    found.expect("no nginx here; install it: apt-get install nginx-light")
}
