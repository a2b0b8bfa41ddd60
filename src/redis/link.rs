//! [`Link`]: a connection to the Redis that has a stream, and the commands that go over it.

use std::time::Duration;

use ::redis::{
    Client, Cmd, Connection, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion,
    RedisError, ServerErrorKind, Value, cmd, from_redis_value, io::tcp::TcpSettings, pipe,
};

use super::entry::{StreamEntry, bulk, entries, hex, number, parse_run, read_entries};
use super::keys::Keys;
use crate::broker::{Epoch, PublishKey};
use crate::position::{EventId, Run};

/// The most redirections by the nodes of a Redis Cluster before a connection is given up.
const MAX_REDIRECTIONS: usize = 8;
/// How long Redis keeps a node's newest batch: much longer than a publish is tried.
const KEEP_BATCH: Duration = Duration::from_secs(24 * 3600);

/// Why a command had no success.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Redis can't be reached or is not ready: to be tried again, over a new connection.
    Away(String),
    /// Redis refuses the command, which had no effect. Another try would most likely have the same result.
    Refused(String),
    /// A node of a Redis Cluster: another has the stream.
    Moved(String),
}

impl Trouble {
    pub(super) fn reason(&self) -> &str {
        match self {
            Trouble::Away(reason) | Trouble::Refused(reason) | Trouble::Moved(reason) => reason,
        }
    }
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        if let Some((address, _)) = error.redirect_node()
            && error.kind() == ErrorKind::Server(ServerErrorKind::Moved)
        {
            return Trouble::Moved(address.to_owned());
        }
        if error.is_timeout() {
            return Trouble::Away("Redis does not answer in time".into());
        }
        let is_login = error.kind() == ErrorKind::AuthenticationFailed;
        // A script's error has the code of the command in its text.
        for (code, advice) in [
            ("WRONGPASS", "give the right user and password in the URL"),
            ("NOAUTH", "give a password in the URL"),
            (
                "NOPERM",
                "allow the user the commands and keys that the guide lists",
            ),
            (
                "WRONGTYPE",
                "another program uses a key of this name: give another key_prefix",
            ),
            (
                "OOM",
                "Redis has reached its maxmemory: raise it, or lower max_stream_length",
            ),
            ("MISCONF", "Redis can't write its files: see its log"),
            (
                "NOREPLICAS",
                "Redis has fewer replicas than min-replicas-to-write",
            ),
        ] {
            if text.contains(code) || is_login && code == "WRONGPASS" {
                return Trouble::Refused(format!("Redis refuses: {text}; {advice}"));
            }
        }
        match error.code() {
            Some("ERR") => Trouble::Refused(format!("Redis refuses: {text}")),
            _ => Trouble::Away(text),
        }
    }
}

/// Where a stream is, and how long its connections may take.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) info: ConnectionInfo,
    pub(super) keys: Keys,
    /// How long Redis may take for a connection and an answer.
    pub(super) timeout: Duration,
}

/// What Redis says of a stream.
pub(super) struct Opened {
    pub(super) run: Run,
    pub(super) sequence: u64,
    pub(super) timestamp: u64,
    pub(super) epochs: Vec<Epoch>,
}

/// The newest event that a node knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) run: Option<Run>,
    pub(super) sequence: u64,
    /// The least timestamp that a later event must have.
    pub(super) timestamp: u64,
}

/// An event to append, or a purge.
#[derive(Clone)]
pub(super) struct Appendee {
    pub(super) category: String,
    pub(super) data: String,
    /// What the script needs to know besides: see `append.lua`.
    pub(super) note: String,
}

/// The events of one publish, or a purge, of which all are appended or none.
#[derive(Clone)]
pub(super) struct PublishEvents {
    pub(super) events: Vec<Appendee>,
    pub(super) key: Option<PublishKey>,
}

/// Publishes to append together.
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) publishes: Vec<PublishEvents>,
}

/// What became of a batch.
pub(super) enum Appended {
    At(Place),
    /// The stream has to be opened first.
    NotOpen,
}

/// Where the events of a batch are in the stream.
pub(super) struct Place {
    pub(super) run: Run,
    /// The sequence number of the first event that was appended.
    pub(super) first: u64,
    /// The timestamp of all events.
    pub(super) timestamp: u64,
    /// The publishes that were not appended because of their keys.
    pub(super) known: Vec<KnownKey>,
}

/// A publish of a batch that was not appended because of its key.
#[derive(Clone, Copy)]
pub(super) struct KnownKey {
    /// The place of the publish in the batch.
    pub(super) index: usize,
    /// The last event of the first publish with the key; `None` if that had other events.
    pub(super) first_publish: Option<EventId>,
}

/// The answer to a read.
pub(super) struct Read {
    /// The time of Redis before the read, in Unix milliseconds.
    pub(super) time: u64,
    /// The epoch and the newest sequence number before the read; `None` if the state is gone.
    pub(super) newest: Option<(Run, u64)>,
    pub(super) entries: Vec<StreamEntry>,
}

/// A connection to the Redis that has a stream.
pub(super) struct Link {
    connection: Connection,
    keys: Keys,
    /// The id of the Redis process.
    server: String,
    open: String,
    append: String,
}

impl Link {
    /// Connects. An answer may take `longer` than the usual time.
    pub(super) fn connect(target: &Target, longer: Duration) -> Result<Self, Trouble> {
        let tcp = TcpSettings::default().set_nodelay(true);
        let login = target.info.redis_settings().clone();
        let mut info = target
            .info
            .clone()
            .set_tcp_settings(tcp)
            .set_redis_settings(login.set_protocol(ProtocolVersion::RESP2));
        for _ in 0..MAX_REDIRECTIONS {
            match Link::to(&info, target, longer) {
                Err(Trouble::Moved(address)) => {
                    let moved = moved(info.addr(), &address);
                    let moved = moved.ok_or_else(|| Trouble::Away(unknown_address(&address)))?;
                    info = info.set_addr(moved);
                }
                other => return other,
            }
        }
        Err(Trouble::Away(
            "the nodes of the Redis Cluster name each other as the one that has the stream".into(),
        ))
    }

    fn to(info: &ConnectionInfo, target: &Target, longer: Duration) -> Result<Self, Trouble> {
        #[cfg(feature = "redis-tls")]
        super::tls::provide();
        let client = Client::open(info.clone())?;
        let mut connection = client.get_connection_with_timeout(target.timeout)?;
        connection.set_read_timeout(Some(target.timeout.saturating_add(longer)))?;
        connection.set_write_timeout(Some(target.timeout))?;
        let role: Value = cmd("ROLE").query(&mut connection)?;
        if let Value::Array(parts) = &role
            && parts.first().and_then(bulk).as_deref() != Some("master")
        {
            return Err(Trouble::Away("this Redis is a replica".into()));
        }
        let () = cmd("EXISTS")
            .arg(&target.keys.state)
            .query(&mut connection)?;
        let about: String = cmd("INFO").arg("server").query(&mut connection)?;
        let mut lines = about.lines();
        let server = lines.find_map(|line| line.strip_prefix("run_id:"));
        let server = server.ok_or_else(|| Trouble::Refused("INFO has no run_id".into()))?;
        let load = |script: &str, connection: &mut Connection| -> Result<String, RedisError> {
            cmd("SCRIPT").arg("LOAD").arg(script).query(connection)
        };
        Ok(Link {
            open: load(include_str!("open.lua"), &mut connection)?,
            append: load(include_str!("append.lua"), &mut connection)?,
            server: server.to_owned(),
            keys: target.keys.clone(),
            connection,
        })
    }

    /// Checks that Redis answers.
    pub(super) fn ping(&mut self) -> Result<(), Trouble> {
        let () = cmd("PING").query(&mut self.connection)?;
        Ok(())
    }

    /// Prepares the stream for this Redis process, and returns where the stream is.
    pub(super) fn open(&mut self, known: Known, random: u64) -> Result<Opened, Trouble> {
        let mut command = cmd("EVALSHA");
        command.arg(&self.open).arg(2);
        command.arg(&self.keys.state).arg(&self.keys.events);
        command.arg(&self.server).arg(random % 4096);
        command.arg(known.run.map(hex).unwrap_or_default());
        command.arg(known.sequence).arg(known.timestamp);
        let answer = self.strings(&command)?;
        let wrong = || Trouble::Refused(format!("the state of the stream is damaged: {answer:?}"));
        let [run, sequence, timestamp, epochs] = &answer[..] else {
            return Err(wrong());
        };
        let epochs = epochs.split_terminator(';').map(epoch);
        Ok(Opened {
            run: parse_run(run).ok_or_else(wrong)?,
            sequence: sequence.parse().map_err(|_| wrong())?,
            timestamp: timestamp.parse().map_err(|_| wrong())?,
            epochs: epochs.collect::<Option<_>>().ok_or_else(wrong)?,
        })
    }

    /// Appends a batch, or returns what became of it at an earlier try.
    pub(super) fn append(
        &mut self,
        batch: &Batch,
        known: Known,
        max_length: usize,
    ) -> Result<Appended, Trouble> {
        let mut command = cmd("EVALSHA");
        command.arg(&self.append).arg(5);
        command.arg(&self.keys.state).arg(&self.keys.events);
        command.arg(&self.keys.node).arg(&self.keys.keys);
        command.arg(&self.keys.key_times).arg(&self.server);
        command.arg(known.run.map(hex).unwrap_or_default());
        command.arg(known.sequence).arg(batch.number);
        command.arg(max_length).arg(KEEP_BATCH.as_secs());
        let mut keys = batch.publishes.iter().filter_map(|it| it.key.as_ref());
        // All keys of a broker have the same limits.
        let (window, max_keys) = keys.next().map_or((0, 0), |key| (key.window, key.max_keys));
        command.arg(window).arg(max_keys).arg(known.timestamp);
        for publish in &batch.publishes {
            let key = publish.key.as_ref();
            let fingerprint =
                key.map_or_else(String::new, |key| format!("{:016x}", key.fingerprint));
            command.arg(publish.events.len());
            command.arg(key.map_or("", |key| &key.key)).arg(fingerprint);
            for event in &publish.events {
                command
                    .arg(&event.category)
                    .arg(&event.data)
                    .arg(&event.note);
            }
        }
        let answer = self.strings(&command)?;
        let wrong = || Trouble::Away(format!("Redis answered an append with {answer:?}"));
        match &answer[..] {
            [_] => Ok(Appended::NotOpen),
            [run, first, timestamp, known] => Ok(Appended::At(Place {
                run: parse_run(run).ok_or_else(wrong)?,
                first: first.parse().map_err(|_| wrong())?,
                timestamp: timestamp.parse().map_err(|_| wrong())?,
                known: known
                    .split_terminator(';')
                    .map(known_key)
                    .collect::<Option<_>>()
                    .ok_or_else(wrong)?,
            })),
            _ => Err(wrong()),
        }
    }

    /// Waits until replicas have what this connection has written. Returns how many have it.
    pub(super) fn wait(&mut self, replicas: usize, timeout: Duration) -> Result<usize, Trouble> {
        let mut command = cmd("WAIT");
        command.arg(replicas).arg(timeout.as_millis().max(1) as u64);
        Ok(command.query(&mut self.connection)?)
    }

    /// Reads entries after this one, at most `count`, and waits up to `block` if there are none.
    pub(super) fn read(
        &mut self,
        after: &str,
        count: usize,
        block: Option<Duration>,
    ) -> Result<Read, Trouble> {
        let mut commands = pipe();
        commands.cmd("TIME");
        let state = commands.cmd("HMGET").arg(&self.keys.state);
        state.arg("epoch").arg("sequence");
        let read = commands.cmd("XREAD").arg("COUNT").arg(count);
        if let Some(block) = block {
            read.arg("BLOCK").arg(block.as_millis() as u64);
        }
        read.arg("STREAMS").arg(&self.keys.events).arg(after);
        let (time, state, read): (Vec<String>, Vec<Option<String>>, Value) =
            commands.query(&mut self.connection)?;
        let wrong = || Trouble::Away("Redis answered a read with something else".into());
        let time: Option<Vec<u64>> = time.iter().map(|part| part.parse().ok()).collect();
        let Some([seconds, microseconds]) = time.as_deref() else {
            return Err(wrong());
        };
        let newest = match &state[..] {
            [Some(run), Some(sequence)] => parse_run(run).zip(sequence.parse().ok()),
            _ => None,
        };
        Ok(Read {
            time: seconds * 1000 + microseconds / 1000,
            newest,
            entries: read_entries(read).ok_or_else(wrong)?,
        })
    }

    /// Returns the entries after this one, or the first if it is empty, at most `count`.
    pub(super) fn range(&mut self, after: &str, count: usize) -> Result<Vec<StreamEntry>, Trouble> {
        let start = match after {
            "" => "-".to_owned(),
            after => format!("({after}"),
        };
        let mut command = cmd("XRANGE");
        command.arg(&self.keys.events).arg(start).arg("+");
        command.arg("COUNT").arg(count);
        let answer: Value = command.query(&mut self.connection)?;
        entries(answer).ok_or_else(|| Trouble::Away("Redis answered XRANGE with no list".into()))
    }

    fn strings(&mut self, command: &Cmd) -> Result<Vec<String>, Trouble> {
        let answer: Value = command.query(&mut self.connection)?;
        Ok(from_redis_value(answer).map_err(RedisError::from)?)
    }
}

/// Reads `epoch:first number:kind`.
fn epoch(text: &str) -> Option<Epoch> {
    let mut parts = text.split(':');
    Some(Epoch {
        run: parse_run(parts.next()?)?,
        first: number(parts.next()?)?,
        continues: parts.next()? == "more",
    })
}

/// Reads `number:epoch:last number`, or `number:reused`.
fn known_key(text: &str) -> Option<KnownKey> {
    let mut parts = text.split(':');
    let index = usize::try_from(number(parts.next()?)?)
        .ok()?
        .checked_sub(1)?;
    let first_publish = match (parts.next()?, parts.next()) {
        ("reused", None) => None,
        (run, last) => Some(EventId::new(parse_run(run)?, number(last?)?)),
    };
    Some(KnownKey {
        index,
        first_publish,
    })
}

fn unknown_address(address: &str) -> String {
    format!(
        "the Redis Cluster names {address:?} as the node of the stream, which is not an address"
    )
}

/// Returns the address that a node of a Redis Cluster names, with the other settings of the present one.
fn moved(present: &ConnectionAddr, address: &str) -> Option<ConnectionAddr> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    // Without a host: the same as that of the node that was asked.
    let pick = |present: &str| match host {
        "" | "?" => present.to_owned(),
        host => host.trim_matches(['[', ']']).to_owned(),
    };
    match present {
        ConnectionAddr::Tcp(present, _) => Some(ConnectionAddr::Tcp(pick(present), port)),
        ConnectionAddr::TcpTls {
            host: present,
            insecure,
            tls_params,
            ..
        } => Some(ConnectionAddr::TcpTls {
            host: pick(present),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        }),
        _ => None,
    }
}
