//! [`RedisStreams`]: the broker's backplane in Redis: a reader and a publisher for each stream.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::keys::{Keys, stream_of};
use super::link::Target;
use super::publish::PublishQueue;
use super::publisher::Publisher;
use super::reader::Reader;
use super::settings::RedisBackplane;
use super::state::Monitor;
use super::stream::Stream;
use crate::broker::{Answered, Backplane, BackplaneStatistics, Feed, PublishKey};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind};
use crate::event::Draft;

/// The streams of a broker in Redis.
pub(super) struct RedisStreams {
    settings: RedisBackplane,
    monitor: Arc<Monitor>,
    /// Each stream, and the publishes that wait for it; `None` for those that this node does not read.
    streams: Vec<Option<(Arc<Stream>, Arc<PublishQueue>)>>,
}

impl RedisStreams {
    /// # Errors
    ///
    /// `InvalidSetting`.
    pub(super) fn new(settings: RedisBackplane) -> Result<Self, Error> {
        let info = settings.check()?;
        let monitor = Arc::new(Monitor::new(settings.on_state.clone()));
        let random = RandomState::new();
        // Tells this start of the node from all others, so that the numbers of its batches are its own.
        let node = format!("{:016x}{:016x}", random.hash_one(1), random.hash_one(2));
        let reads = |stream: &usize| {
            let read = settings.read_streams.as_ref();
            read.is_none_or(|read| read.contains(stream))
        };
        let stream = |number| {
            let target = Target {
                info: info.clone(),
                keys: Keys::new(&settings.key_prefix, number, &node),
                timeout: settings.response_timeout,
            };
            let stream = Stream::new(number, target, monitor.clone());
            (Arc::new(stream), Arc::default())
        };
        let streams = (0..settings.streams)
            .map(|number| reads(&number).then(|| stream(number)))
            .collect();
        Ok(RedisStreams {
            settings,
            monitor,
            streams,
        })
    }

    fn start_stream(
        &self,
        stream: &Arc<Stream>,
        queue: &Arc<PublishQueue>,
        feed: Feed,
    ) -> Result<(), Error> {
        let mut publisher = Publisher::new(stream.clone(), queue.clone(), &self.settings);
        publisher
            .connect()
            .map_err(|trouble| stream.start_error(trouble))?;
        let mut reader = Reader::new(stream.clone(), feed);
        let link = reader
            .start()
            .map_err(|trouble| stream.start_error(trouble))?;
        spawn("reader", move || reader.run(link))?;
        spawn("publisher", move || publisher.run())
    }

    /// Ends the threads. Each ends after the command that it is in.
    fn end(&self) {
        for (stream, _) in self.streams.iter().flatten() {
            stream.stop();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = thread::Builder::new().name(format!("redis-{name}"));
    thread.spawn(work).map(drop).map_err(|error| {
        let message = "can't start a thread that talks to Redis; allow the process more threads";
        Error::new(ErrorKind::Busy, message).with_source(error)
    })
}

impl Backplane for RedisStreams {
    fn streams(&self) -> usize {
        self.streams.len()
    }

    fn stream_of(&self, category: &str) -> usize {
        stream_of(category, self.streams.len())
    }

    fn reads(&self, stream: usize) -> bool {
        self.streams.get(stream).is_some_and(Option::is_some)
    }

    fn start(&self, feeds: Vec<Feed>) -> Result<(), Error> {
        let streams = self.streams.iter().zip(feeds);
        let started: Result<(), Error> = streams
            .filter_map(|(stream, feed)| Some((stream.as_ref()?, feed)))
            .try_for_each(|((stream, queue), feed)| self.start_stream(stream, queue, feed));
        if started.is_err() {
            let _ = self.stop(Duration::ZERO);
        }
        started
    }

    fn publish(
        &self,
        stream: usize,
        drafts: Vec<Draft>,
        key: Option<PublishKey>,
    ) -> Result<Answered, Error> {
        let Some((_, queue)) = self.streams.get(stream).and_then(Option::as_ref) else {
            return Err(Error::request("a category of a stream that is not read"));
        };
        let failing = || self.monitor.failing();
        queue.publish(&drafts, key, self.settings.max_wait, failing)
    }

    fn stop(&self, timeout: Duration) -> Result<(), Error> {
        let deadline = Deadline::after(timeout);
        let queues = self.streams.iter().flatten();
        let unfinished = queues.filter(|(_, queue)| !queue.close(deadline)).count();
        self.end();
        match unfinished {
            0 => Ok(()),
            _ => {
                let message = format!(
                    "publishes were still waiting for Redis after {timeout:?}; they may or may not take effect"
                );
                Err(Error::new(ErrorKind::StopTimeout, message))
            }
        }
    }

    fn statistics(&self) -> BackplaneStatistics {
        let queues = self.streams.iter().flatten();
        self.monitor
            .statistics(queues.map(|(_, queue)| queue.waiting()).sum())
    }
}
