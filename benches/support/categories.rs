//! [`Categories`]: a broker with very many categories, and publishes to them.

use std::cell::RefCell;

use long_polling::{Broker, BrokerOptions};

/// The bytes of each category's name, so that all names lie in one text: looking one up costs a cache miss at most.
const NAME: usize = 16;

/// A broker with a number of categories, each with one event, which the next event pushes out.
pub(crate) struct Categories {
    broker: Broker,
    names: String,
    random: RefCell<fastrand::Rng>,
}

impl Categories {
    pub(crate) fn new(count: usize) -> Self {
        let options = BrokerOptions::new()
            .events_per_category(1)
            .max_categories(usize::MAX)
            .max_event_bytes(usize::MAX);
        let broker = Broker::new(options).expect("a broker");
        let names = (0..count)
            .map(|number| format!("category {number:07}"))
            .collect();
        let categories = Categories {
            broker,
            names,
            random: RefCell::new(fastrand::Rng::with_seed(12)),
        };
        (0..count).for_each(|number| categories.publish_to(number));
        assert_eq!(categories.broker.statistics().categories, count);
        categories
    }

    /// Publishes an event to the category with this number.
    pub(crate) fn publish_to(&self, number: usize) {
        let name = &self.names[number * NAME..][..NAME];
        self.broker.publish(name, &number).expect("published");
    }

    /// Publishes an event to a random category, which is most often in no cache if there are many.
    pub(crate) fn publish_to_any(&self) {
        let count = self.names.len() / NAME;
        self.publish_to(self.random.borrow_mut().usize(..count));
    }
}
