//! A standalone server with flags for its settings. It prints `listening on http://ADDRESS` once it serves, and stops
//! cleanly on SIGTERM and Ctrl-C.
//!
//! ```text
//! cargo run --release --example server -- --address 127.0.0.1:8080 --file events.log
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;
use long_polling::server::{Fallback, Handler, Response, TimeoutAnswer};
use long_polling::{Durability, FilePersistorInfo, Server, ServerInfo};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

const HELP: &str = "\
A long-polling server.

    --address HOST:PORT               where to listen; :8080 is every address, port 0 a free one (127.0.0.1:8080)
    --subscription-uri PATH           where polls go (/events)
    --publish-uri PATH                where publishes go (/publish)
    --timeout SECONDS                 the longest poll that is granted (120)
    --file PATH                       keep events in this file, and start with those in it
    --durability LEVEL                buffered, synced or acknowledged: what a crash may cost (buffered)
    --write-buffer-size BYTES         write to the file when this much waits (65536)
    --flush-period SECONDS            write to the file, and sync it with synced, at least this often (1)
    --max-queue-size BYTES            events that may wait for the file (67108864)
    --max-wait SECONDS                a publish waits for room there, then 503; 0 for at once (5)
    --keep-history                    never make the file smaller
    --events-per-category N           events kept of each category (250)
    --event-ttl SECONDS               events expire after this long (never)
    --max-batch-size BYTES            of events in one answer; what is left comes with the next (4194304)
    --max-event-bytes BYTES           of all events held; past it, the oldest are lost (67108864)
    --delete-after-first-retrieval    an event is gone once fetched
    --golongpoll-timeouts             answer polls that time out as golongpoll does, not with 204
    --publish-token TOKEN             publishing needs this bearer token
    --subscribe-token TOKEN           polling needs this bearer token
    --max-parked N                    subscribers parked at once (10000)
    --idle-timeout SECONDS            close connections that say nothing for this long (timeout and 10)
    --write-timeout SECONDS           close connections that don't read an answer for this long (10)
    --trusted-proxy IP                believe X-Forwarded-For of this proxy; may be given more than once
";

/// What the flags say.
#[derive(Default)]
struct Flags {
    info: ServerInfo,
    file: Option<PathBuf>,
    write_buffer_size: Option<usize>,
    flush_period: Option<Duration>,
    durability: Option<String>,
    max_queue_size: Option<usize>,
    max_wait: Option<Duration>,
    keep_history: bool,
}

impl Flags {
    /// `None` where help was asked for.
    fn parse() -> Result<Option<Flags>, lexopt::Error> {
        let mut flags = Flags::default();
        let info = &mut flags.info;
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("address") => info.address = arguments.value()?.string()?,
                Long("subscription-uri") => info.subscription_uri = arguments.value()?.string()?,
                Long("publish-uri") => info.publish_uri = arguments.value()?.string()?,
                Long("timeout") => info.timeout = seconds(&mut arguments)?,
                Long("file") => flags.file = Some(arguments.value()?.into()),
                Long("write-buffer-size") => {
                    flags.write_buffer_size = Some(arguments.value()?.parse()?)
                }
                Long("flush-period") => flags.flush_period = Some(seconds(&mut arguments)?),
                Long("durability") => flags.durability = Some(arguments.value()?.string()?),
                Long("max-wait") => flags.max_wait = Some(seconds(&mut arguments)?),
                Long("max-queue-size") => flags.max_queue_size = Some(arguments.value()?.parse()?),
                Long("keep-history") => flags.keep_history = true,
                Long("events-per-category") => {
                    info.broker.events_per_category = arguments.value()?.parse()?
                }
                Long("event-ttl") => info.broker.event_ttl = Some(seconds(&mut arguments)?),
                Long("max-batch-size") => {
                    info.broker.max_batch_size = arguments.value()?.parse()?
                }
                Long("max-event-bytes") => {
                    info.broker.max_event_bytes = arguments.value()?.parse()?
                }
                Long("delete-after-first-retrieval") => {
                    info.broker.delete_after_first_retrieval = true
                }
                Long("golongpoll-timeouts") => info.timeout_answer = TimeoutAnswer::Golongpoll,
                Long("publish-token") => {
                    let token = arguments.value()?.string()?;
                    info.handler_to_run_before_publish = Some(Handler::bearer_token(&token));
                }
                Long("subscribe-token") => {
                    let token = arguments.value()?.string()?;
                    info.handler_to_run_before_subscription = Some(Handler::bearer_token(&token));
                }
                Long("max-parked") => info.broker.max_parked = arguments.value()?.parse()?,
                Long("idle-timeout") => info.idle_timeout = Some(seconds(&mut arguments)?),
                Long("write-timeout") => info.write_timeout = seconds(&mut arguments)?,
                Long("trusted-proxy") => info.trusted_proxies.push(arguments.value()?.parse()?),
                Short('h') | Long("help") => return Ok(None),
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(Some(flags))
    }

    fn file(&self) -> Result<Option<FilePersistorInfo>, String> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let mut info = FilePersistorInfo::new(file);
        info.write_buffer_size = self.write_buffer_size.unwrap_or(info.write_buffer_size);
        info.write_flush_period = self.flush_period.unwrap_or(info.write_flush_period);
        info.max_wait = self.max_wait.unwrap_or(info.max_wait);
        info.max_queue_size = self.max_queue_size.unwrap_or(info.max_queue_size);
        if self.keep_history {
            info.compact_from = None;
        }
        info.durability = match self.durability.as_deref() {
            None | Some("buffered") => Durability::Buffered,
            Some("synced") => Durability::Synced {
                period: info.write_flush_period,
            },
            Some("acknowledged") => Durability::Acknowledged,
            Some(other) => {
                return Err(format!(
                    "--durability {other}: give buffered, synced or acknowledged"
                ));
            }
        };
        Ok(Some(info))
    }
}

/// Seconds, or a fraction of one.
fn seconds(arguments: &mut lexopt::Parser) -> Result<Duration, lexopt::Error> {
    let seconds: f64 = arguments.value()?.parse()?;
    Ok(Duration::try_from_secs_f64(seconds).map_err(|error| format!("{seconds}: {error}"))?)
}

fn run(mut flags: Flags) -> Result<(), Box<dyn Error>> {
    // Before the first thread is started, so that no signal is missed.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    flags.info.fallback = Some(Fallback::new(|request| match request.path() {
        "/health" => Response::text(200, "well\n"),
        _ => Response::error(404, "not found"),
    }));
    let file = flags.file()?;
    let failed = |error| {
        eprintln!("serving failed: {error}");
        std::process::exit(1);
    };
    let server = Server::start(flags.info, file, Some(Box::new(failed)))?;
    println!("listening on http://{}", server.local_address());
    signals.forever().next();
    server.stop(Duration::from_secs(10))?;
    Ok(())
}

fn main() -> ExitCode {
    // RUST_LOG says otherwise. tiny_http's own words are left out: it takes every stop for an error.
    env_logger::Builder::new()
        .parse_filters("warn,tiny_http=off")
        .parse_default_env()
        .init();
    let flags = match Flags::parse() {
        Ok(Some(flags)) => flags,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
