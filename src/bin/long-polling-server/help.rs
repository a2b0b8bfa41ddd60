//! The text of `--help`.

use crate::flags::{Flag, TOPICS};

/// Where the explanations begin, and where lines end.
const COLUMN: usize = 36;
const WIDTH: usize = 112;

const INTRODUCTION: &str = "\
A long-polling server: long-polling-server [FLAG VALUE]...

Each flag is an environment variable, too: LONG_POLLING_PUBLISH_TOKEN for --publish-token. A flag wins. A switch
without VALUE takes true or false there, or after \"=\". DURATION is 10s, 500ms, 5m, 1h30m or seconds; SIZE is
64K, 64M, 1G or bytes; a setting that can be absent takes none. Defaults are in parentheses.
";

const END: &str = "
    --help, -h                      this text
    --version, -V                   the version of this program

SIGTERM, SIGINT and SIGHUP stop the server cleanly. The exit status is 0 after a clean stop, 1 after an error, and
2 for a flag that can't be used.
";

/// The help for every flag.
pub(crate) fn text() -> String {
    let mut text = INTRODUCTION.to_owned();
    for topic in &TOPICS {
        text += &format!("\n{}:\n", topic.title);
        for flag in topic.flags {
            text += &lines(flag);
        }
    }
    text + END
}

/// The help for one flag: the flag, and beside it what it does.
pub(crate) fn lines(flag: &Flag) -> String {
    let mut text = String::new();
    let mut line = format!("    {} {}", flag.name, flag.value);
    line.truncate(line.trim_end().len());
    if line.len() + 1 > COLUMN {
        text += &line;
        text.push('\n');
        line.clear();
    }
    line = format!("{line:COLUMN$}");
    let mut is_first = true;
    for word in flag.help.split_whitespace() {
        if !is_first && line.len() + 1 + word.len() > WIDTH {
            text += &line;
            text.push('\n');
            line = " ".repeat(COLUMN);
            is_first = true;
        }
        if !is_first {
            line.push(' ');
        }
        line += word;
        is_first = false;
    }
    text + &line + "\n"
}

/// The line of `--version`.
pub(crate) fn version() -> String {
    let redis = if cfg!(feature = "redis-tls") {
        " with Redis and TLS to it"
    } else if cfg!(feature = "redis") {
        " with Redis"
    } else {
        ""
    };
    format!("long-polling-server {}{redis}\n", env!("CARGO_PKG_VERSION"))
}
