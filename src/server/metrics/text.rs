//! Prometheus' text format, version 0.0.4: [`render`].

use std::fmt::Write;

use super::report::{Limits, Report};
#[cfg(feature = "redis")]
use crate::broker::BackplaneStatistics;
use crate::broker::Statistics;
use crate::store::StoreStatistics;

/// The report as text. The names of counters end in `_total`, and those of values with a unit in that unit.
pub(super) fn render(report: &Report) -> String {
    let mut text = Exposition(String::with_capacity(6 * 1024));
    text.server(report);
    text.limits(&report.limits);
    text.broker(&report.statistics);
    text.store(&report.statistics.store);
    #[cfg(feature = "redis")]
    if let Some(backplane) = &report.statistics.backplane {
        text.backplane(backplane);
    }
    text.0
}

struct Exposition(String);

impl Exposition {
    fn server(&mut self, report: &Report) {
        self.family(
            "build_info",
            "gauge",
            "Always 1; the labels have the version.",
        );
        let labels = [("version", report.version), ("http", report.http)];
        self.sample("build_info", &labels, 1);
        self.gauge(
            "start_time_seconds",
            "Unix time of the start.",
            report.start_time,
        );
        self.gauge(
            "stopping",
            "1 from the begin of a stop on.",
            report.stopping.into(),
        );
        if let Some(open) = report.connections {
            self.gauge("connections", "Open connections.", open as u64);
        }
        self.counter(
            "connections_refused",
            "Connections answered with 503, past max_connections or for want of a thread.",
            report.connections_refused,
        );
        self.gauge(
            "event_streams",
            "Open streams of Server-Sent Events.",
            report.event_streams,
        );
        // The first answer is counted after it was rendered.
        if !report.responses.is_empty() {
            self.family("http_responses_total", "counter", "Answers, by status.");
        }
        for (status, count) in &report.responses {
            self.sample(
                "http_responses_total",
                &[("code", &status.to_string())],
                *count,
            );
        }
    }

    fn limits(&mut self, limits: &Limits) {
        let Limits {
            max_parked,
            max_categories,
            max_event_bytes,
        } = *limits;
        for (name, help, value) in [
            (
                "parked_subscribers_max",
                "The setting max_parked.",
                max_parked,
            ),
            (
                "categories_max",
                "The setting max_categories.",
                max_categories,
            ),
            (
                "event_max_bytes",
                "The setting max_event_bytes.",
                max_event_bytes,
            ),
        ] {
            self.gauge(name, help, value as u64);
        }
    }

    fn broker(&mut self, statistics: &Statistics) {
        // Named one by one, so that a new field is not forgotten here.
        let Statistics {
            published,
            delivered,
            timed_out,
            refused,
            gaps,
            pushed_out,
            expired,
            evicted,
            purged,
            parked,
            present,
            categories,
            events,
            event_bytes,
            idempotency_keys,
            repetitions,
            keys_forgotten,
            store: _,
            #[cfg(feature = "redis")]
                backplane: _,
        } = *statistics;
        for (name, help, value) in [
            ("events_published", "Events published.", published),
            (
                "events_delivered",
                "Events delivered: one for each subscriber that got it.",
                delivered,
            ),
            (
                "polls_timed_out",
                "Polls that ended without an event.",
                timed_out,
            ),
            (
                "requests_refused",
                "Publishes and polls that were refused.",
                refused,
            ),
            (
                "gaps_reported",
                "Answers with events that reported a gap.",
                gaps,
            ),
            (
                "publishes_repeated",
                "Repetitions of a publish with an idempotency key, answered as the first one.",
                repetitions,
            ),
            (
                "idempotency_keys_forgotten",
                "Idempotency keys forgotten before their time, for the limits.",
                keys_forgotten,
            ),
        ] {
            self.counter(name, help, value);
        }
        self.family(
            "events_removed_total",
            "counter",
            "Events that left memory, by reason.",
        );
        for (reason, value) in [
            ("pushed_out", pushed_out),
            ("expired", expired),
            ("evicted", evicted),
            ("purged", purged),
        ] {
            self.sample("events_removed_total", &[("reason", reason)], value);
        }
        for (name, help, value) in [
            ("parked_subscribers", "Subscribers that are parked.", parked),
            (
                "categories",
                "Categories with events or parked subscribers.",
                categories,
            ),
            ("events", "Events in memory.", events),
            ("event_bytes", "JSON of the events in memory.", event_bytes),
            (
                "idempotency_keys",
                "Idempotency keys in memory.",
                idempotency_keys,
            ),
        ] {
            self.gauge(name, help, value as u64);
        }
        if let Some(present) = present {
            let help = "Clients that are present, also between two polls.";
            self.gauge("present_subscribers", help, present as u64);
        }
    }

    fn store(&mut self, store: &StoreStatistics) {
        let StoreStatistics {
            loaded,
            damaged,
            written,
            pending,
            pending_bytes,
            failures,
            rewritten,
            bytes,
            ref failing,
        } = *store;
        for (name, help, value) in [
            ("store_events_loaded", "Events read at the start.", loaded),
            (
                "store_lines_damaged",
                "Lines that could not be read at the start.",
                damaged,
            ),
            ("store_lines_written", "Lines written.", written),
            ("store_failures", "Writes and syncs that failed.", failures),
            (
                "store_rewrites",
                "How often the file was compacted or replaced.",
                rewritten,
            ),
        ] {
            self.counter(name, help, value);
        }
        for (name, help, value) in [
            (
                "store_pending_lines",
                "Lines accepted and not yet written or synced.",
                pending,
            ),
            (
                "store_pending_bytes",
                "The approximate size of these lines.",
                pending_bytes,
            ),
            ("store_size_bytes", "The size of the file.", bytes),
            (
                "store_failing",
                "1 if the last attempt to write failed.",
                failing.is_some().into(),
            ),
        ] {
            self.gauge(name, help, value);
        }
    }

    #[cfg(feature = "redis")]
    fn backplane(&mut self, backplane: &BackplaneStatistics) {
        let BackplaneStatistics {
            connected,
            ref failing,
            published,
            read,
            waiting,
            reconnects,
            losses,
        } = *backplane;
        for (name, help, value) in [
            (
                "backplane_events_published",
                "Events that this node has published.",
                published,
            ),
            (
                "backplane_events_read",
                "Events that this node has read.",
                read,
            ),
            (
                "backplane_reconnects",
                "Connections that were made again.",
                reconnects,
            ),
            (
                "backplane_losses",
                "How often events were found lost.",
                losses,
            ),
        ] {
            self.counter(name, help, value);
        }
        for (name, help, value) in [
            (
                "backplane_connected",
                "1 if all streams are read and publishes go through.",
                connected.into(),
            ),
            (
                "backplane_failing",
                "1 if the backplane can't be reached or refuses publishes.",
                failing.is_some().into(),
            ),
            (
                "backplane_waiting_publishes",
                "Publishes that wait for an answer.",
                waiting,
            ),
        ] {
            self.gauge(name, help, value);
        }
    }

    /// A counter without labels. The name is given without `_total`.
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let name = format!("{name}_total");
        self.family(&name, "counter", help);
        self.sample(&name, &[], value);
    }

    /// A gauge without labels.
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let Exposition(text) = self;
        for line in [["HELP", help], ["TYPE", kind]] {
            let [keyword, rest] = line;
            for part in ["# ", keyword, " long_polling_", name, " ", rest, "\n"] {
                text.push_str(part);
            }
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let Exposition(text) = self;
        text.push_str("long_polling_");
        text.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            text.push_str(if at == 0 { "{" } else { "," });
            text.push_str(label);
            text.push_str("=\"");
            push_escaped(text, value);
            text.push('"');
        }
        let end = if labels.is_empty() { " " } else { "} " };
        // Writing into a String does not fail.
        let _ = writeln!(text, "{end}{value}");
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str(r"\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            _ => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_escaped() {
        let mut text = Exposition(String::new());
        text.sample("x", &[("a", "\\ \" \n é"), ("b", "")], 7);
        assert_eq!(text.0, "long_polling_x{a=\"\\\\ \\\" \\n é\",b=\"\"} 7\n");
    }
}
