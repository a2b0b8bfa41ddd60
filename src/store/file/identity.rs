//! A file's identity, mode, owner and hard links. On systems other than Unix, nothing is checked.

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

    /// Permits only the owner to read and write the new file. [`copy`] then sets its final mode.
    pub(in super::super) fn private(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    /// Gives `new` the owner, group and mode of `old`. If this process may not set the group, the mode grants the new file's
    /// group nothing.
    pub(in super::super) fn copy(old: &File, new: &File) -> io::Result<()> {
        let (old, created) = (old.metadata()?, new.metadata()?);
        // Root may set both. Other users may only set the group, to one of their own.
        if (old.uid(), old.gid()) != (created.uid(), created.gid())
            && fchown(new, Some(old.uid()), Some(old.gid())).is_err()
        {
            let _ = fchown(new, None, Some(old.gid()));
        }
        let created = new.metadata()?;
        let mut mode = old.mode() & MODE_BITS;
        if created.gid() != old.gid() {
            mode &= !GROUP_BITS;
        }
        let now = created.mode() & MODE_BITS;
        if now == mode {
            return Ok(());
        }
        let set = new.set_permissions(Permissions::from_mode(mode));
        // A file system without modes returns an error, which is acceptable if the mode permits no more than the old one.
        set.or_else(|error| match now & !mode {
            0 => Ok(()),
            _ => Err(error),
        })
    }

    /// Returns `true` if `path` leads to this open file, by its device and inode.
    pub(in super::super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
        let open = file.metadata()?;
        match fs::metadata(path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (open.dev(), open.ino())),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(false),
                // After a process has given up its rights, it may not look up the path. A removed file has no links.
                io::ErrorKind::PermissionDenied => Ok(open.nlink() > 0),
                _ => Err(error),
            },
        }
    }

    /// Returns `Err` with the reason if `new`, a file at `scratch`, can't replace `file` at `path`.
    pub(in super::super) fn check_replaceable(
        file: &File,
        new: &File,
        path: &Path,
        scratch: &Path,
    ) -> Result<(), String> {
        let metadata = file.metadata().and_then(|old| Ok((old, new.metadata()?)));
        let (old, new) = metadata.map_err(|error| error.to_string())?;
        if old.nlink() > 1 {
            return Err(
                "it has another name, a hard link, that would keep the old content; remove that"
                    .into(),
            );
        }
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            return Err(format!(
                "a new file would belong to {}:{} instead of {}:{}; run the server as that user and group",
                new.uid(),
                new.gid(),
                old.uid(),
                old.gid()
            ));
        }
        // A hard link can't lead from one mount to another, even of the same file system. Other errors mean that the file
        // system has no hard links, and say nothing about mounts.
        let removed = fs::remove_file(scratch);
        let linked = removed.and_then(|()| fs::hard_link(path, scratch));
        let crosses = |error: io::Error| error.kind() == io::ErrorKind::CrossesDevices;
        if old.dev() != new.dev() || linked.is_err_and(crosses) {
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
