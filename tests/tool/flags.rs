//! The example `server`, as an operator runs it: its flags and its messages. Its signals are in `signals`.

use crate::process::run;

/// The program refuses these flags with these words at the beginning of its only line.
fn refuses(flags: &[&str], words: &str) {
    let output = run(flags);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
    assert!(
        said.starts_with(words),
        "{flags:?}: {said:?} does not begin with {words:?}"
    );
    assert!(said.ends_with("; see --help\n"), "{said:?}");
    assert_eq!(said.lines().count(), 1, "{said:?}");
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
    refuses(&["--adress", "127.0.0.1:0"], "invalid option '--adress'");
    refuses(&["-x"], "invalid option '-x'");
    refuses(&["8080"], "unexpected argument \"8080\"");
    refuses(
        &["--keep-history=yes", "--file", "x"],
        "unexpected argument for option '--keep-history'",
    );
    refuses(&["--timeout"], "missing argument for option '--timeout'");
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
                &format!("{flag}: invalid value "),
            );
        }
    }
    for flag in ["--flush-period", "--max-wait"] {
        refuses(
            &["--file=x", &format!("{flag}=1s")],
            &format!("{flag}: invalid value \"1s\": "),
        );
    }
    for flag in [
        "--events-per-category",
        "--max-batch-size",
        "--max-event-bytes",
        "--max-event-size",
        "--max-parked",
    ] {
        for value in ["x", "1.5", "-1", "99999999999999999999999"] {
            refuses(
                &[&format!("{flag}={value}")],
                &format!("{flag}: invalid value {value:?}: "),
            );
        }
    }
    for flag in ["--write-buffer-size", "--max-queue-size"] {
        refuses(
            &["--file=x", flag, "1k"],
            &format!("{flag}: invalid value \"1k\": "),
        );
    }
    refuses(
        &["--socket-mode", "8"],
        "--socket-mode: invalid value \"8\": ",
    );
    refuses(
        &["--trusted-proxy", "here"],
        "--trusted-proxy: invalid value \"here\": ",
    );
    refuses(
        &["--file", "x", "--durability", "safe"],
        "--durability: invalid value \"safe\": give buffered, synced or acknowledged",
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
        (&["--socket-mode", "7777"], "--socket-mode: 0o7777 is no"),
        (
            &["--http", "native", "--address", "unix:"],
            "--address: \"unix:\" has no path",
        ),
        (
            &["--address", "unix:events.sock"],
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
fn flags_that_only_concern_the_file_are_refused_without_one() {
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
            &["--redis", "redis://127.0.0.1", "--file", "x"],
            "--file and --redis keep the events in two places",
        );
    } else {
        refuses(
            &["--redis", "redis://127.0.0.1"],
            "--redis: this server was built without Redis",
        );
    }
}

#[test]
fn an_empty_token_is_refused() {
    for flag in ["--publish-token", "--subscribe-token"] {
        refuses(
            &[flag, ""],
            &format!("{flag}: invalid value \"\": it is empty"),
        );
    }
}

#[test]
fn help_goes_to_standard_output_and_names_every_flag_once() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag]);
        assert!(output.status.success() && output.stderr.is_empty());
        let help = String::from_utf8(output.stdout).unwrap();
        let flags = help.lines().filter(|line| line.starts_with("    --"));
        assert_eq!(flags.count(), 33, "{help}");
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
