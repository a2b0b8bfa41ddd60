//! [`SqliteLog`]: a log of records in a table of SQLite.

use std::path::{Path, PathBuf};

use long_polling::Error;
use long_polling::store::{Record, RecordLog};
use rusqlite::Connection;

const OPEN: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS record (number INTEGER PRIMARY KEY, line TEXT NOT NULL);";
const MIN_BYTES: u64 = 4 << 20;

/// A log of records in a table of SQLite, which one process at a time can open.
pub struct SqliteLog {
    path: PathBuf,
    connection: Option<Connection>,
    /// The bytes of all lines.
    bytes: u64,
}

impl SqliteLog {
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        SqliteLog {
            path,
            connection: None,
            bytes: 0,
        }
    }

    fn read(&mut self, each: &mut dyn FnMut(Record)) -> rusqlite::Result<()> {
        let connection = self.connection.insert(Connection::open(&self.path)?);
        connection.execute_batch(OPEN)?;
        let mut select = connection.prepare("SELECT line FROM record ORDER BY number")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let line: String = row.get(0)?;
            self.bytes += line.len() as u64;
            each(line.parse().unwrap_or(Record::Damaged));
        }
        Ok(())
    }

    /// Adds records in one transaction, after `first`.
    fn insert(&mut self, first: &str, records: &[Record]) -> rusqlite::Result<u64> {
        let connection = self.connection.as_mut().expect("`open` comes first");
        let transaction = connection.transaction()?;
        transaction.execute_batch(first)?;
        let mut insert = transaction.prepare("INSERT INTO record (line) VALUES (?1)")?;
        let mut bytes = 0;
        for record in records {
            let line = record.to_line();
            bytes += line.len() as u64;
            insert.execute([line])?;
        }
        drop(insert);
        transaction.commit()?;
        Ok(bytes)
    }
}

impl RecordLog for SqliteLog {
    fn open(&mut self, each: &mut dyn FnMut(Record)) -> Result<(), Error> {
        self.read(each).map_err(Error::store)
    }

    fn write(&mut self, records: &[Record]) -> Result<(), Error> {
        self.bytes += self.insert("", records).map_err(Error::store)?;
        Ok(())
    }

    fn is_due_for_compaction(&self, live_bytes: u64) -> bool {
        self.bytes > MIN_BYTES.max(2 * live_bytes)
    }

    fn replace(&mut self, records: &[Record]) -> Result<(), Error> {
        self.bytes = self
            .insert("DELETE FROM record", records)
            .map_err(Error::store)?;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        match self.connection.take().map(Connection::close) {
            Some(Err((_, error))) => Err(Error::store(error)),
            _ => Ok(()),
        }
    }
}
