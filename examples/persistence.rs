//! The Go package's "Server with File Persistence": what was published before a stop is there again after the next
//! start.

use std::time::Duration;

use long_polling::{Cursor, FilePersistorInfo, Server, ServerInfo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // In earnest, a place that stays: /var/lib/longpoll/events.db.
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("events.db");
    let file = FilePersistorInfo::new(&path)
        // Written when this many bytes wait, or this long after the first of them: this much a power cut may cost.
        .write_buffer_size(1000)
        .write_flush_period(Duration::from_secs(5));
    let info = ServerInfo::new("127.0.0.1:0");

    let server = Server::start(info.clone().file(file.clone()))?;
    let last = server.publish(
        "orders",
        &serde_json::json!({"number": 1, "item": "teapot"}),
    )?;
    server.publish("orders", &serde_json::json!({"number": 2, "item": "cup"}))?;
    // Whatever waits is written now.
    server.stop(Duration::from_secs(10))?;
    println!("the file:\n{}", std::fs::read_to_string(&path)?);

    let server = Server::start(info.file(file))?;
    println!("read from it: {} events", server.statistics().store.loaded);
    // A position from before goes on working.
    let batch = server.subscribe("orders", Cursor::LastId(last), Duration::from_secs(1))?;
    for event in &*batch {
        println!("after the first: {}", event.data());
    }
    server.stop(Duration::from_secs(10))?;
    Ok(())
}
