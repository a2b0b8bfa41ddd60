//! The state of the server for the service manager, by the protocol of sd_notify(3): a datagram to the Unix socket that
//! `NOTIFY_SOCKET` names.

/// Sends a state, such as `READY=1`, where `NOTIFY_SOCKET` is set. A failure is logged: the server goes on.
#[cfg(unix)]
pub(crate) fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    match send(&name, state) {
        Ok(()) => log::debug!("notified the service manager: {state:?}"),
        Err(error) => log::warn!(
            "can't notify the service manager at NOTIFY_SOCKET={}: {error}",
            name.display()
        ),
    }
}

#[cfg(not(unix))]
pub(crate) fn notify(_state: &str) {}

#[cfg(unix)]
fn send(name: &std::ffi::OsStr, state: &str) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    use std::time::Duration;

    let address = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)?
        }
        _ => {
            let problem =
                "it is neither an absolute path nor an abstract name with \"@\" before it";
            return Err(std::io::Error::other(problem));
        }
    };
    let socket = UnixDatagram::unbound()?;
    // A service manager that does not read must not keep the server from serving, or from its stop.
    socket.set_write_timeout(Some(Duration::from_secs(2)))?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}
