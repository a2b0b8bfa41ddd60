//! Unix sockets that the server makes itself: [`bind`], and [`SocketFile`], the file that clients connect to.
//!
//! - The folder of the file is locked (`flock`) from before the look at an existing file until the socket listens. So of two
//!   servers that start at once, the second one finds a socket that is listened on. A lock on the folder leaves no lock file
//!   behind.
//! - The mode is set between `bind` and `listen`. A socket that does not listen yet refuses every connection, and the system
//!   checks the mode when a client connects. So nobody connects with rights that only the umask gives.
//! - At the stop, the file is removed while the socket still listens. So no other server takes the file for a stale one,
//!   and what is removed is never another server's.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::listen::BACKLOG;
use crate::error::{Error, ErrorKind as Kind};

/// How long another server may hold the lock, which takes it milliseconds.
const LOCKED: Duration = Duration::from_secs(5);

/// The file of a socket that listens. Dropping it removes the file, unless another file has its path by now.
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(SocketFile {
            // The program may change its working directory later.
            path: std::path::absolute(path)?,
            device: file.dev(),
            inode: file.ino(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn remove(&self) -> io::Result<()> {
        let file = fs::symlink_metadata(&self.path)?;
        if (file.dev(), file.ino()) == (self.device, self.inode) {
            fs::remove_file(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        match self.remove() {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                log::warn!(
                    "the socket file {:?} stays behind: {error}; the next start replaces it",
                    self.path
                );
            }
            _ => {}
        }
    }
}

/// Listens on a Unix socket at this path. A stale socket, on which nobody listens, is replaced.
///
/// # Errors
///
/// `Listen` where another program listens on the socket, where the path is of another kind of file, or where the system
/// refuses. The file stays as it is then.
pub(super) fn bind(path: &Path, mode: Option<u32>) -> Result<(Socket, SocketFile), Error> {
    let failed = |what: &str| {
        let message = format!(
            "address: can't listen on \"unix:{}\": {what}",
            path.display()
        );
        move |error: io::Error| Error::new(Kind::Listen, message).with_source(error)
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let _lock = lock(folder).map_err(failed(
        "its folder can't be locked; the folder must be there, and this user must be allowed to read it",
    ))?;
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.bind(&SockAddr::unix(path)?)?;
        Ok(socket)
    });
    let socket = socket.map_err(failed(
        "the socket can't be made; this user must be allowed to write to its folder",
    ))?;
    let file = SocketFile::of(path).map_err(failed("the new socket is gone"))?;
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(failed("its mode can't be set"))?;
    }
    socket
        .listen(BACKLOG)
        .map_err(failed("the system refuses"))?;
    Ok((socket, file))
}

/// Locks a folder until the file is dropped.
fn lock(folder: &Path) -> io::Result<File> {
    let folder = File::open(folder)?;
    let deadline = Instant::now() + LOCKED;
    loop {
        match folder.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::park_timeout(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => {
                let message = "another program has held the lock for 5 seconds";
                return Err(io::Error::new(ErrorKind::TimedOut, message));
            }
            Err(TryLockError::Error(error)) if error.kind() != ErrorKind::Unsupported => {
                return Err(error);
            }
            // A system without locks leaves it to its operator to start one server at a time.
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(folder),
        }
    }
}

/// Removes a socket that refuses connections.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let refuse = |why: &str| {
        let message = format!(
            "address: can't listen on \"unix:{}\": {why}",
            path.display()
        );
        Error::new(Kind::Listen, message)
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refuse("the path can't be looked at").with_source(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(refuse(
                "there is a file that is no socket; move it away, or give another path",
            ));
        }
        Ok(_) => {}
    }
    match connect(path) {
        // A full backlog: another program listens, and does not accept.
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            log::info!("the socket {path:?} is stale: it is replaced");
            return fs::remove_file(path)
                .map_err(|error| refuse("the stale socket can't be removed").with_source(error));
        }
        Err(error) => {
            let why = "there is a socket that this user can't connect to; remove it if no program listens on it, or give \
                       another path";
            return Err(refuse(why).with_source(error));
        }
    }
    Err(refuse(
        "it is in use: another program listens there; stop it, or give another path",
    ))
}

/// Connects without waiting, and closes at once.
fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_file_of_a_socket_is_removed_unless_another_file_has_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(bind(&path, None).unwrap());
        assert!(!path.exists());

        let (_socket, file) = bind(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn a_start_waits_for_the_lock_of_another_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let held = lock(folder.path()).unwrap();
        // As between `bind` and `listen` of the other start: a connection is refused.
        let half_made = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        half_made.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        assert_eq!(
            connect(&path).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        let second = thread::scope(|scope| {
            let second = scope.spawn(|| bind(&path, None).map(drop));
            half_made.listen(1).unwrap();
            drop(held);
            second.join().unwrap()
        });
        let error = second.unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        assert!(path.exists());
    }
}
