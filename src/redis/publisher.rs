//! [`Publisher`]: sends the publishes of one stream to Redis, those that wait at the same time together.
//!
//! A batch has a number. If its answer is lost, the same batch is sent again with the same number, and Redis then gives the
//! answer of the first try. So an event is in the stream once.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::link::{Appended, Batch, Known, KnownKey, Link, Place, Trouble};
use super::publish::{Pending, PublishQueue};
use super::state::Part;
use super::stream::Stream;
use crate::broker::{Answered, key_reused};
use crate::error::{Error, ErrorKind};
use crate::position::{EventId, Run};

/// How long a connection may be idle before it is tried first.
const IDLE: Duration = Duration::from_millis(50);

/// Sends the publishes of one stream.
pub(super) struct Publisher {
    stream: Arc<Stream>,
    queue: Arc<PublishQueue>,
    link: Option<Link>,
    /// The epoch of the stream, when it was opened.
    run: Option<Run>,
    /// When Redis answered last.
    answered: Instant,
    /// The number of the newest batch.
    number: u64,
    max_length: usize,
    replicas: usize,
    max_wait: Duration,
}

impl Publisher {
    pub(super) fn new(
        stream: Arc<Stream>,
        queue: Arc<PublishQueue>,
        settings: &super::RedisBackplane,
    ) -> Self {
        Publisher {
            stream,
            queue,
            link: None,
            run: None,
            answered: Instant::now(),
            number: 0,
            max_length: settings.max_stream_length,
            replicas: settings.replicas,
            max_wait: settings.max_wait,
        }
    }

    /// Connects, and opens the stream.
    pub(super) fn connect(&mut self) -> Result<(), Trouble> {
        let mut link = Link::connect(&self.stream.target, Duration::ZERO)?;
        self.run = Some(self.stream.open(&mut link)?.run);
        self.link = Some(link);
        self.answered = Instant::now();
        Ok(())
    }

    /// Sends until the stop.
    pub(super) fn run(mut self) {
        while let Some(publishes) = self.queue.take() {
            self.publish(publishes);
        }
    }

    /// Sends these publishes, again and again until Redis has answered or the broker is stopped.
    fn publish(&mut self, mut publishes: Vec<Arc<Pending>>) {
        let part = Part::Publisher(self.stream.number);
        let mut backoff = Backoff::default();
        let mut batch = None;
        // An attempt had no answer, so that Redis may have the batch. A later refusal does not say that it has not.
        let mut is_unsure = false;
        loop {
            match self.send(&mut publishes, &mut batch) {
                Ok(answer) => {
                    self.stream.monitor.works(part, false);
                    return self.finish(&publishes, answer);
                }
                Err(trouble) => {
                    self.stream.monitor.failed(part, trouble.reason());
                    if matches!(trouble, Trouble::Refused(_)) {
                        // The next batch opens the stream anew: another program's entry may be in the way.
                        self.run = None;
                        if !is_unsure {
                            return refuse(&publishes, trouble.reason());
                        }
                    } else {
                        self.link = None;
                        is_unsure |= batch.is_some();
                    }
                }
            }
            if self.stream.is_stopped() {
                let reason = "the broker was stopped before Redis was back";
                return match is_unsure {
                    true => publishes
                        .iter()
                        .for_each(|publish| publish.leave_open(reason)),
                    false => refuse(&publishes, reason),
                };
            }
            // A publisher that gives up must not be waited for. One that was sent stays in the batch.
            if batch.is_none() {
                publishes.retain(|publish| !publish.is_withdrawn());
                if publishes.is_empty() {
                    return;
                }
            }
            self.stream.pause(backoff.next());
        }
    }

    /// Makes one attempt.
    fn send(
        &mut self,
        publishes: &mut Vec<Arc<Pending>>,
        batch: &mut Option<Batch>,
    ) -> Result<Option<Place>, Trouble> {
        let is_new = self.link.is_none();
        if is_new {
            self.connect()?;
            let part = Part::Publisher(self.stream.number);
            self.stream.monitor.works(part, true);
        }
        // A connection that has ended meanwhile is found before the events count as sent, which Redis may have then.
        let is_doubtful = self.answered.elapsed() > IDLE || self.stream.monitor.failing().is_some();
        if is_doubtful && let Some(link) = &mut self.link {
            link.ping()?;
        }
        if batch.is_none() {
            publishes.retain(|publish| publish.send());
            if publishes.is_empty() {
                return Ok(None);
            }
            self.number += 1;
            let of = publishes.iter().map(|pending| pending.publish().clone());
            *batch = Some(Batch {
                number: self.number,
                publishes: of.collect(),
            });
        }
        let (Some(link), Some(batch)) = (&mut self.link, &*batch) else {
            return Ok(None);
        };
        loop {
            let known = Known {
                run: self.run,
                ..self.stream.known()
            };
            match link.append(batch, known, self.max_length)? {
                Appended::NotOpen => self.run = Some(self.stream.open(link)?.run),
                Appended::At(place) => {
                    let last = place.first + appended(publishes, &place.known) - 1;
                    self.stream.knows(place.run, last, place.timestamp);
                    self.answered = Instant::now();
                    return Ok(Some(place));
                }
            }
        }
    }

    /// Gives the publishers their ids.
    fn finish(&mut self, publishes: &[Arc<Pending>], answer: Option<Place>) {
        let Some(place) = answer else {
            return;
        };
        let published = &self.stream.monitor.published;
        published.fetch_add(appended(publishes, &place.known), Relaxed);
        let replicated = self.wait_for_replicas();
        let mut last = place.first - 1;
        for (index, pending) in publishes.iter().enumerate() {
            let known = place.known.iter().find(|known| known.index == index);
            let id = match known.map(|known| known.first_publish) {
                None => {
                    last += count(pending);
                    EventId::new(place.run, last)
                }
                Some(Some(first)) => first,
                Some(None) => {
                    let key = pending.publish().key.as_ref();
                    let key = key.map_or("", |key| &key.key);
                    pending.finish(Err(key_reused(key)));
                    continue;
                }
            };
            pending.finish(match &replicated {
                Ok(()) => Ok(Answered {
                    last: id,
                    is_repetition: known.is_some(),
                }),
                Err(have) => Err(Error::new(
                    ErrorKind::TimedOut,
                    format!(
                        "the event {id} is published, but only {have} of {} replicas have it: a fail-over now could lose \
                         it",
                        self.replicas
                    ),
                )),
            });
        }
    }

    /// Returns how many replicas have the events, if these are too few.
    fn wait_for_replicas(&mut self) -> Result<(), usize> {
        if self.replicas == 0 {
            return Ok(());
        }
        let began = Instant::now();
        let mut have = 0;
        while began.elapsed() < self.max_wait {
            let Some(link) = &mut self.link else { break };
            // Shorter than the time for an answer, after which the connection counts as lost.
            let left = self.max_wait.saturating_sub(began.elapsed());
            let pause = left.min(self.stream.target.timeout / 2);
            match link.wait(self.replicas, pause) {
                Ok(enough) if enough >= self.replicas => return Ok(()),
                Ok(fewer) => have = fewer,
                Err(trouble) => {
                    log::warn!("WAIT failed: {}", trouble.reason());
                    self.link = None;
                }
            }
        }
        Err(have)
    }
}

fn count(pending: &Pending) -> u64 {
    pending.publish().events.len() as u64
}

/// Returns how many events of these publishes are in the stream by this batch.
fn appended(publishes: &[Arc<Pending>], known: &[KnownKey]) -> u64 {
    let all: u64 = publishes.iter().map(|pending| count(pending)).sum();
    let known = known.iter().filter_map(|known| publishes.get(known.index));
    all - known.map(|pending| count(pending)).sum::<u64>()
}

fn refuse(publishes: &[Arc<Pending>], reason: &str) {
    for publish in publishes {
        let message = format!("the event was not published: {reason}");
        publish.finish(Err(Error::new(ErrorKind::Busy, message)));
    }
}
