//! The clients that are connected, as Linux lists them in proc(5): tiny_http does not report that a client has hung up.

use std::collections::HashSet;
use std::fs::read_to_string;
use std::io::ErrorKind::NotFound;
use std::net::{IpAddr, SocketAddr};

/// The clients with an open connection to a port, by their [`key`]s. `None` where the system has no list of them.
///
/// A client that has hung up is not among them, and neither is one that has closed its own direction only: a client that
/// does so and still waits for its answer looks the same as one that has gone.
pub(super) fn connected(port: u16) -> Option<HashSet<String>> {
    list(port, |state| state == "01")
}

/// The same with the clients that have hung up while the server has not closed the connection.
pub(super) fn held(port: u16) -> Option<HashSet<String>> {
    // TIME_WAIT: nobody has the connection any more.
    list(port, |state| state != "06")
}

fn list(port: u16, has_state: fn(&str) -> bool) -> Option<HashSet<String>> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(read_to_string);
    let has_ipv6 = !matches!(&tables[1], Err(error) if error.kind() == NotFound);
    let is_known = tables[0].is_ok() && (tables[1].is_ok() || !has_ipv6);
    let port = format!(":{port:04X}");
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    let client = |line| client(line, &port, has_state);
    is_known.then(|| lines.filter_map(client).collect())
}

/// The client of a line such as `0: 0100007F:1F90 0100007F:A3C2 01 …`, if it is a connection to this port in such a state.
fn client(line: &str, port: &str, has_state: fn(&str) -> bool) -> Option<String> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    (has_state(state) && local.ends_with(port)).then(|| remote.to_owned())
}

/// An address as the tables have it: words of 32 bits in the machine's byte order, each as eight digits, and the port. A
/// client of IPv4 at a socket of IPv6 is named so by the table, and by the socket as well.
pub(super) fn key(client: SocketAddr) -> String {
    let octets = match client.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (words, _) = octets.as_chunks();
    let words = words.iter().map(|word| u32::from_ne_bytes(*word));
    let mut key: String = words.map(|word| format!("{word:08X}")).collect();
    key.push_str(&format!(":{:04X}", client.port()));
    key
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{SocketAddrV6, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[cfg(target_endian = "little")]
    #[test]
    fn lines_of_both_tables_are_read() {
        let v4 = "   1: 0100007F:1F90 0100007F:A3C2 01 00000000:00000000 00:00000000 00000000     0        0 1 1";
        let established = |line: &str, port: &str| client(line, port, |state| state == "01");
        let client: SocketAddr = "127.0.0.1:41922".parse().unwrap();
        assert_eq!(established(v4, ":1F90"), Some(key(client)));
        assert_eq!(established(v4, ":1F91"), None);
        assert_eq!(established(&v4.replace(" 01 ", " 08 "), ":1F90"), None);
        let v6 =
            "0: 00000000000000000000000001000000:1F90 B80D01200000000067452301EFCDAB89:0050 01 0";
        let client: SocketAddr = "[2001:db8::123:4567:89ab:cdef]:80".parse().unwrap();
        assert_eq!(established(v6, ":1F90"), Some(key(client)));
        let title = "sl  local_address rem_address   st tx_queue";
        assert_eq!(established(title, ":1F90"), None);
    }

    #[test]
    fn a_link_local_client_is_found_without_its_scope() {
        let table: SocketAddr = "[fe80::1]:80".parse().unwrap();
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 5, 2);
        assert_eq!(key(scoped.into()), key(table));
    }

    #[test]
    fn a_client_is_there_until_it_hangs_up() {
        for any in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(any) else {
                continue;
            };
            let mut local = listener.local_addr().unwrap();
            if local.ip().is_unspecified() {
                local.set_ip([127, 0, 0, 1].into());
            }
            let client = TcpStream::connect(local).unwrap();
            let (server, remote) = listener.accept().unwrap();
            let is_connected = || connected(local.port()).unwrap().contains(&key(remote));
            let is_held = || held(local.port()).unwrap().contains(&key(remote));
            assert!(is_connected() && is_held(), "{any}");
            drop(client);
            let end = Instant::now() + Duration::from_secs(5);
            while is_connected() {
                assert!(Instant::now() < end, "{any}");
            }
            assert!(is_held(), "{any}");
            drop(server);
            while is_held() {
                assert!(Instant::now() < end, "{any}");
            }
        }
    }
}
