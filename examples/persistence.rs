//! The Go package's "Server with File Persistence": events published before a stop are there after the next start.

use std::time::Duration;

use long_polling::{Cursor, FilePersistorInfo, Server, ServerInfo};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A real program names a file that stays, such as /var/lib/long-polling/events.log.
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("events.log");
    let info = ServerInfo::new("127.0.0.1:0").file(
        FilePersistorInfo::new(&path)
            // The server writes once 1000 bytes wait, or 5 seconds after the first of them: a kill loses at most these.
            .write_buffer_size(1000)
            .write_flush_period(Duration::from_secs(5)),
    );

    let server = Server::start(info.clone())?;
    let first = server.publish("orders", &json!({"number": 1, "item": "teapot"}))?;
    server.publish("orders", &json!({"number": 2, "item": "cup"}))?;
    // Writes the events that wait.
    server.stop(Duration::from_secs(10))?;
    println!("the file:\n{}", std::fs::read_to_string(&path)?);

    let server = Server::start(info)?;
    println!("events read: {}", server.statistics().store.loaded);
    // A position from before the restart is still valid.
    let batch = server.subscribe("orders", Cursor::LastId(first), Duration::from_secs(1))?;
    for event in &*batch {
        println!("after the first: {}", event.data());
    }
    server.stop(Duration::from_secs(10))?;
    Ok(())
}
