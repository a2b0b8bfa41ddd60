//! What the benches share: medians of rounds taken in turns, brokers with categories and subscribers, an HTTP client.

pub(crate) mod categories;
pub(crate) mod http;
pub(crate) mod parked;

use std::time::{Duration, Instant};

/// The longest wait for something that must happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Returns `true` if `cargo bench` runs the program. `cargo test` runs it with small amounts, to show that it works.
pub(crate) fn is_bench() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// Measures each subject in turns, so that a slow moment of the machine affects all of them. Returns, for each subject, the
/// median of each figure.
pub(crate) fn medians<T, const FIGURES: usize>(
    rounds: usize,
    subjects: &mut [T],
    mut measure: impl FnMut(&mut T) -> [f64; FIGURES],
) -> Vec<[f64; FIGURES]> {
    let mut measured = vec![Vec::new(); subjects.len()];
    for _ in 0..rounds {
        for (measured, subject) in measured.iter_mut().zip(subjects.iter_mut()) {
            measured.push(measure(subject));
        }
    }
    let of_figure = |measured: &[[f64; FIGURES]], figure: usize| {
        quantile(
            measured.iter().map(|figures| figures[figure]).collect(),
            0.5,
        )
    };
    let medians = measured
        .iter()
        .map(|measured| std::array::from_fn(|figure| of_figure(measured, figure)));
    medians.collect()
}

/// Returns the value that this part of the values is below: the median for 0.5.
pub(crate) fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values[at.min(values.len() - 1)]
}

/// Waits until the condition is met, for `LIMIT` at most.
pub(crate) fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    let mut pause = Duration::from_micros(50);
    while !met() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(pause);
        // Instructions of this loop are counted, too (.ci/instructions).
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}
