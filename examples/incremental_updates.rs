//! The Go package's "Client with Incremental Updates": a client that saves its position in a file, and continues from this
//! position after a restart, however it ended.
//!
//! Without arguments, it runs twice with a server of its own. With arguments, it runs until it is stopped:
//!
//! ```text
//! cargo run --example incremental_updates -- http://localhost:8080 updates updates.position
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use long_polling::{Cursor, EventId, Server, ServerInfo, Subscriber};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => two_runs(),
        [url, category, file] => follow(url, category, Path::new(file), usize::MAX),
        _ => Err("give a URL, a category and a file for the position, or nothing".into()),
    }
}

fn two_runs() -> Result<(), Box<dyn Error>> {
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

/// Prints at most `most` updates, and commits the position after each.
pub(crate) fn follow(
    url: &str,
    category: &str,
    file: &Path,
    most: usize,
) -> Result<(), Box<dyn Error>> {
    let start = committed(file)?.map_or(Cursor::Oldest, Cursor::LastId);
    let events = Subscriber::new(format!("{url}/events"), category).start_at(start);
    for event in events.take(most) {
        match event {
            Ok(event) => {
                println!("Update: {}", event.text());
                // After the work: a kill in between repeats this event, and loses none.
                commit(event.id(), file)?;
            }
            Err(gap) if gap.is_gap() => eprintln!("{gap}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Returns the position in the file, or `None` before the first run.
pub(crate) fn committed(file: &Path) -> Result<Option<EventId>, Box<dyn Error>> {
    match fs::read_to_string(file) {
        Ok(saved) => Ok(Some(saved.parse()?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the position in the file.
///
/// `fs::write` would empty the file first, and a kill at that moment would leave it empty. So this function writes the new
/// position to a file beside it and renames that file: at any moment, the file holds one whole position. `sync_all` makes
/// this true after a power failure too.
fn commit(position: EventId, file: &Path) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let mut new = File::create(&beside)?;
    write!(new, "{position}")?;
    new.sync_all()?;
    fs::rename(beside, file)
}
