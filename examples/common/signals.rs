//! The signals that stop a server: SIGTERM, SIGINT (Ctrl-C) and SIGHUP, and on Windows the console's events.
//!
//! The first one asks for a clean stop. Another one, a second later or more, ends the process at once, which loses what is
//! not written yet. Within that second it counts as the first one repeated: `timeout` and shells send one signal twice, to
//! a process and to its group.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Signals within this time are one request to stop.
const REPEATED: Duration = Duration::from_secs(1);

/// Waits for the first signal.
pub(crate) struct Signals {
    first: Receiver<&'static str>,
    #[cfg_attr(unix, allow(dead_code))]
    sender: Sender<&'static str>,
}

impl Signals {
    /// Handles signals from now on. To be called before the server is started, so that no signal is missed.
    ///
    /// # Errors
    ///
    /// Where the system refuses a handler, or a thread.
    pub(crate) fn handle() -> io::Result<Self> {
        let (sender, first) = channel();
        system::handle(Handler {
            first: None,
            sender: sender.clone(),
        })?;
        Ok(Signals { first, sender })
    }

    /// Blocks until a signal comes, and returns its name.
    pub(crate) fn wait(&self) -> &'static str {
        // `self` keeps the channel open.
        self.first.recv().unwrap_or_default()
    }

    /// Sends this process the signal that a service manager stops it with.
    #[allow(dead_code)]
    pub(crate) fn raise(&self) -> io::Result<()> {
        #[cfg(unix)]
        return signal_hook::low_level::raise(signal_hook::consts::SIGTERM);
        #[cfg(windows)]
        self.sender
            .send("console event")
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// What to do with each signal.
struct Handler {
    /// When the first one came.
    first: Option<Instant>,
    sender: Sender<&'static str>,
}

impl Handler {
    /// True where the process is to end at once.
    fn came(&mut self, signal: &'static str) -> bool {
        match self.first {
            None => {
                self.first = Some(Instant::now());
                // Nobody waits any more where the process is ending anyway.
                _ = self.sender.send(signal);
                false
            }
            Some(first) => first.elapsed() >= REPEATED,
        }
    }
}

#[cfg(unix)]
mod system {
    use std::{io, thread};

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::{emulate_default_handler, signal_name};

    use super::Handler;

    pub(super) fn handle(mut handler: Handler) -> io::Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        // `nohup` has SIGHUP ignored so that the process outlives its terminal.
        if !is_ignored(SIGHUP) {
            signals.add_signal(SIGHUP)?;
        }
        let run = move || {
            for signal in signals.forever() {
                if handler.came(signal_name(signal).unwrap_or("a signal")) {
                    log::error!(
                        "ended at once by a second signal: events not written yet are lost"
                    );
                    _ = emulate_default_handler(signal);
                }
            }
        };
        let thread = thread::Builder::new().name("signals".into());
        thread.spawn(run).map(drop)
    }

    /// True where the process was started with this signal ignored; only Linux tells without unsafe code.
    fn is_ignored(signal: i32) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        ignored.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
    }
}

#[cfg(windows)]
mod system {
    use std::io;

    use super::Handler;

    pub(super) fn handle(mut handler: Handler) -> io::Result<()> {
        let came = move || {
            if handler.came("console event") {
                log::error!("ended at once by a second event: events not written yet are lost");
                std::process::exit(1);
            }
        };
        ctrlc::set_handler(came).map_err(io::Error::other)
    }
}
