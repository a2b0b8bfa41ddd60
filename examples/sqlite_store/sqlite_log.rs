//! [`SqliteLog`]: a log of records in a table of SQLite. src/guide/durability.md shows it.

use std::path::PathBuf;

use long_polling::Error;
use long_polling::store::{Record, RecordLog};
use rusqlite::Connection;

const OPEN: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS record (number INTEGER PRIMARY KEY, line TEXT);";

/// A log of records in a table of SQLite. One process at a time can open it.
pub(crate) struct SqliteLog {
    path: PathBuf,
    connection: Option<Connection>,
    /// The bytes of all lines.
    bytes: u64,
}

impl SqliteLog {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        SqliteLog {
            path: path.into(),
            connection: None,
            bytes: 0,
        }
    }

    /// Adds records after a statement, in one transaction. Returns their bytes.
    fn insert(&mut self, first: &str, records: &[Record]) -> Result<u64, Error> {
        let connection = self.connection.as_mut();
        let connection = connection.ok_or_else(|| Error::store("not open"))?;
        insert(connection, first, records).map_err(Error::store)
    }
}

fn insert(to: &mut Connection, sql: &str, all: &[Record]) -> rusqlite::Result<u64> {
    let transaction = to.transaction()?;
    transaction.execute_batch(sql)?;
    let mut bytes = 0;
    for record in all {
        let line = record.to_line();
        bytes += line.len() as u64;
        transaction.execute("INSERT INTO record (line) VALUES (?1)", [line])?;
    }
    transaction.commit()?;
    Ok(bytes)
}

impl RecordLog for SqliteLog {
    fn open(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        let connection = Connection::open(&self.path).map_err(Error::store)?;
        connection.execute_batch(OPEN).map_err(Error::store)?;
        let sql = "SELECT line FROM record ORDER BY number";
        let mut select = connection.prepare(sql).map_err(Error::store)?;
        let lines = select.query_map([], |row| row.get::<_, String>(0));
        for line in lines.map_err(Error::store)? {
            let line = line.map_err(Error::store)?;
            self.bytes += line.len() as u64;
            // Subscribers get a gap where a line can't be read.
            each(line.parse().unwrap_or(Record::Damaged));
        }
        drop(select);
        self.connection = Some(connection);
        Ok(())
    }

    fn write(&mut self, records: &[Record]) -> Result<(), Error> {
        self.bytes += self.insert("", records)?;
        Ok(())
    }

    fn is_due_for_compaction(&self, live_bytes: u64) -> bool {
        self.bytes > 4_000_000 && self.bytes > 2 * live_bytes
    }

    fn replace(&mut self, records: &[Record]) -> Result<(), Error> {
        self.bytes = self.insert("DELETE FROM record", records)?;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        match self.connection.take().map(Connection::close) {
            Some(Err((_, error))) => Err(Error::store(error)),
            _ => Ok(()),
        }
    }
}
