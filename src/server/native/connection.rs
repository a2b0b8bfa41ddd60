//! [`Connection`]: one client's connection: what its thread does with it, and how other threads end it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::{SockRef, Socket, TcpKeepalive};

use super::reader::{BUFFER, SHORTEST, is_timeout};
use crate::broker::Waiter;
use crate::server::info::ServerInfo;

/// The bytes of an answer for which a client has one more second.
const PACE: usize = 64 * 1024;

pub(super) struct Connection {
    /// The socket, of any domain: std's calls for a TCP stream are those for any stream, and raise no SIGPIPE.
    pub(super) stream: TcpStream,
    pub(super) peer: Option<SocketAddr>,
    state: Mutex<State>,
}

/// What the connection's thread does. It sets each state but the last.
pub(super) enum State {
    /// It has waited since then for a request, or for the client to close its side.
    Idle(Instant),
    /// It receives a request, which has no effect yet.
    Receiving,
    /// It serves a request that has come whole, or answers one.
    Serving,
    /// It waits for events.
    Parked {
        waiter: Arc<Waiter>,
        /// The client has been looked at, so that the socket does not block.
        looked_at: bool,
        /// What the client has sent since it parked: with that out of the way, its hang-up shows.
        received: Vec<u8>,
    },
    /// Another thread has shut the connection down.
    Ended,
}

impl Connection {
    /// Sets the options of an accepted socket.
    pub(super) fn new(
        socket: Socket,
        peer: Option<SocketAddr>,
        info: &ServerInfo,
    ) -> io::Result<Self> {
        socket.set_read_timeout(Some(info.effective_idle_timeout()))?;
        socket.set_write_timeout(Some(info.write_timeout))?;
        if peer.is_some() {
            // An answer leaves when it is written, not when the last one has been acknowledged.
            socket.set_tcp_nodelay(true)?;
            // A peer whose machine or network is gone is found out, even while its poll is parked.
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)))?;
        }
        Ok(Connection {
            stream: socket.into(),
            peer,
            state: Mutex::new(State::Idle(Instant::now())),
        })
    }

    /// Enters the next state. Returns `false` if another thread has ended the connection: then a request that has come in
    /// that instant has no effect.
    pub(super) fn enter(&self, next: State) -> bool {
        let mut state = self.state.lock();
        if matches!(*state, State::Ended) {
            return false;
        }
        *state = next;
        true
    }

    pub(super) fn park(&self, waiter: &Arc<Waiter>) {
        self.enter(State::Parked {
            waiter: waiter.clone(),
            looked_at: false,
            received: Vec::new(),
        });
    }

    /// Returns what the client has sent since it parked.
    pub(super) fn unpark(&self) -> io::Result<Vec<u8>> {
        let mut state = self.state.lock();
        let State::Parked {
            looked_at,
            received,
            ..
        } = std::mem::replace(&mut *state, State::Serving)
        else {
            return Ok(Vec::new());
        };
        if looked_at {
            self.stream.set_nonblocking(false)?;
        }
        Ok(received)
    }

    /// Ends the wait of a parked poll whose client has hung up. A client that has closed its own side only, and still waits
    /// for the answer, looks the same.
    pub(super) fn look_at_client(&self) {
        let mut state = self.state.lock();
        let State::Parked {
            waiter,
            looked_at,
            received,
        } = &mut *state
        else {
            return;
        };
        if received.len() >= BUFFER {
            return;
        }
        if !*looked_at && self.stream.set_nonblocking(true).is_err() {
            return;
        }
        *looked_at = true;
        let mut buffer = [0; BUFFER];
        match (&self.stream).read(&mut buffer) {
            Ok(count) if count > 0 => received.extend_from_slice(&buffer[..count]),
            Err(error) if is_timeout(&error) => {}
            _ => waiter.hang_up(),
        }
    }

    /// How many bytes the client has sent since it parked; `None` before the first look at it.
    #[cfg(test)]
    pub(super) fn received_while_parked(&self) -> Option<usize> {
        match &*self.state.lock() {
            State::Parked {
                looked_at: true,
                received,
                ..
            } => Some(received.len()),
            _ => None,
        }
    }

    pub(super) fn is_parked(&self) -> bool {
        matches!(*self.state.lock(), State::Parked { .. })
    }

    pub(super) fn idle_since(&self) -> Option<Instant> {
        match *self.state.lock() {
            State::Idle(since) => Some(since),
            _ => None,
        }
    }

    /// Shuts the connection down if it is idle, or receives a request and `receiving` is true. Then its thread ends.
    pub(super) fn end(&self, receiving: bool) -> bool {
        let mut state = self.state.lock();
        let ends = match *state {
            State::Idle(_) => true,
            State::Receiving => receiving,
            _ => false,
        };
        if ends {
            *state = State::Ended;
            // An error means that the client has closed the connection already.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        ends
    }

    /// Writes an answer, with one system call where the client reads. The client may pause for `timeout`, which is the limit
    /// of one write on the stream, and have a second more for each [`PACE`] bytes until it has the whole.
    pub(super) fn write(&self, mut answer: &[u8], timeout: Duration) -> io::Result<()> {
        let pace = Duration::from_secs((answer.len() / PACE) as u64);
        let deadline = Instant::now() + timeout + pace;
        let mut left = timeout;
        loop {
            match (&self.stream).write(answer) {
                Ok(count) => answer = &answer[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => left = Duration::ZERO,
                Err(error) => return Err(error),
            }
            if answer.is_empty() {
                break;
            }
            left = left.min(deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                // Else the system would keep what is left, and go on to offer it.
                SockRef::from(&self.stream).set_linger(Some(left))?;
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_write_timeout(Some(left.max(SHORTEST)))?;
        }
        if left < timeout {
            self.stream.set_write_timeout(Some(timeout))?;
        }
        Ok(())
    }
}
