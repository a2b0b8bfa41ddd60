//! Tests of the broker as a whole: its log against the compacted one, followers by time, and schedules of its threads.

#[cfg(all(feature = "testing", not(shuttle)))]
mod compacted;
#[cfg(all(feature = "testing", not(shuttle)))]
mod millisecond;
#[cfg(shuttle)]
mod schedules;

use super::*;
use crate::position::Cursor;
use crate::wire::Categories;
