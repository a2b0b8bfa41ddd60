//! Files with a bearer token.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// More than any client sends in a header field.
const MAX_SIZE: u64 = 4096;

/// Reads a token: the file's text, without the line end.
///
/// # Errors
///
/// A file that can't be read, or that has no token.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("can't read {path:?}: {error}");
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(format!(
            "{path:?} has more than {MAX_SIZE} bytes, and is no file with a token; give another"
        ));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{path:?} is not text in UTF-8"))?;
    let token = text.strip_suffix('\n').unwrap_or(&text);
    let token = token.strip_suffix('\r').unwrap_or(token);
    if token.is_empty() {
        return Err(format!(
            "{path:?} is empty and protects nothing; write a token to it"
        ));
    }
    Ok(token.to_owned())
}

/// A warning where every user of the machine may read the file. It is no error: secrets of container systems have such modes
/// (Docker 444, Kubernetes 644), in a file system that nobody else sees.
#[cfg(unix)]
pub(crate) fn exposure(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path).ok()?;
    let mode = file.mode() & 0o777;
    (file.is_file() && mode & 0o004 != 0).then(|| {
        format!("every user of this machine may read {path:?}, of mode {mode:o}; chmod 640 or 600 keeps the token secret")
    })
}

#[cfg(not(unix))]
pub(crate) fn exposure(_path: &Path) -> Option<String> {
    None
}
