//! A broker that keeps its events in SQLite, by a [`RecordLog`](long_polling::store::RecordLog) of the program's own: two
//! runs, of which the second has the events of the first.

#[cfg(target_os = "linux")]
mod sqlite_log;

/// rusqlite is a dev-dependency on Linux only; see Cargo.toml.
#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this example is built on Linux only");
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::time::Duration;

    use long_polling::store::GroupCommit;
    use long_polling::{Cursor, Server, ServerInfo};
    use sqlite_log::SqliteLog;

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("events.sqlite");
    let start = || {
        let store = GroupCommit::new(SqliteLog::new(&path));
        Server::start(ServerInfo::new("127.0.0.1:0").store(store))
    };

    let server = start()?;
    for number in 1..=3 {
        server.publish("orders", &number)?;
    }
    server.stop(Duration::from_secs(10))?;
    println!("three events are in {}", path.display());

    let server = start()?;
    let batch = server.subscribe("orders", Cursor::Oldest, Duration::ZERO)?;
    let orders: Vec<&str> = batch.events().iter().map(|event| event.data()).collect();
    println!("the next start has: {}", orders.join(", "));
    assert_eq!(orders, ["1", "2", "3"]);
    server.stop(Duration::from_secs(10))?;
    Ok(())
}
