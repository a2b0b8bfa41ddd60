//! A standalone server with flags for its settings. It prints `listening on http://ADDRESS`, or `listening on unix:PATH`,
//! once it serves, and logs to standard error. `RUST_LOG` sets the level of the log, `info` by default.
//!
//! SIGTERM, SIGINT (Ctrl-C) and SIGHUP stop it cleanly: it answers its parked subscribers and writes every event to the
//! file. A second signal, a second later or more, ends it at once. Under `nohup`, it ignores SIGHUP. The exit status is 0
//! after a clean stop, 1 after an error, and 2 for a wrong flag.
//!
//! ```text
//! cargo run --release --example server -- --address 127.0.0.1:8080 --file events.log
//! ```

#[path = "common/signals.rs"]
mod signals;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use lexopt::prelude::*;
use long_polling::server::{Handler, HttpBackend, Request, Response, TimeoutAnswer};
use long_polling::{
    BrokerOptions, Durability, Error, ErrorKind, FilePersistorInfo, Server, ServerInfo,
};
use signals::Signals;

/// How long requests in flight and the file may take at a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

const HELP: &str = "\
A long-polling server.

    --address HOST:PORT               where to listen; :8080 is every address, port 0 a free one (127.0.0.1:8080)
                                      native: or unix:PATH, a Unix socket
    --subscription-uri PATH           where polls go (/events)
    --publish-uri PATH                where publishes go (/publish)
    --timeout SECONDS                 the longest poll (120)
    --file PATH                       keep events in this file, and start with its events
    --durability LEVEL                what a crash may cost: buffered, synced or acknowledged (buffered)
    --write-buffer-size BYTES         write to the file once this many bytes wait (65536)
    --flush-period SECONDS            write to the file, and sync it with synced, at least this often (1)
    --max-queue-size BYTES            the most bytes of events that may wait for the file (67108864)
    --max-wait SECONDS                how long a publish waits for room there before it gets 503 (5)
    --keep-history                    never compact the file
    --redis URL                       keep events in this Redis, in common with other servers (feature redis)
    --redis-prefix TEXT               what every key in Redis begins with (lp:)
    --events-per-category N           the most events kept of each category (250)
    --event-ttl SECONDS               events expire after this long (never)
    --max-batch-size BYTES            the most bytes of events in one answer; the next has the rest (4194304)
    --max-event-size BYTES            the most bytes of one event's data (1048576)
    --max-event-bytes BYTES           the most bytes of all events in memory; the oldest make room (67108864)
    --delete-after-first-retrieval    delete an event once a poll has fetched it
    --golongpoll-timeouts             answer polls that time out as golongpoll does, not with 204
    --publish-token TOKEN             require this bearer token for publishes
    --subscribe-token TOKEN           require this bearer token for polls
    --max-parked N                    the most subscribers parked at once (10000)
    --idle-timeout SECONDS            close connections that are silent for this long (timeout and 10)
    --restore-timeout SECONDS         report a failure after accepting no connection for this long (30)
    --write-timeout SECONDS           close connections that don't read an answer for this long (10)
    --trusted-proxy IP                take client addresses from X-Forwarded-For of this proxy; may be repeated
    --trust-unix-peers                native: take client addresses from X-Forwarded-For on a Unix socket
    --socket-mode MODE                native: the mode of the Unix socket, in octal, such as 660 (by the umask)
    --http BACKEND                    what serves HTTP: tiny_http, or native if built with the feature native-http
    --max-connections N               native: the most connections at once (what the system allows, up to 10000)
    --head-timeout SECONDS            native: the most time that a request's head may take (10)
    --body-timeout SECONDS            native: the most time that a request's body may take (30)
";

/// The settings that errors of the library name, and the flags that set them.
const FLAGS: [(&str, &str); 30] = [
    ("address", "--address"),
    ("subscription_uri", "--subscription-uri"),
    ("publish_uri", "--publish-uri"),
    ("timeout", "--timeout"),
    ("file_name", "--file"),
    ("durability", "--durability"),
    ("write_buffer_size", "--write-buffer-size"),
    ("write_flush_period", "--flush-period"),
    ("max_queue_size", "--max-queue-size"),
    ("max_wait", "--max-wait"),
    ("compact_from", "--keep-history"),
    ("redis", "--redis"),
    ("key_prefix", "--redis-prefix"),
    ("events_per_category", "--events-per-category"),
    ("event_ttl", "--event-ttl"),
    ("max_batch_size", "--max-batch-size"),
    ("max_event_bytes", "--max-event-bytes"),
    ("max_event_size", "--max-event-size"),
    ("before_publish", "--publish-token"),
    ("before_subscription", "--subscribe-token"),
    ("max_parked", "--max-parked"),
    ("idle_timeout", "--idle-timeout"),
    ("restore_timeout", "--restore-timeout"),
    ("write_timeout", "--write-timeout"),
    ("trusted_proxies", "--trusted-proxy"),
    ("socket_mode", "--socket-mode"),
    ("http_backend", "--http"),
    ("max_connections", "--max-connections"),
    ("head_timeout", "--head-timeout"),
    ("body_timeout", "--body-timeout"),
];

/// The flags that have no effect without `--file`.
const FILE_FLAGS: [&str; 6] = [
    "--durability",
    "--write-buffer-size",
    "--flush-period",
    "--max-queue-size",
    "--max-wait",
    "--keep-history",
];

/// Why the program ends.
enum Failure {
    /// A flag or its value can't be used.
    Usage(String),
    /// The server can't start, or did not stop cleanly.
    Run(String),
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Failure::Usage(error.to_string())
    }
}

/// The settings that the flags give.
struct Flags {
    info: ServerInfo,
    is_kept: bool,
}

impl Flags {
    /// Returns `None` if the flags ask for help.
    fn parse(mut arguments: lexopt::Parser) -> Result<Option<Flags>, Failure> {
        let mut info = ServerInfo::default();
        let mut file = FilePersistorInfo::new(PathBuf::new());
        let mut has_file = false;
        let mut broker = BrokerOptions::new();
        let mut flush_period = Duration::from_secs(1);
        let mut proxies = Vec::new();
        let mut durability = None;
        let mut needs_file: Option<String> = None;
        let mut redis = Redis::default();
        while let Some(argument) = arguments.next()? {
            let flag = match argument {
                Long(flag) => format!("--{flag}"),
                Short('h') => "--help".to_owned(),
                other => return Err(other.unexpected().into()),
            };
            let mut value = Value(&flag, &mut arguments);
            match &*flag {
                "--address" => info = info.address(value.text()?),
                "--subscription-uri" => info = info.subscription_uri(value.text()?),
                "--publish-uri" => info = info.publish_uri(value.text()?),
                "--timeout" => info = info.timeout(value.seconds()?),
                "--file" => {
                    file = file.file_name(value.1.value()?);
                    has_file = true;
                }
                "--durability" => durability = Some(value.text()?),
                "--write-buffer-size" => file = file.write_buffer_size(value.number()?),
                "--flush-period" => {
                    flush_period = value.seconds()?;
                    file = file.write_flush_period(flush_period);
                }
                "--max-queue-size" => file = file.max_queue_size(value.number()?),
                "--max-wait" => file = file.max_wait(value.seconds()?),
                "--keep-history" => file = file.compact_from(None),
                "--redis" => redis.url = Some(value.text()?),
                "--redis-prefix" => redis.prefix = Some(value.text()?),
                "--events-per-category" => broker = broker.events_per_category(value.number()?),
                "--event-ttl" => broker = broker.event_ttl(value.seconds()?),
                "--max-batch-size" => broker = broker.max_batch_size(value.number()?),
                "--max-event-size" => broker = broker.max_event_size(value.number()?),
                "--max-event-bytes" => broker = broker.max_event_bytes(value.number()?),
                "--delete-after-first-retrieval" => {
                    broker = broker.delete_after_first_retrieval(true)
                }
                "--golongpoll-timeouts" => info = info.timeout_answer(TimeoutAnswer::Golongpoll),
                "--publish-token" => info = info.before_publish(value.token()?),
                "--subscribe-token" => info = info.before_subscription(value.token()?),
                "--max-parked" => broker = broker.max_parked(value.number()?),
                "--idle-timeout" => info = info.idle_timeout(value.seconds()?),
                "--restore-timeout" => info = info.restore_timeout(value.seconds()?),
                "--write-timeout" => info = info.write_timeout(value.seconds()?),
                "--trusted-proxy" => {
                    let proxy = value.parsed("give an IP address, such as 10.0.0.1")?;
                    proxies.push(proxy);
                }
                "--trust-unix-peers" => info = info.trust_unix_peers(true),
                "--socket-mode" => info = info.socket_mode(value.mode()?),
                "--http" => info = info.http_backend(parse_backend(&value.text()?)?),
                "--max-connections" => info = info.max_connections(value.number()?),
                "--head-timeout" => info = info.head_timeout(value.seconds()?),
                "--body-timeout" => info = info.body_timeout(value.seconds()?),
                "--help" => return Ok(None),
                _ => return Err(Failure::Usage(format!("invalid option '{flag}'"))),
            }
            if FILE_FLAGS.contains(&&*flag) {
                needs_file.get_or_insert(flag);
            }
        }
        if let (Some(flag), false) = (needs_file, has_file) {
            return Err(Failure::Usage(format!(
                "{flag} has no effect without --file: give --file PATH too"
            )));
        }
        file = file.durability(parse_durability(durability.as_deref(), flush_period)?);
        info = info.broker(broker).trusted_proxies(proxies);
        if has_file && redis.url.is_some() {
            return Err(Failure::Usage(
                "--file and --redis keep the events in two places: give one of them".into(),
            ));
        }
        let is_kept = has_file || redis.url.is_some();
        if has_file {
            info = info.file(file);
        }
        let info = redis.apply(info)?;
        Ok(Some(Flags { info, is_kept }))
    }
}

/// The flags for Redis.
#[derive(Default)]
struct Redis {
    url: Option<String>,
    prefix: Option<String>,
}

impl Redis {
    #[cfg(feature = "redis")]
    fn apply(self, info: ServerInfo) -> Result<ServerInfo, Failure> {
        match (self.url, self.prefix) {
            (None, None) => Ok(info),
            (None, Some(_)) => Err(Failure::Usage(
                "--redis-prefix has no effect without --redis: give --redis URL too".into(),
            )),
            (Some(url), prefix) => {
                let backplane = long_polling::RedisBackplane::new(url);
                Ok(info.redis(match prefix {
                    Some(prefix) => backplane.key_prefix(prefix),
                    None => backplane,
                }))
            }
        }
    }

    #[cfg(not(feature = "redis"))]
    fn apply(self, info: ServerInfo) -> Result<ServerInfo, Failure> {
        match (self.url, self.prefix) {
            (None, None) => Ok(info),
            _ => Err(Failure::Usage(
                "--redis: this server was built without Redis; build it with --features redis"
                    .into(),
            )),
        }
    }
}

fn parse_backend(name: &str) -> Result<HttpBackend, Failure> {
    match name {
        #[cfg(feature = "server")]
        "tiny_http" => Ok(HttpBackend::TinyHttp),
        #[cfg(feature = "native-http")]
        "native" => Ok(HttpBackend::Native),
        #[cfg(not(feature = "server"))]
        "tiny_http" => Err(invalid("--http", name, "build with --features server")),
        #[cfg(not(feature = "native-http"))]
        "native" => Err(invalid("--http", name, "build with --features native-http")),
        other => Err(invalid("--http", other, "give tiny_http or native")),
    }
}

fn parse_durability(level: Option<&str>, period: Duration) -> Result<Durability, Failure> {
    match level {
        None | Some("buffered") => Ok(Durability::Buffered),
        Some("synced") => Ok(Durability::Synced { period }),
        Some("acknowledged") => Ok(Durability::Acknowledged),
        Some(other) => {
            let hint = "give buffered, synced or acknowledged";
            Err(invalid("--durability", other, hint))
        }
    }
}

/// The value of the flag with this name, not yet read.
struct Value<'a>(&'a str, &'a mut lexopt::Parser);

impl Value<'_> {
    fn text(&mut self) -> Result<String, Failure> {
        let value = self.1.value()?;
        value
            .into_string()
            .map_err(|value| invalid(self.0, value.to_string_lossy(), "give text in UTF-8"))
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, hint: &str) -> Result<T, Failure> {
        let text = self.text()?;
        text.parse()
            .map_err(|error| invalid(self.0, &text, format!("{error}; {hint}")))
    }

    fn number(&mut self) -> Result<usize, Failure> {
        self.parsed("give a whole number")
    }

    /// The mode of a file, in octal.
    fn mode(&mut self) -> Result<u32, Failure> {
        let text = self.text()?;
        u32::from_str_radix(&text, 8).map_err(|error| {
            let why = format!("{error}; give octal digits, such as 660");
            invalid(self.0, &text, why)
        })
    }

    /// Seconds, with or without a fraction.
    fn seconds(&mut self) -> Result<Duration, Failure> {
        let hint = "give seconds, such as 5 or 0.5";
        let seconds: f64 = self.parsed(hint)?;
        Duration::try_from_secs_f64(seconds)
            .map_err(|error| invalid(self.0, seconds, format!("{error}; {hint}")))
    }

    fn token(&mut self) -> Result<Handler, Failure> {
        let token = self.text()?;
        if token.is_empty() {
            return Err(invalid(
                self.0,
                token,
                "it is empty and protects nothing; give a token",
            ));
        }
        Ok(Handler::bearer_token(&token))
    }
}

fn invalid(flag: &str, value: impl Display, why: impl Display) -> Failure {
    Failure::Usage(format!("{flag}: invalid value \"{value}\": {why}"))
}

/// The message of an error, with the names of flags instead of the names of settings.
fn with_flags(error: &Error) -> String {
    let message = error.report().to_string();
    if !matches!(
        error.kind(),
        ErrorKind::InvalidSetting | ErrorKind::Listen | ErrorKind::File
    ) {
        return message;
    }
    let Some((setting, problem)) = message.split_once(": ") else {
        return message;
    };
    let name = setting.rsplit("::").next().unwrap_or(setting);
    let Some((_, flag)) = FLAGS.iter().find(|(field, _)| *field == name) else {
        return message;
    };
    // The text may name other settings. A file or an address in it is not a setting.
    let mut problem = problem.to_owned();
    if error.kind() == ErrorKind::InvalidSetting {
        for (field, flag) in FLAGS.iter().filter(|(field, _)| field.contains('_')) {
            problem = problem.replace(field, flag);
        }
    }
    format!("{flag}: {problem}")
}

fn run(flags: Flags) -> Result<(), Failure> {
    // Before the first thread starts, so that no signal is missed.
    let signals = Signals::handle()
        .map_err(|error| Failure::Run(format!("can't handle signals: {error}")))?;
    let info = flags
        .info
        .fallback(|request: &Request| match request.path() {
            "/health" => Response::text(200, "well\n"),
            _ => Response::error(404, "not found"),
        })
        // The server continues: it serves open connections and parked subscribers, and tries to accept again.
        .on_failure(|error| log::error!("{}", error.report()));
    let server = Server::start(info).map_err(|error| match error.kind() {
        ErrorKind::InvalidSetting => Failure::Usage(with_flags(&error)),
        _ => Failure::Run(with_flags(&error)),
    })?;
    let address = match server.unix_path() {
        Some(path) => format!("unix:{}", path.display()),
        None => format!("http://{}", server.local_addr()),
    };
    // If standard output is closed, the server continues without this line.
    let _ = writeln!(io::stdout(), "listening on {address}");
    if !flags.is_kept {
        log::info!("events are kept in memory only; --file keeps them across restarts");
    }
    log::info!("{}: stopping", signals.wait());
    server
        .stop(STOP_TIMEOUT)
        .map_err(|error| Failure::Run(error.report().to_string()))
}

fn main() -> ExitCode {
    // RUST_LOG overrides this. tiny_http's own records are off, because it logs every stop as an error.
    env_logger::Builder::new()
        .parse_filters("info,tiny_http=off")
        .parse_default_env()
        .init();
    let ended = match Flags::parse(lexopt::Parser::from_env()) {
        Ok(Some(flags)) => run(flags),
        Ok(None) => {
            let _ = write!(io::stdout(), "{HELP}");
            Ok(())
        }
        Err(failure) => Err(failure),
    };
    // Not with eprintln, which panics if standard error is closed, as it may be after SIGHUP.
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => {
            let _ = writeln!(io::stderr(), "{error}; see --help");
            ExitCode::from(2)
        }
        Err(Failure::Run(error)) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}
