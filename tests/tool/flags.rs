//! The program `long-polling-server`, as an operator runs it: its flags and its messages. Its signals are in `signals`.

use std::process::Output;

use crate::process::{program, run};

/// The program refuses these flags with these words at the beginning, the help for one flag at most, and no more.
fn refuses(flags: &[&str], words: &str) {
    is_refused(run(flags), flags, words);
}

pub(crate) fn is_refused(output: Output, flags: &[&str], words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
    assert!(
        said.starts_with(words),
        "{flags:?}: {said:?} does not begin with {words:?}"
    );
    assert!(said.ends_with("\nsee --help\n"), "{said:?}");
    let helped = said.lines().filter(|line| line.starts_with("    --"));
    assert!(helped.count() <= 1, "{said:?}");
    assert!(output.stdout.is_empty());
    for field in [
        "FilePersistorInfo",
        "ServerInfo",
        "None",
        "handler_to",
        "_timeout",
        "max_",
        "_uri",
    ] {
        assert!(!said.contains(field), "{said:?} names {field}");
    }
}

#[test]
fn a_wrong_flag_is_named_and_help_is_referred_to() {
    refuses(
        &["--adress", "127.0.0.1:0"],
        "invalid option '--adress'; did you mean --address?\n    --address ADDRESS ",
    );
    refuses(&["--port", "80"], "invalid option '--port'\nsee --help");
    refuses(&["-x"], "invalid option '-x'");
    refuses(&["8080"], "unexpected argument \"8080\"");
    refuses(
        &["--keep-history=yes", "--file", "x"],
        "--keep-history: invalid value \"yes\": give true, false, 1 or 0",
    );
    refuses(
        &["--timeout"],
        "missing argument for option '--timeout'\n    --timeout DURATION              the longest poll (120s)\nsee",
    );
}

#[test]
fn flags_that_exclude_each_other_are_named() {
    for (flags, words) in [
        (
            &["--publish-token", "x", "--publish-token-file", "y"][..],
            "--publish-token and --publish-token-file set the same: give one of them",
        ),
        (
            &["--file=x", "--keep-history", "--compact-from=1M"],
            "--keep-history and --compact-from set the same",
        ),
    ] {
        refuses(flags, words);
    }
}

#[test]
fn a_value_that_can_not_be_read_names_its_flag() {
    for flag in [
        "--timeout",
        "--idle-timeout",
        "--write-timeout",
        "--restore-timeout",
        "--event-ttl",
    ] {
        for value in ["x", "", "-1", "nan", "inf"] {
            refuses(
                &[&format!("{flag}={value}")],
                &format!("{flag}: not a duration: {value:?}; give a number of seconds "),
            );
        }
    }
    for flag in ["--flush-period", "--max-wait"] {
        refuses(
            &["--file=x", &format!("{flag}=1x")],
            &format!("{flag}: not a duration: \"1x\"; "),
        );
    }
    for flag in [
        "--events-per-category",
        "--max-categories",
        "--max-connections",
        "--max-parked",
    ] {
        for value in ["x", "1.5", "-1", "99999999999999999999999"] {
            refuses(
                &[&format!("{flag}={value}")],
                &format!("{flag}: invalid value {value:?}: "),
            );
        }
    }
    for flag in [
        "--max-batch-size",
        "--max-event-bytes",
        "--max-event-size",
        "--thread-stack-size",
        "--write-buffer-size",
        "--max-queue-size",
        "--compact-from",
    ] {
        for value in ["x", "1.5", "-1", "1MB", "99999999999999999999999"] {
            refuses(
                &["--file=x", &format!("{flag}={value}")],
                &format!("{flag}: not a size: {value:?}; give a number of bytes"),
            );
        }
    }
    refuses(
        &["--socket-mode", "8"],
        "--socket-mode: invalid value \"8\": ",
    );
    for value in ["here", "10.0.0.1/8", "10.0.0.1,", "10.0.0.0/33"] {
        refuses(
            &["--trusted-proxy", value],
            "--trusted-proxy: not a network of IP addresses: ",
        );
    }
    refuses(
        &["--file", "x", "--durability", "safe"],
        "--durability: not a durability: \"safe\"; give buffered, synced",
    );
    for (flag, words) in [
        (
            "--http",
            "not an HTTP backend of this build: \"any\"; give tiny_http or native\n",
        ),
        ("--poll-without-cursor", "not "),
        (
            "--log",
            "invalid value \"any\": give off, error, warn, info, debug or trace\n",
        ),
        ("--socket-mode", "invalid value \"any\": "),
    ] {
        refuses(&[flag, "any"], &format!("{flag}: {words}"));
    }
    refuses(
        &["--timeout", "none"],
        "--timeout: not a duration: \"none\"",
    );
}

#[test]
fn a_setting_that_the_server_refuses_is_named_by_its_flag() {
    for (flags, words) in [
        (&["--address", "nowhere"][..], "--address: "),
        (&["--subscription-uri", "events"], "--subscription-uri: "),
        (&["--publish-uri", "/a?b"], "--publish-uri: "),
        (
            &["--publish-uri", "/events"],
            "--publish-uri: \"/events\" is the --subscription-uri, too",
        ),
        (&["--timeout", "0.5"], "--timeout: is under one second"),
        (&["--idle-timeout", "0"], "--idle-timeout: is zero"),
        (&["--write-timeout", "0"], "--write-timeout: is zero"),
        (
            &["--events-per-category", "0"],
            "--events-per-category: is 0",
        ),
        (&["--max-batch-size", "0"], "--max-batch-size: is 0"),
        (&["--max-event-size", "0"], "--max-event-size: is 0"),
        (&["--max-parked", "0"], "--max-parked: is 0"),
        (&["--event-ttl", "0"], "--event-ttl: is under a millisecond"),
        (&["--max-event-bytes", "5"], "--max-event-bytes: 5 bytes"),
        (&["--file", ""], "--file: "),
        (&["--cors-origin", "example.com"], "--cors-origin: "),
        (
            &["--cors-origin", "https://a.example,b"],
            "--cors-origin: \"b\" is not an origin",
        ),
        (
            &["--cors-origin", "*", "--cors-credentials"],
            "--cors-origin: credentials with the origin",
        ),
        (
            &["--cors-credentials"],
            "--cors-credentials: has no effect without --cors-origin",
        ),
        (&["--host", "http://a.example"], "--host: \"http://"),
        (
            &["--browser-client", "client.js"],
            "--browser-client: \"client.js\" does not begin with",
        ),
        (
            &["--health-uri", ""],
            "--health-uri: \"\" does not begin with",
        ),
        (
            &["--metrics-uri", "/health"],
            "--health-uri: \"/health\" is the --metrics-uri, too",
        ),
        (&["--max-categories", "0"], "--max-categories: is 0"),
        (
            &["--trusted-proxy", "0.0.0.0"],
            "--trusted-proxy: 0.0.0.0 is the address of no proxy",
        ),
        (&["--max-connections", "5"], "--max-connections: "),
        (
            &["--publish-token", "a b "],
            "--publish-token: the bearer token ",
        ),
        (&["--socket-mode", "7777"], "--socket-mode: 0o7777 is no"),
        (
            &["--http", "native", "--address", "unix:"],
            "--address: \"unix:\" has no path",
        ),
        (
            &["--http", "tiny_http", "--address", "unix:events.sock"],
            "--address: the server listens on Unix sockets with its native backend only",
        ),
        (&["--file", "x", "--flush-period", "0"], "--flush-period: "),
        (
            &["--file", "x", "--max-queue-size", "0"],
            "--max-queue-size: ",
        ),
    ] {
        refuses(flags, words);
    }
}

#[test]
fn flags_that_need_another_are_refused_without_it() {
    for flags in [
        &["--durability", "acknowledged"][..],
        &["--flush-period", "1"],
        &["--write-buffer-size", "1"],
        &["--max-queue-size", "1"],
        &["--max-wait", "1"],
        &["--keep-history"],
    ] {
        refuses(flags, &format!("{} has no effect without --file", flags[0]));
    }
    refuses(
        &["--metrics-token", "x"],
        "--metrics-token has no effect without --metrics-uri",
    );
}

#[test]
fn flags_for_redis_are_refused_where_they_have_no_effect() {
    if cfg!(feature = "redis") {
        refuses(
            &["--redis-prefix", "x:"],
            "--redis-prefix has no effect without --redis",
        );
        refuses(&["--redis", "http://host"], "--redis: ");
        refuses(
            &["--redis", "redis://127.0.0.1", "--redis-prefix", "{x}"],
            "--redis-prefix: ",
        );
        refuses(
            &[
                "--redis",
                "redis://127.0.0.1",
                "--redis-read-streams",
                "0,1",
            ],
            "--redis-read-streams: names stream 1",
        );
        refuses(
            &["--redis", "redis://127.0.0.1", "--file", "x"],
            "--file and --redis keep the events in two places",
        );
    } else {
        refuses(
            &["--redis", "redis://127.0.0.1"],
            "--redis: this program was built without Redis",
        );
        refuses(
            &["--redis-streams", "2"],
            "--redis-streams: this program was built without",
        );
    }
}

#[test]
fn help_goes_to_standard_output_and_explains_each_flag_once_under_its_topic() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag, "--adress"]);
        assert!(output.status.success() && output.stderr.is_empty());
        let help = String::from_utf8(output.stdout).unwrap();
        let mut flags: Vec<&str> = help
            .lines()
            .filter_map(|line| line.strip_prefix("    --")?.split([' ', ',']).next())
            .collect();
        let count = flags.len();
        flags.sort();
        flags.dedup();
        assert_eq!(flags.len(), count, "{help}");
        assert!(
            count >= if cfg!(feature = "redis") { 54 } else { 46 },
            "{help}"
        );
        for topic in ["Listening:", "Access:", "Events in a file:", "The program:"] {
            assert!(help.lines().any(|line| line == topic), "{topic} {help}");
        }
        assert!(
            help.lines().all(|line| line.chars().count() <= 120),
            "{help}"
        );
    }
}

#[test]
fn a_reader_that_has_seen_enough_of_the_help_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = program(&["--help"]).stdout(writer).status().unwrap();
    assert!(status.success());
}

#[test]
fn the_version_is_that_of_the_crate() {
    for flag in ["--version", "-V"] {
        let output = run(&[flag]);
        assert!(output.status.success() && output.stderr.is_empty());
        let version = String::from_utf8(output.stdout).unwrap();
        let expected = format!("long-polling-server {}", env!("CARGO_PKG_VERSION"));
        assert!(version.starts_with(&expected), "{version}");
        assert_eq!(version.lines().count(), 1);
    }
}

#[test]
fn what_can_not_be_had_is_an_error_with_status_1_that_names_the_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none").join("events.log");
    for (flags, words) in [
        (["--address", &address], "--address: can't listen on "),
        (["--file", missing.to_str().unwrap()], "--file: "),
    ] {
        let output = run(&[&["--address", "127.0.0.1:0"], &flags[..]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with(words), "{said:?}");
    }
}
