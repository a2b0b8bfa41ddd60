//! A publish with an idempotency key: its repetitions publish nothing.

use serde::Serialize;

use super::fingerprint::Fingerprint;
use super::idempotency::{Begun, KeyedPublish};
use super::publish_all::ids_up_to;
use super::{Broker, Shared};
use crate::error::Error;
use crate::event::Draft;
use crate::position::EventId;
use crate::wire::{PublishBody, PublishRequest, check_key};

/// The result of a publish with a key.
pub(crate) struct Once {
    /// The id of the last event.
    pub(crate) last: EventId,
    count: u16,
    /// The events were published before, with the same key.
    pub(crate) is_repetition: bool,
}

impl Once {
    /// Returns the ids of all events, in their order.
    pub(crate) fn ids(&self) -> Vec<EventId> {
        ids_up_to(self.last, self.count.into())
    }
}

impl Broker {
    /// Publishes `data` to a category once: a repetition with the same key and the same data, within
    /// [`idempotency_window`](crate::BrokerOptions::idempotency_window), publishes nothing and returns the id of the first
    /// event. So a program that does not know whether a publish has worked can repeat it.
    ///
    /// The key has 1 to 255 printable ASCII characters, and is the broker's own: not of a category, and not of a publisher.
    /// A random UUID is a good one. The broker forgets keys after the window, and the oldest ones past
    /// [`max_idempotency_keys`](crate::BrokerOptions::max_idempotency_keys) and
    /// [`max_idempotency_bytes`](crate::BrokerOptions::max_idempotency_bytes); a repetition is then published again. A
    /// repetition that comes while the first publish is in flight waits for it. A publish that fails gives its key back. With
    /// a file, the key is kept with the event, so that it is known after a restart; with Redis, all nodes know it.
    ///
    /// ```
    /// use long_polling::{Broker, BrokerOptions, ErrorKind};
    ///
    /// let broker = Broker::new(BrokerOptions::new())?;
    /// let id = broker.publish_once("order-17", "orders", "pizza")?;
    /// assert_eq!(broker.publish_once("order-17", "orders", "pizza")?, id);
    /// assert_eq!(broker.statistics().published, 1);
    ///
    /// let error = broker.publish_once("order-17", "orders", "soup").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::KeyReused);
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Broker::publish), [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a key of another form,
    /// and [`KeyReused`](crate::ErrorKind::KeyReused) for a key of another event.
    pub fn publish_once<T: Serialize + ?Sized>(
        &self,
        key: &str,
        category: &str,
        data: &T,
    ) -> Result<EventId, Error> {
        let draft = || Ok(vec![self.0.draft(category, data, None)?]);
        Ok(self.counted(self.once(key, draft))?.last)
    }

    /// [`publish_with`](Broker::publish_with), for a request with a key.
    pub(super) fn publish_request_once<T: Serialize>(
        &self,
        key: &str,
        request: &PublishRequest<T>,
    ) -> Result<EventId, Error> {
        let draft = || {
            let draft = self
                .0
                .draft(&request.category, &request.data, request.ttl)?;
            Ok(vec![draft])
        };
        Ok(self.counted(self.once(key, draft))?.last)
    }

    /// [`publish_all`](Broker::publish_all), once: one key is for all of the events. A repetition with the same key and the
    /// same events publishes nothing and returns the ids of the first ones, as [`publish_once`](Broker::publish_once) does.
    ///
    /// ```
    /// use long_polling::{Broker, BrokerOptions, PublishRequest};
    ///
    /// let broker = Broker::new(BrokerOptions::new())?;
    /// let requests = [
    ///     PublishRequest::new("stock/a", -1),
    ///     PublishRequest::new("stock/b", 1),
    /// ];
    /// let ids = broker.publish_all_once("move-5", &requests)?;
    /// assert_eq!(broker.publish_all_once("move-5", &requests)?, ids);
    /// # Ok::<(), long_polling::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`publish_all`](Broker::publish_all) and [`publish_once`](Broker::publish_once).
    pub fn publish_all_once<T: Serialize>(
        &self,
        key: &str,
        requests: &[PublishRequest<T>],
    ) -> Result<Vec<EventId>, Error> {
        let drafts = || self.drafts(requests, |request| self.draft_without_key(request));
        Ok(self.counted(self.once(key, drafts))?.ids())
    }

    /// [`publish_once`](Broker::publish_once) for the body of HTTP. Leaves it to the caller to count an error.
    pub(crate) fn publish_body_once(
        &self,
        key: &str,
        body: &PublishBody<'_>,
    ) -> Result<Once, Error> {
        self.once(key, || Ok(vec![self.draft_of_body(body)?]))
    }

    /// [`publish_all_once`](Broker::publish_all_once) for the bodies of HTTP. Leaves it to the caller to count an error.
    pub(crate) fn publish_bodies_once(
        &self,
        key: &str,
        bodies: &[PublishBody<'_>],
    ) -> Result<Once, Error> {
        let drafts = || self.drafts(bodies, |body| self.draft_of_body(body));
        self.once(key, drafts)
    }

    /// Returns for how many whole seconds keys are remembered; 0 if they are ignored.
    pub(crate) fn idempotency_seconds(&self) -> u64 {
        self.options().idempotency_window.as_secs()
    }

    fn once(
        &self,
        key: &str,
        drafts: impl FnOnce() -> Result<Vec<Draft>, Error>,
    ) -> Result<Once, Error> {
        check_key(key)?;
        self.0.publish_once(key, drafts()?)
    }

    fn counted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|_| self.count_refused())
    }
}

impl Shared {
    fn publish_once(&self, key: &str, drafts: Vec<Draft>) -> Result<Once, Error> {
        let once = |ids: &[EventId]| Once {
            last: ids.last().copied().unwrap_or(EventId::from(0)),
            count: u16::try_from(ids.len()).unwrap_or(u16::MAX),
            is_repetition: false,
        };
        if !self.keys.are_kept() {
            return Ok(once(&self.publish_all(drafts)?));
        }
        let fingerprint = Fingerprint::of(&drafts);
        #[cfg(feature = "redis")]
        if let Some(streams) = &self.streams {
            let count = u16::try_from(drafts.len()).unwrap_or(u16::MAX);
            let key = self.keys.for_backplane(key, fingerprint);
            let answered = streams.publish_once(drafts, Some(key))?;
            if answered.is_repetition {
                self.keys.count_repetition();
            }
            return Ok(Once {
                last: answered.last,
                count,
                is_repetition: answered.is_repetition,
            });
        }
        match self.keys.begin(key, fingerprint, self.age.now())? {
            Begun::First(reservation) => {
                Ok(once(&self.publish_together(drafts, Some(reservation))?))
            }
            Begun::Repetition(KeyedPublish { last, count, .. }) => Ok(Once {
                last,
                count,
                is_repetition: true,
            }),
        }
    }
}
