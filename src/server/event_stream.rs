//! [`EventStream`]: the answer to a poll that asks for Server-Sent Events: a body to which events are written as they come.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::accept::Quality;
use super::event_blocks::{Blocks, LATER, SOON};
use super::poll_request::{self, PollRequest};
use super::ready::{Ready, position_reached, with_preference};
use super::render::Framing;
use super::request::Request;
use super::response::Response;
use super::service::Service;
use crate::broker::{Batch, Parked, PollMode, Polled, PresenceGuard, Waiter};
use crate::error::ErrorKind;
use crate::position::{Cursor, EventId};
use crate::wire::Categories;

/// Returns `true` if the request names `text/event-stream`, and prefers JSON less or as much. A wildcard does not name it: many
/// clients of polls send one.
pub(super) fn is_asked_for(request: &Request) -> bool {
    let (mut quality, mut json) = (Quality::default(), Quality::default());
    let fields = request.headers().get_all("Accept");
    for range in fields.flat_map(|field| field.split(',')) {
        quality.consider(range, ("text", "event-stream"));
        json.consider(range, ("application", "json"));
    }
    quality.is_named() && quality.weight >= json.weight
}

/// The backend's side of a stream.
pub(super) trait StreamConnection {
    /// Sends these bytes now, within the time limit of an answer.
    ///
    /// # Errors
    ///
    /// The client does not read, or is gone.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Called before a wait for events, which the client's hang-up ends by this waiter.
    fn park(&mut self, waiter: &Arc<Waiter>);

    /// Called after the wait.
    fn unpark(&mut self);
}

/// A stream of events that has not been answered yet.
pub(super) struct EventStream {
    categories: Categories,
    /// Where the next look starts.
    cursor: Cursor,
    /// The cursor is the client's or a position, so that a gap has to be reported.
    has_cursor: bool,
    /// The most events of one look.
    limit: Option<usize>,
    /// The stream ends at the first look without events.
    is_brief: bool,
    end: Instant,
    /// `None` after a stop.
    first: Option<Polled>,
    framing: Framing,
    head: Response,
    /// The client is present for all of the stream.
    presence: Option<PresenceGuard>,
}

impl EventStream {
    /// Looks for events for the first time. The request may be a HEAD, whose answer is the head alone.
    ///
    /// # Errors
    ///
    /// The answer that refuses.
    pub(super) fn open(
        service: &Service,
        request: &Request,
        asked: PollRequest,
        arrived: Instant,
    ) -> Result<Box<Self>, Response> {
        let poll = asked.subscription;
        let max = service.info.timeout;
        let timeout = poll.timeout.min(max);
        let head = Response::new(200)
            .with_header("Content-Type", "text/event-stream")
            .with_header("Cache-Control", "no-store")
            .with_header("Vary", "Accept")
            // nginx passes each event on at once.
            .with_header("X-Accel-Buffering", "no");
        let mut stream = Box::new(EventStream {
            cursor: poll_request::cursor(&poll, &service.info),
            has_cursor: poll.last_id.is_some() || poll.since_time.is_some(),
            categories: poll.categories,
            limit: poll.limit,
            is_brief: timeout.is_zero(),
            end: arrived + if timeout.is_zero() { max } else { timeout },
            first: None,
            framing: match request.version >= (1, 1) {
                true => Framing::Chunked,
                false => Framing::UntilClose,
            },
            head: match asked.is_preference {
                true => with_preference(head, timeout),
                false => head,
            },
            presence: None,
        });
        let mode = match request.method() {
            "HEAD" => PollMode::Peek,
            _ => PollMode::NoWait,
        };
        stream.first = stream.look(service, mode)?;
        if mode != PollMode::Peek {
            let name = request.identity().or(poll.subscriber.as_deref());
            stream.presence = service.broker.enter(&stream.categories, name);
        }
        Ok(stream)
    }

    /// The head of the answer.
    pub(super) fn take_head(&mut self) -> Ready {
        let head = mem::replace(&mut self.head, Response::new(200));
        Ready::StreamHead(head, self.framing)
    }

    /// When the stream is likely to end.
    #[cfg(feature = "server")]
    pub(super) fn likely_end(&self) -> Instant {
        match self.is_brief {
            true => Instant::now(),
            false => self.end,
        }
    }

    /// Returns `true` if the end of the connection is the end of the stream.
    pub(super) fn closes(&self) -> bool {
        self.framing == Framing::UntilClose
    }

    /// Writes the head and the stream until its end.
    ///
    /// # Errors
    ///
    /// Those of the connection, which can't be used any more.
    // Not inlined, as the next: the thread of a stream keeps the stack that it needs at any time.
    #[inline(never)]
    pub(super) fn run(
        mut self: Box<Self>,
        service: &Service,
        head: Vec<u8>,
        connection: &mut dyn StreamConnection,
    ) -> io::Result<()> {
        let _open = service.traffic.open_stream();
        let mut blocks = Blocks::after(head, self.framing);
        blocks.retry(LATER);
        let mut next = self.first.take();
        let mut has_time = next.is_some();
        while let Some(polled) = next {
            let batch = match polled {
                Polled::Ready(batch) => batch,
                Polled::Parked(parked) => {
                    flush(&mut blocks, connection)?;
                    let waiter = parked.waiter().clone();
                    let batch = self.wait(service, parked, connection)?;
                    has_time = !waiter.is_answered_early();
                    batch
                }
            };
            match self.take(service, &batch, &mut blocks) {
                // Other streams have the same text, so it is not copied.
                Some(events) if blocks.bytes.is_empty() => connection.write(&events)?,
                Some(events) => {
                    blocks.bytes.extend_from_slice(&events);
                    flush(&mut blocks, connection)?;
                }
                None => {}
            }
            has_time &= !service.is_stopping();
            if !has_time || self.is_over(service, &batch) {
                break;
            }
            if batch.events().is_empty() && blocks.bytes.is_empty() {
                blocks.comment();
            }
            next = self.look_for_more(service);
            has_time = next.is_some();
        }
        blocks.retry(if has_time { SOON } else { LATER });
        blocks.end();
        flush(&mut blocks, connection)
    }

    /// The whole answer, for a connection that takes no other: the events that come first end it. The client, which comes back
    /// at once, gets the next ones then. `park` is called before the wait, with the handle by which the client's hang-up ends
    /// it. Without `may_wait`, there is no wait.
    pub(super) fn finish_whole(
        mut self: Box<Self>,
        service: &Service,
        may_wait: bool,
        park: &dyn Fn(&Arc<Waiter>),
    ) -> Ready {
        self.framing = Framing::UntilClose;
        let deadline = if may_wait { self.end } else { Instant::now() };
        let mut has_time = may_wait && self.first.is_some();
        let mut wait = |polled: Polled| match polled {
            Polled::Ready(batch) => batch,
            Polled::Parked(parked) => {
                let _member = service.enter_group(parked.waiter());
                let waiter = parked.waiter().clone();
                park(&waiter);
                let batch = parked.wait_uncounted(Some(deadline));
                has_time &= !waiter.is_answered_early();
                batch
            }
        };
        let mut blocks = Blocks::after(Vec::new(), self.framing);
        let mut batch = self.first.take().map(&mut wait);
        if let Some(none) = batch.take_if(|batch| batch.events().is_empty()) {
            if let Some(position) = self.reach(&none) {
                blocks.position(position);
            }
            let more = may_wait && !self.is_over(service, &none);
            let more = more.then(|| self.look_for_more(service)).flatten();
            batch = Some(more.map_or(none, &mut wait));
        }
        if let Some(batch) = batch {
            let events = self.take(service, &batch, &mut blocks);
            events.inspect(|events| blocks.bytes.extend_from_slice(events));
        }
        has_time &= !service.is_stopping();
        blocks.retry(if has_time { SOON } else { LATER });
        let mut response = mem::replace(&mut self.head, Response::new(200));
        response.body = blocks.bytes;
        response.into()
    }

    /// Waits for the answer to a poll, and writes a comment now and again. Without events, the stream is to end, or to look
    /// again.
    fn wait(
        &self,
        service: &Service,
        parked: Parked,
        connection: &mut dyn StreamConnection,
    ) -> io::Result<Arc<Batch>> {
        let waiter = parked.waiter().clone();
        let _member = service.enter_group(&waiter);
        loop {
            let heartbeat = Instant::now() + service.info.stream_heartbeat;
            let deadline = heartbeat.min(self.end);
            connection.park(&waiter);
            if parked.is_answered_by(Some(deadline)) || deadline == self.end {
                let batch = parked.wait_uncounted(Some(deadline));
                connection.unpark();
                return Ok(batch);
            }
            connection.unpark();
            let mut comment = Blocks::after(Vec::new(), self.framing);
            comment.comment();
            flush(&mut comment, connection)?;
        }
    }

    /// Returns the events of a batch as they are written. Without events, adds the position that it has reached, if that is new.
    fn take(&mut self, service: &Service, batch: &Batch, blocks: &mut Blocks) -> Option<Arc<[u8]>> {
        let position = self.reach(batch);
        if !batch.events().is_empty() {
            service.broker.count_answered(batch);
            return Some(Blocks::of_events(batch, self.framing));
        }
        if let Some(position) = position {
            blocks.position(position);
        }
        None
    }

    /// Moves to the position that a batch has reached, if the client does. Returns it if it is new.
    fn reach(&mut self, batch: &Batch) -> Option<EventId> {
        let position = position_reached(batch, self.has_cursor)?;
        let reached = Cursor::LastId(position);
        let is_new = self.cursor != reached;
        (self.cursor, self.has_cursor) = (reached, true);
        is_new.then_some(position)
    }

    /// Events that were deleted are lost if the client does not get them: as with a poll, not more than those of one answer.
    fn is_over(&self, service: &Service, batch: &Batch) -> bool {
        let is_over = match batch.events().is_empty() {
            true => self.is_brief,
            false => service.broker.deletes_retrieved(),
        };
        is_over || Instant::now() >= self.end
    }

    /// `None` after a stop.
    fn look_for_more(&self, service: &Service) -> Option<Polled> {
        let mode = match self.is_brief {
            true => PollMode::NoWait,
            false => PollMode::Park,
        };
        let (categories, broker) = (&self.categories, &service.broker);
        let polled = broker.poll_uncounted(categories, self.cursor, self.limit, mode);
        polled
            .inspect_err(|error| log::debug!("a stream ends: {error}"))
            .ok()
    }

    /// Looks for the first time. After a stop, there is nothing to wait for, but there may be events.
    ///
    /// # Errors
    ///
    /// The answer that refuses.
    fn look(&self, service: &Service, mode: PollMode) -> Result<Option<Polled>, Response> {
        let (categories, broker) = (&self.categories, &service.broker);
        match broker.poll_uncounted(categories, self.cursor, self.limit, mode) {
            Ok(polled) => Ok(Some(polled)),
            Err(error) if error.kind() == ErrorKind::Stopped && service.is_stopping() => {
                let batch = broker.look_after_stop(categories, self.cursor, self.limit);
                Ok(batch.map(Polled::Ready))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes all that has not been written.
fn flush(blocks: &mut Blocks, connection: &mut dyn StreamConnection) -> io::Result<()> {
    let bytes = mem::take(&mut blocks.bytes);
    match bytes.is_empty() {
        true => Ok(()),
        false => connection.write(&bytes),
    }
}
