//! The environment variables of the program `long-polling-server`, and its log.

use std::process::Output;

use crate::flags::is_refused;
use crate::process::{PUBLISH, Tool, program};
use crate::support::{poll, until};

fn run_with(variables: &[(&str, &str)], flags: &[&str]) -> Output {
    let mut command = program(flags);
    command.envs(variables.iter().copied()).output().unwrap()
}

fn start_with(variables: &[(&str, &str)], flags: &[&str]) -> Tool {
    let mut command = program(&[]);
    command.envs(variables.iter().copied());
    Tool::start_by(command, flags)
}

/// Status of a publish.
fn publish_status(tool: &Tool, path: &str) -> u16 {
    let mut connection = tool.connect();
    let length = PUBLISH.len();
    connection.send(format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{PUBLISH}"
    ));
    connection.receive().status
}

#[test]
fn a_variable_sets_what_its_flag_sets_and_the_flag_wins() {
    let variables = [
        ("LONG_POLLING_PUBLISH_URI", "/from-environment"),
        ("LONG_POLLING_POLL_WITHOUT_CURSOR", "oldest"),
        ("LONG_POLLING_MAX_PARKED", ""),
    ];
    let tool = start_with(&variables, &[]);
    assert_eq!(publish_status(&tool, "/publish"), 404);
    assert_eq!(publish_status(&tool, "/from-environment"), 200);
    let mut connection = tool.connect();
    connection.ask("GET", &poll("c", 0, ""));
    assert_eq!(connection.receive().data(), ["kept"]);

    // What a variable sets, a flag can unset.
    let expiring = [
        ("LONG_POLLING_EVENT_TTL", "0"),
        ("LONG_POLLING_MAX_CONNECTIONS", "5"),
    ];
    let unset = ["--event-ttl", "none", "--max-connections=none"];
    let tool = start_with(&expiring, &unset);
    assert_eq!(publish_status(&tool, "/publish"), 200);

    let tool = start_with(&variables, &["--publish-uri", "/from-flag"]);
    assert_eq!(publish_status(&tool, "/from-environment"), 404);
    assert_eq!(publish_status(&tool, "/from-flag"), 200);
}

#[test]
fn a_wrong_value_in_the_environment_names_its_variable() {
    for (name, value, words) in [
        ("TIMEOUT", "soon", "TIMEOUT: not a duration: \"soon\""),
        ("TIMEOUT", "0.5", "TIMEOUT: is under one second"),
        ("MAX_PARKED", "many", "MAX_PARKED: invalid value \"many\""),
        (
            "GOLONGPOLL_TIMEOUTS",
            "yes",
            "GOLONGPOLL_TIMEOUTS: invalid value \"yes\"",
        ),
        ("MAX_WAIT", "5", "MAX_WAIT has no effect without --file"),
        // Such as that of a variable that a script has not set.
        (
            "PUBLISH_TOKEN",
            "",
            "PUBLISH_TOKEN: the token is empty and protects nothing",
        ),
        ("METRICS_TOKEN_FILE", "", "METRICS_TOKEN_FILE: "),
        (
            "PUBLISH_TOKEN",
            "a\n",
            "PUBLISH_TOKEN: the bearer token begins or ends with",
        ),
    ] {
        let variable = format!("LONG_POLLING_{name}");
        let output = run_with(&[(&variable, value)], &[]);
        is_refused(output, &[&variable], &format!("LONG_POLLING_{words}"));
    }
    let both = [
        ("LONG_POLLING_PUBLISH_TOKEN", "x"),
        ("LONG_POLLING_PUBLISH_TOKEN_FILE", "y"),
    ];
    is_refused(
        run_with(&both, &[]),
        &[],
        "LONG_POLLING_PUBLISH_TOKEN and LONG_POLLING_PUBLISH_TOKEN_FILE set the same",
    );
}

#[test]
fn a_variable_that_belongs_to_no_flag_is_warned_about() {
    let tool = start_with(
        &[
            ("LONG_POLLING_PUBLSH_TOKEN", "secret"),
            ("LONG_POLLING_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("LONG_POLLING_SERVICE_HOST", "10.0.0.1"),
        ],
        &[],
    );
    // Logged after the warnings.
    until("logged", || tool.logged("events are kept in memory only"));
    let log = tool.log.lock().unwrap();
    let warnings: Vec<&String> = log.iter().filter(|line| line.contains(" WARN ")).collect();
    let [warning] = warnings[..] else {
        panic!("{log:#?}");
    };
    assert!(
        warning.contains("LONG_POLLING_PUBLSH_TOKEN is ignored"),
        "{warning}"
    );
    assert!(!warning.contains("secret"), "{warning}");
}

#[cfg(unix)]
#[test]
fn the_log_has_time_stamps_and_the_level_of_its_flag() {
    let listens = "the server listens on";
    for (variables, flags, is_logged) in [
        (&[][..], &[][..], true),
        (&[], &["--log", "warn"], false),
        (&[("LONG_POLLING_LOG", "warn")], &[], false),
        (&[("RUST_LOG", "warn")], &[], false),
        (
            &[("RUST_LOG", "error,long_polling::server=info")],
            &[],
            true,
        ),
        (&[("RUST_LOG", "warn")], &["--log", "info"], true),
        (&[("LONG_POLLING_LOG", "off")], &["--log", "debug"], true),
    ] {
        let mut tool = start_with(variables, flags);
        tool.signal("TERM");
        tool.ended_cleanly();
        assert_eq!(tool.logged(listens), is_logged, "{variables:?} {flags:?}");
        let log = tool.log.lock().unwrap();
        for line in log.iter() {
            let (stamp, rest) = line.split_at(24);
            let form = "0000-00-00T00:00:00.000Z";
            let as_form = stamp.replace(|letter: char| letter.is_ascii_digit(), "0");
            assert_eq!(as_form, form, "{line}");
            assert!(
                rest.starts_with(" INFO  ") || rest.starts_with(" DEBUG "),
                "{line}"
            );
        }
    }
}

/// As systemd starts it: standard error is a socket or pipe, which `JOURNAL_STREAM` names.
#[cfg(target_os = "linux")]
#[test]
fn the_journal_gets_priorities_instead_of_time_stamps() {
    use crate::process::shell;
    let names = r#"JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$0" "$@""#;
    let tool = Tool::start_by(shell(names), &[]);
    until("logged", || tool.logged("the server listens on"));
    let log = tool.log.lock().unwrap();
    assert!(
        log.iter().all(|line| line.starts_with("<6>long_polling")),
        "{log:#?}"
    );
    drop(log);
    // Standard error leads elsewhere.
    let other = start_with(&[("JOURNAL_STREAM", "1:1")], &[]);
    until("logged", || other.logged(" INFO  long_polling"));
}
