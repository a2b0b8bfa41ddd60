//! The flags for the events in memory.

use long_polling::CategoryOptions;

use super::Apply::Broker;
use super::{Flag, Topic};
use crate::value::Value;

pub(super) const TOPIC: Topic = Topic {
    title: "Events in memory",
    flags: &[
        Flag {
            name: "--events-per-category",
            value: "N",
            help: "the most events kept of each category (250)",
            setting: "events_per_category",
            apply: Broker(|options, value| Ok(options.events_per_category(value.number()?))),
        },
        Flag {
            name: "--event-ttl",
            value: "DURATION",
            help: "events expire after this long (never)",
            setting: "event_ttl",
            apply: Broker(|options, value| Ok(options.event_ttl(value.optional(Value::duration)?))),
        },
        Flag {
            name: "--category",
            value: "PREFIX=N[:DURATION]",
            help: "of categories that begin with PREFIX, the most events kept of each, and how long; may be repeated, or a \
                   list with commas, such as metrics/=10:60s,state/=1 (as above)",
            setting: "for_categories",
            apply: Broker(|options, value| {
                let categories = value.list::<(String, CategoryOptions)>()?;
                Ok(categories
                    .into_iter()
                    .fold(options, |options, (prefix, of)| {
                        options.for_categories(prefix, of)
                    }))
            }),
        },
        Flag {
            name: "--delete-after-first-retrieval",
            value: "",
            help: "delete an event once a poll has fetched it",
            setting: "delete_after_first_retrieval",
            apply: Broker(
                |options, value| Ok(options.delete_after_first_retrieval(value.is_on()?)),
            ),
        },
        Flag {
            name: "--max-categories",
            value: "N",
            help: "the most categories with events (10000)",
            setting: "max_categories",
            apply: Broker(|options, value| Ok(options.max_categories(value.number()?))),
        },
        Flag {
            name: "--max-event-size",
            value: "SIZE",
            help: "the most bytes of one event's data (1M)",
            setting: "max_event_size",
            apply: Broker(|options, value| Ok(options.max_event_size(value.size()?))),
        },
        Flag {
            name: "--max-event-bytes",
            value: "SIZE",
            help: "the most bytes of all events in memory; the oldest make room (64M)",
            setting: "max_event_bytes",
            apply: Broker(|options, value| Ok(options.max_event_bytes(value.size()?))),
        },
        Flag {
            name: "--max-batch-size",
            value: "SIZE",
            help: "the most bytes of events in one answer; the next has the rest (4M)",
            setting: "max_batch_size",
            apply: Broker(|options, value| Ok(options.max_batch_size(value.size()?))),
        },
        Flag {
            name: "--idempotency-window",
            value: "DURATION",
            help: "a publish repeated with the same Idempotency-Key within this time is published once; 0s for never (10m)",
            setting: "idempotency_window",
            apply: Broker(|options, value| Ok(options.idempotency_window(value.duration()?))),
        },
        Flag {
            name: "--max-idempotency-keys",
            value: "N",
            help: "the most keys remembered; the oldest make room (100000)",
            setting: "max_idempotency_keys",
            apply: Broker(|options, value| Ok(options.max_idempotency_keys(value.number()?))),
        },
        Flag {
            name: "--max-idempotency-bytes",
            value: "SIZE",
            help: "the most bytes of keys remembered (16M)",
            setting: "max_idempotency_bytes",
            apply: Broker(|options, value| Ok(options.max_idempotency_bytes(value.size()?))),
        },
        Flag {
            name: "--max-parked",
            value: "N",
            help: "the most subscribers parked at once (10000)",
            setting: "max_parked",
            apply: Broker(|options, value| Ok(options.max_parked(value.number()?))),
        },
    ],
};
