//! The server on a Unix socket: who may connect, which files are replaced, and what is left after the stop.
#![cfg(unix)]

#[cfg(target_os = "linux")]
use crate::nginx_process::Nginx;
use crate::support;

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use long_polling::server::{Handler, HttpBackend};
use long_polling::{
    Broker, BrokerOptions, Error, ErrorKind, FilePersistorInfo, Server, ServerInfo,
};
use socket2::{Domain, SockAddr, Socket, Type};
use support::{Answer, Connection, LIMIT, info, poll, start, until_parked};
use tempfile::TempDir;

const BODY: &str = r#"{"category":"c","data":1}"#;

/// A folder, and the path of a socket in it.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.sock");
    (folder, path)
}

fn at(path: &Path) -> ServerInfo {
    info().address(format!("unix:{}", path.display()))
}

fn refused(path: &Path) -> Error {
    Server::start(at(path)).expect_err("an error")
}

fn connect(path: &Path) -> Connection {
    let stream = UnixStream::connect(path).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    // std reads and writes any stream in the same way.
    Connection::on(TcpStream::from(OwnedFd::from(stream)))
}

fn publish(path: &Path) -> Answer {
    let mut connection = connect(path);
    connection.publish(BODY);
    connection.receive()
}

#[test]
fn polls_and_publishes_are_served_on_a_unix_socket() {
    let (_folder, path) = folder();
    let server = start(at(&path));
    assert_eq!(server.unix_path(), Some(&*path));
    assert_eq!(server.local_addr(), (Ipv4Addr::UNSPECIFIED, 0).into());
    let shown = format!("{server:?}");
    assert!(
        shown.contains(&format!("unix:{}", path.display())),
        "{shown}"
    );

    let mut parked = connect(&path);
    for _ in 0..2 {
        parked.ask("GET", &poll("c", 60, ""));
        until_parked(&server, 1);
        assert_eq!(publish(&path).status, 200);
        assert_eq!(parked.receive().data(), [1]);
    }
    // A client that hangs up leaves nothing behind.
    parked.ask("GET", &poll("c", 60, ""));
    until_parked(&server, 1);
    drop(parked);
    until_parked(&server, 0);
    assert_eq!(start(info()).unix_path(), None);
}

#[test]
fn a_server_on_tcp_and_one_on_a_unix_socket_have_one_broker() {
    let (_folder, path) = folder();
    let broker = Broker::new(BrokerOptions::new()).unwrap();
    let on_unix = start(at(&path).shared_broker(broker.clone()));
    let on_tcp = start(info().shared_broker(broker));
    let mut parked = Connection::to(&on_tcp);
    parked.ask("GET", &poll("c", 60, ""));
    until_parked(&on_tcp, 1);
    assert_eq!(publish(&path).status, 200);
    assert_eq!(parked.receive().data(), [1]);
    on_unix.stop(LIMIT).unwrap();
    assert_eq!(support::buffered(&on_tcp, "c").data(), [1]);
}

#[test]
fn the_socket_has_the_mode_of_the_settings_or_that_of_the_umask() {
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let (folder, path) = folder();
    for wanted in [0o600, 0o660, 0o666, 0o222] {
        let _server = start(at(&path).socket_mode(wanted));
        assert_eq!(mode(&path), wanted);
    }
    let other = folder.path().join("other.sock");
    let _listener = UnixListener::bind(&other).unwrap();
    let _server = start(at(&path));
    assert_eq!(mode(&path), mode(&other));
}

#[test]
fn a_stale_socket_is_replaced_and_one_that_is_listened_on_is_not() {
    let (_folder, path) = folder();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = start(at(&path));
    assert_eq!(publish(&path).status, 200);

    let error = refused(&path);
    assert_eq!(error.kind(), ErrorKind::Listen);
    let words = error.to_string();
    assert!(
        words.contains("in use") && words.contains("events.sock"),
        "{words}"
    );
    assert_eq!(publish(&path).status, 200);
    drop(server);

    // A program that accepts nothing, and has a full backlog.
    let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let address = SockAddr::unix(&path).unwrap();
    busy.bind(&address).unwrap();
    busy.listen(0).unwrap();
    let clients: Vec<Socket> = (0..4)
        .map(|_| {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&address);
            client
        })
        .collect();
    let words = refused(&path).to_string();
    assert!(words.contains("in use"), "{words}");
    drop(clients);
    assert!(path.exists());
}

#[test]
fn another_kind_of_file_is_an_error_and_stays_as_it_is() {
    let (folder, path) = folder();
    let file = folder.path().join("file");
    fs::write(&file, "kept").unwrap();
    let other_folder = folder.path().join("folder");
    fs::create_dir(&other_folder).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    let datagrams = folder.path().join("datagrams");
    let _datagrams = UnixDatagram::bind(&datagrams).unwrap();
    for path in [&file, &other_folder, &link, &datagrams] {
        let before = fs::symlink_metadata(path).unwrap();
        let error = refused(path);
        assert_eq!(error.kind(), ErrorKind::Listen, "{error}");
        assert!(error.to_string().contains("another path"), "{error}");
        let after = fs::symlink_metadata(path).unwrap();
        assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "kept");
    let missing = refused(&folder.path().join("missing/events.sock"));
    assert_eq!(missing.kind(), ErrorKind::Listen);
    assert!(missing.to_string().contains("folder"), "{missing}");
}

#[test]
fn of_servers_that_start_at_once_one_has_the_socket() {
    const SERVERS: usize = 6;
    let (_folder, path) = folder();
    for _ in 0..5 {
        // Stale, so that each of them would replace it.
        drop(UnixListener::bind(&path).unwrap());
        let barrier = Barrier::new(SERVERS);
        let started: Vec<Result<Server, Error>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..SERVERS)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        Server::start(at(&path))
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = started.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for error in lost.into_iter().map(Result::unwrap_err) {
            assert!(error.to_string().contains("in use"), "{error}");
        }
        assert_eq!(publish(&path).status, 200);
        assert_eq!(won[0].as_ref().unwrap().statistics().published, 1);
    }
}

#[test]
fn the_stop_removes_the_socket_unless_another_program_has_the_path_by_now() {
    let (_folder, path) = folder();
    for _ in 0..20 {
        let server = start(at(&path));
        let mut connection = connect(&path);
        connection.publish(BODY);
        assert_eq!(connection.receive().status, 200);
        let began = Instant::now();
        server.stop(LIMIT).unwrap();
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(connection.is_over());
        assert!(!path.exists());
    }
    let server = start(at(&path));
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    other.set_nonblocking(true).unwrap();
    let began = Instant::now();
    server.stop(LIMIT).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    UnixStream::connect(&path).expect("the other program still has the path");
}

#[test]
fn a_start_that_fails_for_its_file_removes_the_socket() {
    let (folder, path) = folder();
    let error = Server::start(at(&path).file(FilePersistorInfo::new(folder.path()))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::File);
    assert!(!path.exists());
}

#[test]
fn a_relative_path_is_one_of_the_working_directory() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let name = folder.path().file_name().unwrap();
    let path = Path::new(name).join("events.sock");
    let server = start(at(&path));
    let absolute = std::env::current_dir().unwrap().join(&path);
    assert_eq!(server.unix_path(), Some(&*absolute));
    assert_eq!(publish(&path).status, 200);
    server.stop(LIMIT).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_stop_with_parked_polls_leaves_no_connection() {
    let (_folder, path) = folder();
    let server = start(at(&path));
    let mut parked: Vec<Connection> = (0..100)
        .map(|_| {
            let mut connection = connect(&path);
            connection.ask("GET", &poll("c", 60, ""));
            connection
        })
        .collect();
    until_parked(&server, parked.len());
    let began = Instant::now();
    server.stop(LIMIT).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    for connection in &mut parked {
        assert_eq!(connection.receive().status, 204);
        assert!(connection.is_over());
    }
}

#[test]
fn a_path_or_mode_that_cannot_be_used_and_tiny_http_are_named() {
    let (_folder, path) = folder();
    let unix = |path: &str| info().address(format!("unix:{path}"));
    for (info, words) in [
        (unix(""), "address: \"unix:\" has no path"),
        (unix("a\0b"), "address: \"a\\0b\" has a NUL"),
        (unix(&"x".repeat(108)), "address: "),
        (at(&path).socket_mode(0o1666), "socket_mode: 0o1666"),
        (
            at(&path).http_backend(HttpBackend::TinyHttp),
            "address: the server listens on Unix sockets with its native backend only",
        ),
        (
            info()
                .listener(UnixListener::bind(&path).unwrap())
                .http_backend(HttpBackend::TinyHttp),
            "listener: the server listens on Unix sockets with its native backend only",
        ),
    ] {
        let error = Server::start(info).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSetting, "{error}");
        assert!(error.to_string().starts_with(words), "{error}");
    }
}

#[test]
fn a_unix_listener_of_the_program_keeps_its_file_and_its_duplicates() {
    let (_folder, path) = folder();
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for _ in 0..3 {
        let info = info().listener(listener.try_clone().unwrap());
        let server = start(info.socket_mode(0o666));
        assert_eq!(server.unix_path(), Some(&*path));
        assert_eq!(publish(&path).status, 200);
        let began = Instant::now();
        server.stop(LIMIT).unwrap();
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let mut waiting = connect(&path);
    waiting.publish(BODY);
    let server = start(info().listener(listener));
    assert_eq!(waiting.receive().status, 200);
    server.stop(LIMIT).unwrap();
    UnixStream::connect(&path).expect_err("nobody listens");
}

#[test]
fn a_duplicate_of_a_tcp_listener_listens_on_after_the_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..3 {
        let server = start(info().listener(listener.try_clone().unwrap()));
        assert_eq!(support::publish(&server, BODY).status, 200);
        server.stop(LIMIT).unwrap();
    }
    let mut waiting = Connection::open(listener.local_addr().unwrap());
    waiting.publish(BODY);
    let server = start(info().listener(listener));
    assert_eq!(waiting.receive().status, 200);
    assert_eq!(server.statistics().published, 1);
}

/// Another process that accepts on the same socket may get the connection that ends the accept loop.
#[test]
fn a_stop_ends_while_another_thread_accepts_on_a_duplicate() {
    let (_folder, path) = folder();
    let listener = UnixListener::bind(&path).unwrap();
    let other = listener.try_clone().unwrap();
    let accepting = thread::spawn(move || {
        while let Ok((mut stream, _)) = other.accept() {
            let mut first = [0];
            // A connection that sends a byte ends this.
            if std::io::Read::read(&mut stream, &mut first).is_ok_and(|count| count == 1) {
                return;
            }
        }
        panic!("the duplicate does not listen any more");
    });
    let server = start(info().listener(listener));
    let began = Instant::now();
    server.stop(LIMIT).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    let mut last = UnixStream::connect(&path).unwrap();
    std::io::Write::write_all(&mut last, b"x").unwrap();
    accepting.join().unwrap();
}

/// A server whose polls report the address that their hook sees.
fn seen(info: ServerInfo) -> (Server, mpsc::Receiver<Option<SocketAddr>>) {
    let (sender, addresses) = mpsc::channel();
    let server = start(info.before_subscription(Handler::new(move |request| {
        sender.send(request.remote_address()).unwrap();
        Ok(())
    })));
    (server, addresses)
}

#[test]
fn peers_on_a_unix_socket_have_no_address_unless_they_are_trusted() {
    let (_folder, path) = folder();
    let client: SocketAddr = ([192, 0, 2, 7], 0).into();
    let proxy = [198, 51, 100, 1].into();
    let forwarded = "X-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n";
    let through = "X-Forwarded-For: 203.0.113.9, 192.0.2.7, 198.51.100.1\r\n";
    for (trust, fields, expected) in [
        (false, "", None),
        (false, forwarded, None),
        (true, "", None),
        (true, "X-Forwarded-For: unknown\r\n", None),
        (true, forwarded, Some(client)),
        (true, through, Some(client)),
    ] {
        let info = at(&path).trusted_proxies([proxy]).trust_unix_peers(trust);
        let (_server, addresses) = seen(info);
        let mut connection = connect(&path);
        let target = poll("c", 0, "");
        connection.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n{fields}\r\n"));
        assert_eq!(connection.receive().status, 204);
        let address = addresses.recv_timeout(LIMIT).unwrap();
        assert_eq!(address, expected, "{trust} {fields}");
    }
    // On TCP, it gives nobody trust.
    let (server, addresses) = seen(info().trust_unix_peers(true));
    let mut connection = Connection::to(&server);
    let target = poll("c", 0, "");
    connection.send(format!(
        "GET {target} HTTP/1.1\r\nHost: t\r\n{forwarded}\r\n"
    ));
    assert_eq!(connection.receive().status, 204);
    let address = addresses.recv_timeout(LIMIT).unwrap().unwrap();
    assert!(address.ip().is_loopback(), "{address}");
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "needs nginx; .ci/run runs it"]
fn nginx_before_a_unix_socket_passes_polls_and_client_addresses() {
    let (_folder, path) = folder();
    let (server, addresses) = seen(at(&path).socket_mode(0o600).trust_unix_peers(true));
    let nginx = Nginx::changed(format!("unix:{}", path.display()), &[]);
    let mut parked = nginx.connect();
    parked.send(format!(
        "GET {} HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
        poll("c", 60, "")
    ));
    until_parked(&server, 1);
    let address = addresses.recv_timeout(LIMIT).unwrap().unwrap();
    assert_eq!(address, (Ipv4Addr::LOCALHOST, 0).into());
    let mut publisher = nginx.connect();
    publisher.publish(BODY);
    assert_eq!(publisher.receive().status, 200);
    assert_eq!(parked.receive().data(), [1]);
    // A client that hangs up at nginx frees its place in the server.
    parked.ask("GET", &poll("c", 60, ""));
    until_parked(&server, 1);
    drop(parked);
    until_parked(&server, 0);
}
