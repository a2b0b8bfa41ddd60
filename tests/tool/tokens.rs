//! The bearer tokens of the program `long-polling-server`: in flags, variables and files.

use std::fs;
use std::path::Path;

use crate::flags::is_refused;
use crate::process::{PUBLISH, Tool, program, run};
use crate::support::{poll, until};

/// Statuses of a publish and of a poll with this token.
fn statuses(tool: &Tool, token: &str) -> (u16, u16) {
    let mut connection = tool.connect();
    let length = PUBLISH.len();
    let target = poll("other", 0, "");
    connection.send(format!(
        "POST /publish HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{PUBLISH}"
    ));
    let published = connection.receive().status;
    let mut connection = tool.connect();
    connection.send(format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    (published, connection.receive().status)
}

#[test]
fn a_token_is_asked_for_wherever_it_is_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let publisher = file("publisher", "secret-1\n");
    let subscriber = file("subscriber", "secret-2\r\n");
    let mut by_variables = program(&[]);
    by_variables
        .env("LONG_POLLING_PUBLISH_TOKEN", "secret-1")
        .env("LONG_POLLING_SUBSCRIBE_TOKEN_FILE", &subscriber);
    let flags = ["--publish-token=secret-1", "--subscribe-token=secret-2"];
    let files = ["--publish-token-file", &publisher];
    let more = ["--subscribe-token-file", &subscriber];
    for tool in [
        Tool::start(&flags),
        Tool::start(&[files, more].concat()),
        Tool::start_by(by_variables, &[]),
    ] {
        assert_eq!(statuses(&tool, "secret-1"), (200, 401));
        assert_eq!(statuses(&tool, "secret-2"), (401, 204));
        assert_eq!(statuses(&tool, ""), (401, 401));
        until("logged", || tool.logged("events are kept in memory only"));
        assert!(!tool.logged("secret-"), "{:#?}", tool.log);
    }
}

#[test]
fn health_needs_no_token_and_metrics_the_one_of_theirs() {
    let status = |tool: &Tool, target: &str, token: &str| {
        let mut connection = tool.connect();
        connection.send(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
        ));
        connection.receive().status
    };
    let tokens = [
        "--publish-token=p",
        "--subscribe-token=s",
        "--metrics-token=m",
    ];
    let tool = Tool::start(&[&tokens[..], &["--metrics-uri", "/metrics"]].concat());
    assert_eq!(status(&tool, "/health", ""), 200);
    assert_eq!(status(&tool, "/metrics", "m"), 200);
    assert_eq!(status(&tool, "/metrics", "s"), 401);
    let tool = Tool::start(&["--health-uri", "none"]);
    assert_eq!(status(&tool, "/health", ""), 404);
    assert_eq!(status(&tool, "/metrics", ""), 404);
    let tool = Tool::start(&["--health-uri", "/live"]);
    assert_eq!(status(&tool, "/live", ""), 200);
}

#[test]
fn an_empty_token_is_refused() {
    for flag in ["--publish-token", "--subscribe-token", "--metrics-token"] {
        is_refused(
            run(&[flag, "", "--metrics-uri", "/metrics"]),
            &[flag],
            &format!("{flag}: the token is empty and protects nothing"),
        );
    }
}

#[test]
fn a_file_without_a_token_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let flag = "--subscribe-token-file";
    let refuses = |path: &Path, words: &str| {
        let path = path.to_str().unwrap();
        is_refused(
            run(&[flag, path]),
            &[flag],
            &format!("{flag}: {}", words.replace("PATH", &format!("{path:?}"))),
        );
    };
    refuses(&path, "can't read PATH: ");
    refuses(folder.path(), "can't read PATH: ");
    for (text, words) in [
        (&b""[..], "PATH is empty and protects nothing"),
        (b"\n", "PATH is empty and protects nothing"),
        (b"\xff\xfe", "PATH is not text in UTF-8"),
        (&[b'x'; 5000], "PATH has more than 4096 bytes"),
        // Only one line end is removed.
        (b"token\n\n", "the bearer token begins or ends with"),
        (b"one\ntwo\n", "the bearer token has"),
    ] {
        fs::write(&path, text).unwrap();
        refuses(&path, words);
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_everybody_may_read_is_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "secret-words").unwrap();
    for (mode, is_warned) in [(0o600, false), (0o640, false), (0o644, true), (0o444, true)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let tool = Tool::start(&["--publish-token-file", path.to_str().unwrap()]);
        until("logged", || tool.logged("events are kept in memory only"));
        let words = format!("of mode {mode:o}; chmod 640 or 600 keeps the token secret");
        assert_eq!(tool.logged(&words), is_warned, "{mode:o}");
        assert!(!tool.logged("secret-words"));
    }
}
