//! Tests of the broker as a whole: logs and their compaction against each other, and schedules of its threads.

#[cfg(all(feature = "testing", not(shuttle)))]
mod compacted;
#[cfg(shuttle)]
mod schedules;

use super::*;
