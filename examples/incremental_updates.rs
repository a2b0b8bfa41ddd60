//! The Go package's "Client with Incremental Updates": a client that saves its position in a file, and continues from this
//! position after a restart, however it ended.
//!
//! Without arguments, it runs twice with a server of its own. With arguments, it runs until it is stopped:
//!
//! ```text
//! cargo run --example incremental_updates -- http://localhost:8080 updates updates.position
//! ```

use std::path::Path;

use long_polling::{Cursor, Error, Server, ServerInfo, Subscriber};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => two_runs(),
        [url, category, file] => Ok(follow(url, category, Path::new(file), usize::MAX)?),
        _ => Err("give a URL, a category and a file for the position, or nothing".into()),
    }
}

fn two_runs() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::start(ServerInfo::new("127.0.0.1:0"))?;
    for number in 1..=4 {
        server.publish("updates", &format!("update {number}"))?;
    }
    let url = format!("http://{}", server.local_addr());
    // A real program names a file that stays.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("updates.position");
    for run in 1..=2 {
        println!("run {run} of the client");
        follow(&url, "updates", &file, 2)?;
    }
    Ok(())
}

/// Prints at most `most` updates, and saves the position after each.
pub(crate) fn follow(url: &str, category: &str, file: &Path, most: usize) -> Result<(), Error> {
    let mut events = Subscriber::new(format!("{url}/events"), category)
        // The first run has no file yet.
        .start_at(Cursor::Oldest)
        .save_position(file);
    for event in events.by_ref().take(most) {
        match event {
            // The position after this event is saved when the loop asks for the next one, after the work: a kill in between
            // repeats this event, and loses none.
            Ok(event) => println!("Update: {}", event.text()),
            Err(gap) if gap.is_gap() => eprintln!("{gap}"),
            Err(error) => return Err(error),
        }
    }
    // The loop has processed the last event, and asks for no other.
    events.commit()
}
