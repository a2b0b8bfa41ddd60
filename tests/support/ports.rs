//! [`ClosedPort`]: a port of 127.0.0.1 on which nothing listens.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// A port on which nothing listens: connects are refused. A socket that is bound to it keeps other programs away.
pub(crate) struct ClosedPort {
    socket: Option<Socket>,
    pub(crate) address: SocketAddr,
}

impl ClosedPort {
    /// Takes a free port, until this is dropped.
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        ClosedPort {
            socket: Some(socket),
            address,
        }
    }

    /// Takes a free port on which another socket is to listen. On Linux, sockets with SO_REUSEADDR can be bound to one port
    /// until one of them listens, but none of them gets it as any free port. Elsewhere the port is not kept.
    pub(crate) fn for_a_server() -> Self {
        let mut port = ClosedPort::new();
        if !cfg!(target_os = "linux") {
            port.socket = None;
        }
        port
    }

    /// Listens on the port from now on.
    pub(crate) fn listen(mut self) -> TcpListener {
        let socket = self.socket.take().expect("a port that is kept");
        socket.listen(128).unwrap();
        socket.into()
    }
}
