//! [`Prober`]: connections of the server to its own address.
//!
//! A probe helps tiny_http but is never required: it frees connections that tiny_http has stranded, and it keeps `accept`
//! from its time-out. A firewall, SELinux, systemd's `IPAddressDeny` or an address that is gone may forbid it. A probe
//! that fails therefore shows nothing about the server.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::SockRef;

use crate::atomic::AtomicU64;

/// The longest time that one probe takes to connect.
const CONNECT: Duration = Duration::from_millis(100);
/// The pause after a probe that failed: a firewall that drops packets costs `CONNECT` each time.
const BLOCKED: Duration = Duration::from_secs(2);

pub(super) struct Prober {
    /// The address at which this process reaches its own listening socket.
    address: SocketAddr,
    /// Probes that have connected.
    connected: AtomicU64,
    state: Mutex<ProbeState>,
}

#[derive(Default)]
struct ProbeState {
    /// The last probe failed; the next one is due then.
    blocked_until: Option<Instant>,
    /// Probes that have failed one after another. One alone is not logged: it may have met a stop, or a busy moment.
    failures: u32,
    /// A failure has been logged.
    logged: bool,
    /// The error of every probe, in place of a firewall.
    #[cfg(test)]
    forced: Option<i32>,
}

impl Prober {
    pub(super) fn new(listening: SocketAddr) -> Self {
        Prober {
            address: own_address(listening),
            connected: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// True where the last probe failed to connect.
    pub(super) fn is_blocked(&self) -> bool {
        self.state.lock().blocked_until.is_some()
    }

    /// How many probes have connected.
    pub(super) fn connected(&self) -> u64 {
        self.connected.load(Relaxed)
    }

    /// Connects and closes at once.
    pub(super) fn touch(&self) {
        drop(self.connect());
    }

    /// Connects and sends a request; `None` where that is not possible. The connection has to stay open until the
    /// request has been received: tiny_http panics over a request whose connection has been reset.
    pub(super) fn send(&self, request: &str) -> Option<TcpStream> {
        let mut stream = self.connect()?;
        stream.write_all(request.as_bytes()).ok()?;
        Some(stream)
    }

    fn connect(&self) -> Option<TcpStream> {
        let now = Instant::now();
        if self
            .state
            .lock()
            .blocked_until
            .is_some_and(|until| now < until)
        {
            return None;
        }
        let connected = self.try_connect();
        let mut state = self.state.lock();
        match connected {
            Ok(stream) => {
                self.connected.fetch_add(1, Relaxed);
                (state.blocked_until, state.failures) = (None, 0);
                // Closing resets the connection, which leaves none in TIME_WAIT.
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                Some(stream)
            }
            Err(error) if is_out_of_resources(&error) => None,
            Err(error) => {
                state.blocked_until = Some(Instant::now() + BLOCKED);
                state.failures = state.failures.saturating_add(1);
                if state.failures > 1 && !std::mem::replace(&mut state.logged, true) {
                    log::warn!(
                        "the server can't connect to its own address {}: {error}; it serves all the same, but \
                         connections that arrive in a burst may wait for one another: allow connections from this \
                         host to that address",
                        self.address
                    );
                }
                None
            }
        }
    }

    fn try_connect(&self) -> io::Result<TcpStream> {
        #[cfg(test)]
        if let Some(errno) = self.state.lock().forced {
            return Err(io::Error::from_raw_os_error(errno));
        }
        TcpStream::connect_timeout(&self.address, CONNECT)
    }

    /// Makes every probe fail with this error, as a firewall does.
    #[cfg(test)]
    pub(super) fn fail_with(&self, errno: i32) {
        self.state.lock().forced = Some(errno);
    }
}

/// A loopback address for a wildcard. A link-local address keeps its scope, without which it can't be reached.
fn own_address(listening: SocketAddr) -> SocketAddr {
    let mut own = listening;
    match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => own.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => own.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    own
}

/// EMFILE, ENFILE, ENOMEM and ENOBUFS, which pass and say nothing about the address.
fn is_out_of_resources(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = if cfg!(target_os = "linux") { 105 } else { 55 };
    error.kind() == io::ErrorKind::OutOfMemory
        || error
            .raw_os_error()
            .is_some_and(|code| [ENFILE, EMFILE, ENOBUFS].contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddrV6;

    #[test]
    fn the_own_address_is_loopback_for_a_wildcard_and_keeps_the_scope_of_a_link_local_one() {
        for (listening, own) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(
                own_address(listening.parse().unwrap()),
                own.parse().unwrap()
            );
        }
        let link_local = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 7, 3);
        assert_eq!(own_address(link_local.into()), link_local.into());
    }
}
