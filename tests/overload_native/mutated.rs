//! 20,000 requests with random faults. tiny_http would not survive them: some of them hold a thread for good, or end the
//! process.
#![cfg(target_os = "linux")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use fastrand::Rng;

use crate::child::{Limit, Process, Timeouts};
use crate::support::{Connection, LIMIT, until};
use crate::turn::Turn;

const REQUESTS: usize = 20_000;
const CLIENTS: usize = 8;
/// The answer to a publish that has taken effect.
const PUBLISHED: &str = r#"{"success": true}"#;

const GOOD: [&str; 8] = [
    "GET /events?category=a&timeout=0&since_time=1 HTTP/1.1\r\nHost: t\r\n\r\n",
    "GET /events?category=a,b&timeout=1&last_id=0&limit=3 HTTP/1.1\r\nHost: t\r\nAccept: */*\r\n\r\n",
    "POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 25\r\n\r\n{\"category\":\"a\",\"data\":1}",
    "POST /publish HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n\
     5\r\n{\"cat\r\n14;x=y\r\negory\":\"a\",\"data\":1}\r\n0\r\nT: v\r\n\r\n",
    "POST /publish HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 25\r\n\r\n\
     {\"category\":\"b\",\"data\":2}",
    "HEAD /events?category=b&timeout=0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    "GET http://t/nowhere HTTP/1.1\r\nHost: t\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
];

/// Pieces that matter to a parser.
const PIECES: [&[u8]; 20] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"\xff",
    b"Content-Length: 99999999999999\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 9223372036854775807\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Connection: upgrade\r\n",
    b"Expect: 100-continue\r\n",
    b"ffffffffffffffff\r\n",
    b"HTTP/2.0",
    b"POST /publish HTTP/1.1\r\nHost: t\r\nContent-Length: 25\r\n\r\n{\"category\":\"h\",\"data\":3}",
];

/// One or two good requests with up to four faults.
fn mutated(random: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..=2) {
        bytes.extend_from_slice(GOOD[random.usize(..GOOD.len())].as_bytes());
    }
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(..=bytes.len());
        let end = random.usize(at..=bytes.len().min(at + 16));
        match random.u8(..5) {
            0 => bytes[at..end]
                .iter_mut()
                .for_each(|byte| *byte ^= 1 << random.u8(..8)),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, PIECES[random.usize(..PIECES.len())].iter().copied())),
            3 => bytes.truncate(at),
            _ => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }
    bytes
}

/// Sends a request as a client does that reads on until the server hangs up. Returns the number of publishes that the
/// server has confirmed, and whether the client has read all that the server sent.
fn send(address: SocketAddr, bytes: &[u8]) -> (usize, bool) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    let sent = stream
        .write_all(bytes)
        .and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answers = Vec::new();
    let read = stream.read_to_end(&mut answers);
    if let Err(error) = &read {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{bytes:?}");
    }
    let answers = String::from_utf8_lossy(&answers);
    (
        answers.matches(PUBLISHED).count(),
        sent.is_ok() && read.is_ok(),
    )
}

fn good_publish(address: SocketAddr) -> u16 {
    let mut connection = Connection::open(address);
    connection.publish(r#"{"category":"good","data":1}"#);
    connection.receive().status
}

#[test]
fn requests_with_random_faults_publish_nothing_that_was_refused_and_leave_nothing_behind() {
    let _turn = Turn::take();
    let process = Process::start(&Limit::None, &Timeouts(10_000, 2_000));
    let address = process.address;
    assert_eq!(good_publish(address), 200);
    until("the first connection has ended", || process.threads() <= 4);
    let (threads, descriptors) = (process.threads(), process.descriptors());

    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let clients: Vec<(usize, usize)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || {
                    let mut random = Rng::with_seed(seed + client as u64);
                    let (mut confirmed, mut cut) = (0, 0);
                    for round in 0..REQUESTS / CLIENTS {
                        let (published, whole) = send(address, &mutated(&mut random));
                        confirmed += published;
                        cut += usize::from(!whole);
                        if round % 100 == 0 {
                            assert_eq!(good_publish(address), 200);
                            confirmed += 1;
                        }
                    }
                    (confirmed, cut)
                })
            })
            .collect();
        let results = clients
            .into_iter()
            .map(|client| client.join().expect("no panic"));
        results.collect()
    });
    let confirmed = 1 + clients
        .iter()
        .map(|(confirmed, _)| confirmed)
        .sum::<usize>();
    let cut: usize = clients.iter().map(|(_, cut)| cut).sum();

    let published = process.published();
    // A client that was cut off may have missed the answer to each of its publishes, at most four.
    assert!(
        (confirmed..=confirmed + 4 * cut).contains(&published),
        "{published} published, {confirmed} confirmed, {cut} connections cut off"
    );
    assert!(
        confirmed > REQUESTS / 20,
        "only {confirmed} publishes were good"
    );
    assert!(cut < REQUESTS / 100, "{cut} connections were cut off");
    until("threads and descriptors are back", || {
        process.threads() <= threads && process.descriptors() <= descriptors
    });
    assert!(process.stop());
}
