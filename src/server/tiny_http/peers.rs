//! The clients that are connected, as the system lists them: tiny_http does not report that a client has hung up.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::net::SocketAddr;

/// The peers with an open connection to `local`'s port. `None` where the system has no list of them.
///
/// A peer that has hung up is not among them, and neither is one that has closed its own direction only: a client that
/// does so and still waits for its answer looks the same as one that has gone.
pub(super) fn connected(local: SocketAddr) -> Option<HashSet<SocketAddr>> {
    let mut peers = HashSet::new();
    let mut known = false;
    for table in linux::TABLES {
        let Ok(table) = File::open(table) else {
            continue;
        };
        known = true;
        // Line by line: with thousands of connections the whole is megabytes.
        let lines = BufReader::with_capacity(64 * 1024, table).lines();
        for line in lines.map_while(Result::ok) {
            peers.extend(linux::established(&line, local.port()));
        }
    }
    known.then_some(peers)
}

/// How many connections have been opened to any listening socket of the system, this server's and others'.
pub(super) struct OpenedConnections {
    /// Linux's table of counters, kept open. `None` where there is none.
    counters: Option<File>,
}

impl OpenedConnections {
    pub(super) fn new() -> Self {
        OpenedConnections {
            counters: File::open(linux::COUNTERS).ok(),
        }
    }

    /// Returns the count. `None` where the system has none. It takes 20 microseconds, whereas [`connected`] takes
    /// milliseconds: for that, the kernel walks its table of all sockets.
    pub(super) fn count(&mut self) -> Option<u64> {
        let counters = self.counters.as_mut()?;
        let mut text = [0; 4096];
        counters.rewind().ok()?;
        let length = counters.read(&mut text).ok()?;
        linux::passive_opens(std::str::from_utf8(&text[..length]).ok()?)
    }
}

/// True where the system lists connections, so that [`connected`] gives them.
pub(super) fn are_listed() -> bool {
    linux::TABLES.iter().any(|table| File::open(table).is_ok())
}

/// The address as [`connected`] gives it: the system's table has no scope of a link-local address.
pub(super) fn without_scope(mut remote: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(remote) = &mut remote {
        remote.set_scope_id(0);
        remote.set_flowinfo(0);
    }
    remote
}

/// The tables of connections in Linux's proc(5) file system; elsewhere they are not there.
mod linux {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    pub(super) const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

    pub(super) const COUNTERS: &str = "/proc/self/net/snmp";

    const ESTABLISHED: &str = "01";

    /// The counter of this name in the two lines `Tcp: …`, of which the first has the names and the second the values.
    pub(super) fn passive_opens(counters: &str) -> Option<u64> {
        let mut lines = counters.lines().filter(|line| line.starts_with("Tcp: "));
        let mut names = lines.next()?.split(' ');
        let at = names.position(|name| name == "PassiveOpens")?;
        lines.next()?.split(' ').nth(at)?.parse().ok()
    }

    /// The peer of a line such as `0: 0100007F:1F90 0100007F:A3C2 01 …`, if it is an open connection to this port.
    pub(super) fn established(line: &str, port: u16) -> Option<SocketAddr> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let local_port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        if state != ESTABLISHED || local_port != port {
            return None;
        }
        let (ip, port) = remote.rsplit_once(':')?;
        Some(SocketAddr::new(
            address(ip)?,
            u16::from_str_radix(port, 16).ok()?,
        ))
    }

    /// Words of 32 bits in the machine's byte order, each as eight digits.
    fn address(hex: &str) -> Option<IpAddr> {
        let word = |at: usize| {
            Some(
                u32::from_str_radix(hex.get(at..at + 8)?, 16)
                    .ok()?
                    .to_ne_bytes(),
            )
        };
        match hex.len() {
            8 => Some(Ipv4Addr::from(word(0)?).into()),
            32 => {
                let words = [word(0)?, word(8)?, word(16)?, word(24)?];
                let octets: [u8; 16] = words.concat().try_into().ok()?;
                // A client of IPv4 at a socket of IPv6 is named so by the table, and by the socket as well.
                Some(Ipv6Addr::from(octets).into())
            }
            _ => None,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[cfg(target_endian = "little")]
        #[test]
        fn lines_of_both_tables_are_read() {
            let v4 = "   1: 0100007F:1F90 0100007F:A3C2 01 00000000:00000000 00:00000000 00000000     0        0 1 1";
            assert_eq!(
                established(v4, 8080),
                Some("127.0.0.1:41922".parse().unwrap())
            );
            assert_eq!(established(v4, 8081), None);
            assert_eq!(established(&v4.replace(" 01 ", " 08 "), 8080), None);
            let v6 = "0: 00000000000000000000000001000000:1F90 B80D01200000000067452301EFCDAB89:0050 01 0";
            assert_eq!(
                established(v6, 8080),
                Some("[2001:db8::123:4567:89ab:cdef]:80".parse().unwrap())
            );
            assert_eq!(
                established("sl  local_address rem_address   st tx_queue", 8080),
                None
            );
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[test]
    fn a_new_connection_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut opened = OpenedConnections::new();
        let before = opened.count().unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(opened.count().unwrap() > before);
    }

    #[test]
    fn a_link_local_peer_is_found_without_its_scope() {
        let table = "[fe80::1]:80".parse().unwrap();
        let scoped = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 5, 2);
        assert_eq!(without_scope(scoped.into()), table);
    }

    #[test]
    fn a_peer_is_there_until_it_hangs_up() {
        for any in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(any) else {
                continue;
            };
            let mut local = listener.local_addr().unwrap();
            if local.ip().is_unspecified() {
                local.set_ip([127, 0, 0, 1].into());
            }
            let client = TcpStream::connect(local).unwrap();
            let (_server, remote) = listener.accept().unwrap();
            assert!(connected(local).unwrap().contains(&remote), "{any}");
            drop(client);
            let end = Instant::now() + Duration::from_secs(5);
            while connected(local).unwrap().contains(&remote) {
                assert!(Instant::now() < end, "{any}");
            }
        }
    }
}
