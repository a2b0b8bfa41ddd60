//! The signals that stop a server: SIGTERM, SIGINT (Ctrl-C) and SIGHUP, and on Windows the console's events.
//!
//! The first signal asks for a clean stop. A second one, a second later or more, ends the process at once, and events that
//! are not written yet are lost. Within that second, it counts as a repetition: `timeout` and shells send one signal twice,
//! to a process and to its group.

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
    /// Handles signals from now on. Call this before the server starts, so that no signal is missed.
    ///
    /// # Errors
    ///
    /// If the system refuses a handler or a thread.
    pub(crate) fn handle() -> io::Result<Self> {
        let (sender, first) = channel();
        system::handle(Handler {
            first: None,
            sender: sender.clone(),
        })?;
        Ok(Signals { first, sender })
    }

    /// Blocks until a signal arrives, and returns its name.
    pub(crate) fn wait(&self) -> &'static str {
        // `self` keeps the channel open.
        self.first.recv().unwrap_or_default()
    }

    /// Sends this process the signal with which a service manager stops it.
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

/// Decides what a signal does.
struct Handler {
    /// When the first signal arrived.
    first: Option<Instant>,
    sender: Sender<&'static str>,
}

impl Handler {
    /// Returns `true` if the process must end at once.
    fn receive(&mut self, signal: &'static str) -> bool {
        match self.first {
            None => {
                self.first = Some(Instant::now());
                // Without a receiver, the process is ending already.
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
        // `nohup` starts the process with SIGHUP ignored, so that it outlives its terminal.
        if !is_ignored(SIGHUP) {
            signals.add_signal(SIGHUP)?;
        }
        let run = move || {
            for signal in signals.forever() {
                if handler.receive(signal_name(signal).unwrap_or("a signal")) {
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

    /// Returns `true` if the process was started with this signal ignored. Only Linux shows this without unsafe code.
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
        let receive = move || {
            if handler.receive("console event") {
                log::error!("ended at once by a second event: events not written yet are lost");
                std::process::exit(1);
            }
        };
        ctrlc::set_handler(receive).map_err(io::Error::other)
    }
}
