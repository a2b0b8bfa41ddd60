//! What belongs to a file besides its bytes: its place, mode, owner and names. Where the system is not Unix, little of
//! that is known, and nothing is checked.

#[cfg(not(unix))]
pub(super) use self::elsewhere::*;
#[cfg(unix)]
pub(super) use self::unix::*;

#[cfg(unix)]
mod unix {
    use std::fs::{self, File, OpenOptions, Permissions};
    use std::io;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
    use std::path::Path;

    const GROUP_BITS: u32 = 0o070;
    const MODE_BITS: u32 = 0o7777;

    /// Nobody but the owner may read the file, until [`copy`] says otherwise.
    pub(in super::super) fn private(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    /// Gives `new` the owner, group and mode of `old`. An owner or group that this process may not set stays as it is;
    /// the mode then grants nothing to that other group.
    pub(in super::super) fn copy(old: &File, new: &File) -> io::Result<()> {
        let (old, made) = (old.metadata()?, new.metadata()?);
        // Root may set both; everybody else only the group, to one of their own.
        if (old.uid(), old.gid()) != (made.uid(), made.gid())
            && fchown(new, Some(old.uid()), Some(old.gid())).is_err()
        {
            let _ = fchown(new, None, Some(old.gid()));
        }
        let made = new.metadata()?;
        let mut mode = old.mode() & MODE_BITS;
        if made.gid() != old.gid() {
            mode &= !GROUP_BITS;
        }
        let now = made.mode() & MODE_BITS;
        if now == mode {
            return Ok(());
        }
        let set = new.set_permissions(Permissions::from_mode(mode));
        // A file system without modes refuses; what grants no more than the old file does is good enough.
        set.or_else(|error| match now & !mode {
            0 => Ok(()),
            _ => Err(error),
        })
    }

    /// Returns `true` if `path` leads to this open file, by device and inode.
    pub(in super::super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
        let open = file.metadata()?;
        match fs::metadata(path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (open.dev(), open.ino())),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(false),
                // A process that gave up its rights can't look; what has no name at all was removed.
                io::ErrorKind::PermissionDenied => Ok(open.nlink() > 0),
                _ => Err(error),
            },
        }
    }

    /// Returns `Err` with the reason if `made`, a new file at `scratch`, can't take the place of `file` at `path`.
    pub(in super::super) fn check_replaceable(
        file: &File,
        made: &File,
        path: &Path,
        scratch: &Path,
    ) -> Result<(), String> {
        let metadata = file.metadata().and_then(|old| Ok((old, made.metadata()?)));
        let (old, made) = metadata.map_err(|error| error.to_string())?;
        if old.nlink() > 1 {
            return Err(
                "it has another name, a hard link, that would keep the old content; remove that"
                    .into(),
            );
        }
        if (old.uid(), old.gid()) != (made.uid(), made.gid()) {
            return Err(format!(
                "a new file would belong to {}:{} instead of {}:{}; run the server as that user and group",
                made.uid(),
                made.gid(),
                old.uid(),
                old.gid()
            ));
        }
        // A link can't be made from one mount to another, also where both are of one file system. Other errors mean
        // that there are no hard links here, and say nothing.
        let removed = fs::remove_file(scratch);
        let linked = removed.and_then(|()| fs::hard_link(path, scratch));
        let crosses = |error: io::Error| error.kind() == io::ErrorKind::CrossesDevices;
        if old.dev() != made.dev() || linked.is_err_and(crosses) {
            return Err(
                "the file itself is a mount, which can't be replaced; mount its folder instead"
                    .into(),
            );
        }
        Ok(())
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::path::Path;

    pub(in super::super) fn private(_: &mut OpenOptions) {}

    pub(in super::super) fn copy(_: &File, _: &File) -> io::Result<()> {
        Ok(())
    }

    pub(in super::super) fn is_at(_: &File, _: &Path) -> io::Result<bool> {
        Ok(true)
    }

    pub(in super::super) fn check_replaceable(
        _: &File,
        _: &File,
        _: &Path,
        _: &Path,
    ) -> Result<(), String> {
        Ok(())
    }
}
