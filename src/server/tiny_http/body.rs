//! Bodies of requests: how tiny_http hands one out, and reading it whole.

use std::io::Read;

use super::chunks::ChunkedReader;
use super::head::Treatment;
use crate::server::head::BodyLength;
use crate::server::request::Request;
use crate::server::response::Response;

/// Where a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none, or tiny_http has read it already: up to 1024 bytes of known length.
    Held,
    /// Still on its way: of this length in bytes, or chunked.
    Streamed(Option<usize>),
    /// It has been read.
    Read,
    /// Its end is unknown, for this reason. The connection can't be used any more.
    Broken(&'static str),
}

/// tiny_http takes any Transfer-Encoding for `chunked`, and an unreadable Content-Length for none, so the body's length is
/// taken from our own reading of the head.
pub(super) fn framing(request: &Request, treatment: Treatment) -> Framing {
    if let Some(fault) = request.fault() {
        return Framing::Broken(fault);
    }
    match request.body_length() {
        Err(why) => Framing::Broken(why),
        Ok(BodyLength::None) => Framing::Held,
        Ok(BodyLength::Known(_)) if treatment.is_held => Framing::Held,
        Ok(BodyLength::Known(length)) => Framing::Streamed(Some(length)),
        Ok(BodyLength::Chunked) => Framing::Streamed(None),
    }
}

/// Reads the whole body, of at most `max` bytes. Blocks where the body is still on its way.
///
/// # Errors
///
/// 413 for a longer one, before it is read where its length was announced; 400 for one that is cut off. After either, the
/// end of a chunked one is unknown, and its framing is broken.
pub(super) fn read(
    incoming: &mut tiny_http::Request,
    framing: &mut Framing,
    treatment: Treatment,
    max: usize,
) -> Result<Vec<u8>, Response> {
    let chunked = *framing == Framing::Streamed(None);
    let body = read_whole(incoming, *framing, treatment, max);
    *framing = match &body {
        Ok(_) => Framing::Read,
        Err(_) if chunked => Framing::Broken("the body was not read to its end"),
        Err(_) => *framing,
    };
    body
}

fn read_whole(
    incoming: &mut tiny_http::Request,
    framing: Framing,
    treatment: Treatment,
    max: usize,
) -> Result<Vec<u8>, Response> {
    let too_large = || Response::body_too_large(max);
    let announced = match framing {
        Framing::Held if incoming.body_length().unwrap_or(0) == 0 => return Ok(Vec::new()),
        Framing::Held => incoming.body_length(),
        Framing::Streamed(length) => length,
        Framing::Read | Framing::Broken(_) => return Ok(Vec::new()),
    };
    if announced.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(announced.unwrap_or(0).min(64 * 1024));
    // No more than announced: where another protocol is offered, more may follow.
    let limit = announced.unwrap_or(max.saturating_add(1));
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let still_encoded = announced.is_none() && treatment.is_upgrade;
    let reader = incoming.as_reader();
    let read = if still_encoded {
        ChunkedReader::new(reader)
            .take(limit)
            .read_to_end(&mut body)
    } else {
        reader.take(limit).read_to_end(&mut body)
    };
    if body.len() > max {
        return Err(too_large());
    }
    if read.is_err() || announced.is_some_and(|length| length != body.len()) {
        let why = match announced {
            Some(_) => "the body is shorter than announced",
            None => "the body's chunks are malformed, or cut off",
        };
        return Err(Response::error(400, why));
    }
    Ok(body)
}
