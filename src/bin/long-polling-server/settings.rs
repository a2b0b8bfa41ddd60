//! [`Settings`]: what the flags and variables set.

use std::mem;
use std::time::Duration;

use log::LevelFilter;
use long_polling::server::HttpBackend;
use long_polling::{BrokerOptions, FilePersistorInfo, ServerInfo};

use crate::failure::Failure;
use crate::flags::{self, Apply, Flag};
use crate::token_file;
use crate::value::{Given, Value};

/// The failure of a flag that depends on one that is not given.
fn has_no_effect(given: &Given, needed: &str) -> Failure {
    let name = given.name();
    let message = format!("{name} has no effect without {needed}: give that flag, too");
    Failure::of_flag(given.flag, message)
}

pub(crate) struct Settings {
    server: ServerInfo,
    broker: BrokerOptions,
    pub(crate) file: Option<FilePersistorInfo>,
    #[cfg(feature = "redis")]
    pub(crate) redis: Option<long_polling::RedisBackplane>,
    pub(crate) log: Option<LevelFilter>,
    pub(crate) stop_timeout: Duration,
    pub(crate) is_unix_address: bool,
    pub(crate) health_uri: Option<String>,
    /// What to log once there is a log.
    pub(crate) warnings: Vec<String>,
    /// The values that these settings are from.
    pub(crate) given: Vec<Given>,
}

impl Settings {
    /// # Errors
    ///
    /// A value that can't be read, or that has no effect.
    pub(crate) fn new(given: Vec<Given>, warnings: Vec<String>) -> Result<Self, Failure> {
        let mut settings = Settings {
            server: ServerInfo::default(),
            broker: BrokerOptions::new(),
            file: None,
            #[cfg(feature = "redis")]
            redis: None,
            log: None,
            stop_timeout: Duration::from_secs(10),
            is_unix_address: false,
            health_uri: Some("/health".into()),
            warnings,
            given: Vec::new(),
        };
        // In the order of the flags: --file comes before those that need it.
        for flag in flags::all() {
            // The last one counts.
            let last = given.iter().rfind(|given| given.flag.name == flag.name);
            if let Some(last) = last {
                let value = Value {
                    given: last,
                    all: &given,
                };
                settings.apply(flag, &value)?;
            }
        }
        settings.given = given;
        settings.check_store()?;
        settings.check_metrics()?;
        Ok(settings)
    }

    fn apply(&mut self, flag: &'static Flag, value: &Value) -> Result<(), Failure> {
        let name = value.given.name();
        let invalid = |why| Failure::of_flag(flag, format!("{name}: {why}"));
        let useless = |needed| has_no_effect(value.given, needed);
        match flag.apply {
            Apply::Server(set) => {
                self.server = set(mem::take(&mut self.server), value).map_err(invalid)?;
            }
            Apply::Broker(set) => {
                self.broker = set(mem::take(&mut self.broker), value).map_err(invalid)?;
            }
            Apply::File(set) => {
                let file = self.file.take().ok_or_else(|| useless("--file"))?;
                self.file = Some(set(file, value).map_err(invalid)?);
            }
            #[cfg(feature = "redis")]
            Apply::Redis(set) => {
                let redis = self.redis.take().ok_or_else(|| useless("--redis"))?;
                self.redis = Some(set(redis, value).map_err(invalid)?);
            }
            Apply::Settings(set) => set(self, value).map_err(invalid)?,
        }
        Ok(())
    }

    /// Changes the server's settings.
    pub(crate) fn server(&mut self, change: impl FnOnce(ServerInfo) -> ServerInfo) {
        self.server = change(mem::take(&mut self.server));
    }

    /// The token in the file that a value names.
    pub(crate) fn token_from_file(&mut self, value: &Value) -> Result<String, String> {
        let path = value.path();
        let token = token_file::read(&path)?;
        if let Some(warning) = token_file::exposure(&path) {
            let name = value.given.name();
            self.warnings.push(format!("{name}: {warning}"));
        }
        Ok(token)
    }

    #[cfg(feature = "redis")]
    fn check_store(&self) -> Result<(), Failure> {
        match self.given.iter().find(|given| given.flag.name == "--redis") {
            Some(redis) if self.file.is_some() => Err(Failure::of_flag(
                redis.flag,
                "--file and --redis keep the events in two places: give one of them".into(),
            )),
            _ => Ok(()),
        }
    }

    #[cfg(not(feature = "redis"))]
    fn check_store(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// A token for metrics, and no metrics.
    fn check_metrics(&self) -> Result<(), Failure> {
        let mut given = self.given.iter();
        match given.find(|given| given.flag.setting == "before_metrics") {
            Some(token) if !self.is_given("--metrics-uri") => {
                Err(has_no_effect(token, "--metrics-uri"))
            }
            _ => Ok(()),
        }
    }

    /// Whether events outlive the program.
    pub(crate) fn is_kept(&self) -> bool {
        #[cfg(feature = "redis")]
        if self.redis.is_some() {
            return true;
        }
        self.file.is_some()
    }

    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|given| given.flag.name == name)
    }

    /// The server's settings. `has_listener`: a service manager passes the socket.
    pub(crate) fn server_info(&self, has_listener: bool) -> ServerInfo {
        let mut info = self.server.clone().broker(self.broker.clone());
        if let Some(path) = &self.health_uri {
            info = info.health_uri(path);
        }
        if let Some(file) = &self.file {
            info = info.file(file.clone());
        }
        #[cfg(feature = "redis")]
        if let Some(redis) = &self.redis {
            info = info.redis(redis.clone());
        }
        // tiny_http has no Unix sockets, and its stop shuts the service manager's socket down.
        if !self.is_given("--http") && (has_listener || self.is_unix_address) {
            info = info.http_backend(HttpBackend::Native);
        }
        info
    }
}
