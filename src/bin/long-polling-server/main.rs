//! A standalone long-polling server with flags for its settings. It prints `listening on http://ADDRESS`, or
//! `listening on unix:PATH`, once it serves, and logs to standard error.
//!
//! SIGTERM, SIGINT (Ctrl-C) and SIGHUP stop it cleanly: it answers its parked subscribers and writes every event to the
//! file. A second signal, a second later or more, ends it at once. Under `nohup`, it ignores SIGHUP. The exit status is 0
//! after a clean stop, 1 after an error, and 2 for a flag that can't be used.
//!
//! ```text
//! cargo run --release --features cli -- --address 127.0.0.1:8080 --file events.log
//! ```

#![forbid(unsafe_code)]

#[cfg(unix)]
mod activation;
mod arguments;
mod failure;
mod flags;
mod help;
mod logger;
mod notify;
mod settings;
mod signals;
mod token_file;
mod value;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use long_polling::Server;
use long_polling::server::ListeningSocket;

use arguments::Command;
use failure::Failure;
use notify::notify;
use settings::Settings;
use signals::Signals;

fn main() -> ExitCode {
    let command = arguments::parse(lexopt::Parser::from_env(), env::vars_os());
    let ended = command.and_then(|command| match command {
        Command::Run(given, warnings) => run(&Settings::new(given, warnings)?),
        Command::Help => print(&help::text()),
        Command::Version => print(&help::version()),
    });
    // Not with eprintln, which panics if standard error is closed, as it may be after SIGHUP.
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage { message, flag }) => {
            let flag = flag.map(help::lines).unwrap_or_default();
            let _ = write!(io::stderr(), "{message}\n{flag}see --help\n");
            ExitCode::from(2)
        }
        Err(Failure::Run(message)) => {
            let _ = writeln!(io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    // A reader that has seen enough, such as `head`, is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn run(settings: &Settings) -> Result<(), Failure> {
    // Both before the first thread starts: the environment must not change afterwards, and no signal may be missed.
    let listener = listener()?;
    let signals = Signals::handle()
        .map_err(|error| Failure::Run(format!("can't handle signals: {error}")))?;
    logger::start(settings.log);
    let server = start(settings, listener)?;
    // After what can keep the server from starting, which should be the last words.
    for warning in &settings.warnings {
        log::warn!("{warning}");
    }
    let address = shown_address(&server);
    // If standard output is closed, the server continues without this line.
    let _ = writeln!(io::stdout(), "listening on {address}");
    notify(&format!("READY=1\nSTATUS=listening on {address}"));
    if !settings.is_kept() {
        log::info!("events are kept in memory only; --file keeps them across restarts");
    }
    log::info!("{}: stopping", signals.wait());
    notify("STOPPING=1\nSTATUS=stopping");
    server
        .stop(settings.stop_timeout)
        .map_err(|error| Failure::Run(error.report().to_string()))
}

/// The socket that a service manager passes.
fn listener() -> Result<Option<ListeningSocket>, Failure> {
    #[cfg(unix)]
    return activation::socket().map_err(Failure::Run);
    #[cfg(not(unix))]
    Ok(None)
}

fn start(settings: &Settings, listener: Option<ListeningSocket>) -> Result<Server, Failure> {
    let mut info = settings.server_info(listener.is_some());
    if let Some(listener) = listener {
        if settings.is_given("--address") {
            log::info!("a socket of the service manager takes the place of --address");
        }
        info = info.listener(listener);
    }
    // The server continues: it serves open connections and parked subscribers, and tries to accept again.
    let info = info.on_failure(|error| log::error!("{}", error.report()));
    Server::start(info).map_err(|error| Failure::of_start(&error, &settings.given))
}

/// The address as the server's own log has it.
fn shown_address(server: &Server) -> String {
    match (server.unix_path(), server.local_addr()) {
        (Some(path), _) => format!("unix:{}", path.display()),
        // A TCP socket that listens has a port.
        (None, address) if address.port() == 0 => "a Unix socket without a path".into(),
        (None, address) => format!("http://{address}"),
    }
}
