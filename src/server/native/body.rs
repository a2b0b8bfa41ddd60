//! The body of a request, of known length or chunked (RFC 9112, sections 6.3 and 7.1).

use super::reader::Reader;
use crate::server::head::BodyLength;
use crate::server::render::{is_field_value, is_token};
use crate::server::response::Response;

/// The most bytes of a line with a chunk's size, and of all trailers.
const MAX_LINE: usize = 1024;
const MAX_TRAILERS: usize = 16 * 1024;
/// The most bytes of all extensions of chunks.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// The most digits of a chunk's size.
const MAX_DIGITS: usize = 16;

/// Reads a body of at most `max` bytes.
///
/// # Errors
///
/// The answer that refuses. The connection can't be used any more.
pub(super) fn read(
    reader: &mut Reader<'_>,
    length: BodyLength,
    max: usize,
) -> Result<Vec<u8>, Response> {
    let mut body = Vec::new();
    match length {
        BodyLength::None => {}
        BodyLength::Known(length) => {
            check_size(length, max, max)?;
            reader.body(&mut body, length)?;
        }
        BodyLength::Chunked => chunks(reader, &mut body, max)?,
    }
    Ok(body)
}

fn check_size(size: usize, room: usize, max: usize) -> Result<(), Response> {
    if size > room {
        return Err(Response::body_too_large(max));
    }
    Ok(())
}

fn chunks(reader: &mut Reader<'_>, body: &mut Vec<u8>, max: usize) -> Result<(), Response> {
    let mut extensions = 0;
    loop {
        let mut line = Vec::new();
        reader.line(&mut line, MAX_LINE, 400)?;
        let (size, extension) = chunk_size(&line).ok_or_else(malformed)?;
        extensions += extension;
        if extensions > MAX_EXTENSIONS {
            return Err(malformed());
        }
        if size == 0 {
            return trailers(reader);
        }
        check_size(size, max - body.len(), max)?;
        reader.body(body, size)?;
        line.clear();
        reader.line(&mut line, 2, 400)?;
    }
}

fn malformed() -> Response {
    Response::error(400, "the body's chunks are malformed, or cut off")
}

/// The size of a chunk by its line, and the length of the extensions, which count for nothing.
fn chunk_size(line: &[u8]) -> Option<(usize, usize)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let end = line
        .find(|char: char| !char.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (size, extension) = line.split_at(end);
    let ends = extension.is_empty() || extension.trim_start_matches([' ', '\t']).starts_with(';');
    (ends && end <= MAX_DIGITS && is_field_value(extension)).then_some(())?;
    Some((usize::from_str_radix(size, 16).ok()?, extension.len()))
}

/// Reads the trailers, which count for nothing, and the empty line after them.
fn trailers(reader: &mut Reader<'_>) -> Result<(), Response> {
    let mut text = Vec::new();
    loop {
        let start = text.len();
        reader.line(&mut text, MAX_TRAILERS, 431)?;
        let line = String::from_utf8_lossy(&text[start..]);
        match line.trim_end_matches("\r\n").split_once(':') {
            None if line == "\r\n" => return Ok(()),
            Some((name, value)) if is_token(name) && is_field_value(value) => {}
            _ => return Err(malformed()),
        }
    }
}
