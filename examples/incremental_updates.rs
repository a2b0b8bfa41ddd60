//! The Go package's "Client with Incremental Updates": a client that keeps its position in a file, so that it goes on
//! where it was when it is started again.

mod common;

use std::fs;
use std::path::Path;

use long_polling::{Cursor, ServerInfo, Subscriber};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (url, server) = common::server(ServerInfo::default())?;
    if let Some(server) = &server {
        for number in 1..=4 {
            server.publish("updates", &format!("update {number}"))?;
        }
    }

    // In earnest, a place that stays.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("position");
    for run in 1..=2 {
        println!("run {run} of the client");
        follow(&url, &file)?;
    }
    Ok(())
}

/// Shows two updates, and keeps the position after each.
fn follow(url: &str, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let start = match fs::read_to_string(file) {
        Ok(saved) => Cursor::LastId(saved.parse()?),
        // The first run of all.
        Err(_) => Cursor::Oldest,
    };
    let mut events = Subscriber::new(format!("{url}/events"), "updates").from(start);
    for _ in 0..2 {
        match events.next() {
            Some(Ok(event)) => {
                println!("Update: {}", event.text());
                // Kept after the work is done: a crash in between repeats an event, and loses none.
                fs::write(file, event.id().to_string())?;
            }
            Some(Err(gap)) if gap.is_gap() => eprintln!("{gap}"),
            Some(Err(error)) => return Err(error.into()),
            None => break,
        }
    }
    Ok(())
}
