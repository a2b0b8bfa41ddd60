//! The values that the command line and the environment give: [`parse`].

use std::ffi::OsString;

use lexopt::prelude::*;

use crate::failure::Failure;
use crate::flags::{self, Flag, VARIABLE_PREFIX};
use crate::value::{Given, Source};

/// What the program is to do.
pub(crate) enum Command {
    /// Run with these values, and log these warnings.
    Run(Vec<Given>, Vec<String>),
    Help,
    Version,
}

/// Parses the command line, and those variables of the environment whose flag the command line does not give.
///
/// # Errors
///
/// A flag that does not exist, has no value, or excludes another.
pub(crate) fn parse(
    arguments: lexopt::Parser,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Command, Failure> {
    let mut given = match command_line(arguments)? {
        Command::Run(given, _) => given,
        other => return Ok(other),
    };
    check_exclusion(&given)?;
    let (from_environment, warnings) = variables(environment)?;
    let is_free = |other: &Given| {
        let mut flags = given.iter().map(|given| given.flag);
        !flags.any(|flag| flag.is_of_setting_of(other.flag))
    };
    let from_environment: Vec<Given> = from_environment.into_iter().filter(is_free).collect();
    check_exclusion(&from_environment)?;
    given.extend(from_environment);
    Ok(Command::Run(given, warnings))
}

fn command_line(mut arguments: lexopt::Parser) -> Result<Command, Failure> {
    let mut given: Vec<Given> = Vec::new();
    while let Some(argument) = arguments.next()? {
        let name = match argument {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("version") | Short('V') => return Ok(Command::Version),
            Long(name) => format!("--{name}"),
            other => return Err(other.unexpected().into()),
        };
        let flag = flags::all().find(|flag| flag.name == name);
        let flag = flag.ok_or_else(|| unknown(&name))?;
        let value = if flag.is_switch() {
            arguments.optional_value().unwrap_or("true".into())
        } else {
            let value = arguments.value();
            value.map_err(|error| Failure::of_flag(flag, error.to_string()))?
        };
        given.push(Given {
            flag,
            source: Source::CommandLine,
            text: value,
        });
    }
    Ok(Command::Run(given, Vec::new()))
}

/// The values of the environment, and warnings about variables that no flag belongs to. An empty variable counts as absent,
/// unless it is to be a token: then the server would be open to all without a word.
fn variables(
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(Vec<Given>, Vec<String>), Failure> {
    let mut given = Vec::new();
    let mut warnings = Vec::new();
    let mut environment: Vec<(OsString, OsString)> = environment.collect();
    environment.sort();
    for (name, text) in environment {
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else {
            continue;
        };
        if let Some(flag) = flags::all().find(|flag| flag.variable() == name) {
            if !text.is_empty() || flag.is_of_token() {
                given.push(Given {
                    flag,
                    source: Source::Environment,
                    text,
                });
            }
        } else if is_redis_missing(&rest.to_ascii_lowercase()) {
            return Err(without_redis(name));
        } else if !["SERVICE_", "PORT"].iter().any(|set| rest.starts_with(set)) {
            // Kubernetes sets those for a service that is named long-polling.
            warnings.push(format!(
                "the environment variable {name} is ignored: no flag has this name; see --help"
            ));
        }
    }
    Ok((given, warnings))
}

/// Two flags of one setting, of the same source.
fn check_exclusion(given: &[Given]) -> Result<(), Failure> {
    for (at, one) in given.iter().enumerate() {
        let excluded = |other: &&Given| {
            one.flag.name != other.flag.name && one.flag.is_of_setting_of(other.flag)
        };
        let other = given[..at].iter().find(excluded);
        if let Some(other) = other {
            let message = format!(
                "{} and {} set the same: give one of them",
                other.name(),
                one.name()
            );
            return Err(Failure::of_flag(one.flag, message));
        }
    }
    Ok(())
}

fn unknown(name: &str) -> Failure {
    if is_redis_missing(name.trim_start_matches("--")) {
        return without_redis(name);
    }
    let message = format!("invalid option '{name}'");
    match similar(name) {
        Some(flag) => Failure::of_flag(flag, format!("{message}; did you mean {}?", flag.name)),
        None => Failure::Usage {
            message,
            flag: None,
        },
    }
}

fn is_redis_missing(name: &str) -> bool {
    cfg!(not(feature = "redis")) && name.starts_with("redis")
}

fn without_redis(name: &str) -> Failure {
    Failure::Usage {
        message: format!(
            "{name}: this program was built without Redis; build it with --features cli,redis"
        ),
        flag: None,
    }
}

/// The flag that differs least from an unknown one, where it differs in two letters and a third of all at most.
fn similar(name: &str) -> Option<&'static Flag> {
    let (difference, flag) = flags::all()
        .map(|flag| (edit_distance(name, flag.name), flag))
        .min_by_key(|(difference, _)| *difference)?;
    let letters = name.trim_start_matches('-').len();
    (difference <= 2 && 3 * difference <= letters).then_some(flag)
}

/// How many letters have to be inserted, removed or replaced to make one text of the other (Levenshtein).
fn edit_distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Vec<(String, String)> {
        let environment = environment
            .iter()
            .map(|(name, text)| (name.into(), text.into()));
        let command = parse(lexopt::Parser::from_args(arguments), environment);
        let Ok(Command::Run(given, _)) = command else {
            panic!("{arguments:?} are no command line");
        };
        let text = |given: Given| (given.name(), given.text.into_string().unwrap());
        given.into_iter().map(text).collect()
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_over_those_of_the_same_setting() {
        let environment = [
            ("LONG_POLLING_TIMEOUT", "5s"),
            ("LONG_POLLING_PUBLISH_TOKEN_FILE", "token"),
            ("LONG_POLLING_KEEP_HISTORY", "true"),
            ("LONG_POLLING_MAX_PARKED", ""),
            ("TIMEOUT", "7s"),
        ];
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(
            run(
                &[
                    "--timeout",
                    "6s",
                    "--publish-token=x",
                    "--keep-history=false"
                ],
                &environment
            ),
            [
                pair("--timeout", "6s"),
                pair("--publish-token", "x"),
                pair("--keep-history", "false")
            ]
        );
        assert_eq!(
            run(&["--keep-history"], &environment),
            [
                pair("--keep-history", "true"),
                pair("LONG_POLLING_PUBLISH_TOKEN_FILE", "token"),
                pair("LONG_POLLING_TIMEOUT", "5s")
            ]
        );
    }

    #[test]
    fn a_flag_that_was_misspelt_has_a_similar_one() {
        for (name, meant) in [
            ("--adress", Some("--address")),
            ("--adr", None),
            ("--time-out", Some("--timeout")),
            ("--max-events-size", Some("--max-event-size")),
            ("--port", None),
            ("--hosts", Some("--host")),
        ] {
            assert_eq!(similar(name).map(|flag| flag.name), meant, "{name}");
        }
    }
}
