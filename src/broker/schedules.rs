//! Schedules of the broker's threads.
