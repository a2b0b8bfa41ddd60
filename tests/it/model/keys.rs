//! Steps with idempotency keys: what the broker remembers of them, the model does.

use super::*;

/// For longer than the clock of a case ever goes.
pub(super) const WINDOW: Duration = Duration::from_secs(365 * 24 * 3600);

/// The first publish with a key, which is what a repetition has to be.
pub(super) struct First {
    category: usize,
    ttl: Option<u64>,
    number: usize,
    id: EventId,
}

impl Pair {
    /// Publishes with a key: the first time as without one. Afterwards the event is not published again, and another one is
    /// refused, whatever has become of the first.
    pub(super) fn publish_once(&mut self, key: usize, category: usize, ttl: Option<u64>) {
        let name = format!("key {key}");
        let Some(first) = self.keys.get(&key) else {
            let first = self.publish(category, ttl, Some(name));
            self.keys.insert(key, first);
            return;
        };
        let request = self.request(first.category, first.number, first.ttl);
        let repeated = self.broker.publish_with(&request.idempotency_key(&*name));
        assert_eq!(repeated.unwrap(), first.id);
        let another = self.request(category, self.model.events.len(), ttl);
        let refused = self.broker.publish_with(&another.idempotency_key(name));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::KeyReused);
    }

    pub(super) fn publish(
        &mut self,
        category: usize,
        ttl: Option<u64>,
        key: Option<String>,
    ) -> First {
        let number = self.model.events.len();
        let mut request = self.request(category, number, ttl);
        if let Some(key) = key {
            request = request.idempotency_key(key);
        }
        let id = self.broker.publish_with(&request).unwrap();
        assert!(self.model.known().last().is_none_or(|last| last.id < id));
        let (woken, parked) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition::<Vec<_>, _>(|parked| parked.of.contains(&category));
        self.parked = parked;
        let by_time = woken.iter().any(|parked| parked.by_time);
        let own = ttl.filter(|_| self.own_ttls);
        self.model
            .publish(category, id, own, !woken.is_empty(), by_time);
        for parked in woken {
            let answer = Answer {
                events: vec![number],
                gap: parked.gap,
                by_time: parked.by_time,
                whole: true,
            };
            self.check(&parked.thread.join().unwrap(), &answer);
        }
        self.positions.push(id);
        First {
            category,
            ttl,
            number,
            id,
        }
    }
}
