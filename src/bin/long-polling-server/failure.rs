//! [`Failure`]: why the program ends, in the words of its flags.

use long_polling::{Error, ErrorKind};

use crate::flags::{self, Flag};
use crate::value::Given;

/// Why the program ends.
pub(crate) enum Failure {
    /// A flag, or its value, can't be used. Exit status 2.
    Usage {
        message: String,
        /// The flag that the message is about, whose help is printed, too.
        flag: Option<&'static Flag>,
    },
    /// The server can't start, or did not stop cleanly. Exit status 1.
    Run(String),
}

impl Failure {
    pub(crate) fn of_flag(flag: &'static Flag, message: String) -> Self {
        Failure::Usage {
            message,
            flag: Some(flag),
        }
    }

    /// The failure of a start with these values.
    pub(crate) fn of_start(error: &Error, given: &[Given]) -> Self {
        let (message, flag) = in_flags(error, given);
        match error.kind() {
            ErrorKind::InvalidSetting => Failure::Usage { message, flag },
            _ => Failure::Run(message),
        }
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Failure::Usage {
            message: error.to_string(),
            flag: None,
        }
    }
}

/// The message of an error with the names of flags, or of variables that are given, instead of the names of settings; and
/// the flag that it begins with.
fn in_flags(error: &Error, given: &[Given]) -> (String, Option<&'static Flag>) {
    let message = error.report().to_string();
    if !matches!(
        error.kind(),
        ErrorKind::InvalidSetting | ErrorKind::Listen | ErrorKind::File
    ) {
        return (message, None);
    }
    let Some((setting, problem)) = message.split_once(": ") else {
        return (message, None);
    };
    let setting = setting.rsplit("::").next().unwrap_or(setting);
    let Some((name, flag)) = name(setting, given) else {
        return (message, None);
    };
    // The text may name other settings. A file or an address in it is not a setting.
    let mut problem = problem.to_owned();
    if error.kind() == ErrorKind::InvalidSetting {
        for flag in flags::all().filter(|flag| flag.setting.contains('_')) {
            problem = problem.replace(flag.setting, flag.name);
        }
    }
    (format!("{name}: {problem}"), Some(flag))
}

/// The name that a setting has in the given values, or else its flag.
fn name(setting: &str, given: &[Given]) -> Option<(String, &'static Flag)> {
    if let Some(given) = given.iter().find(|given| given.flag.setting == setting) {
        return Some((given.name(), given.flag));
    }
    let flag = flags::all().find(|flag| flag.setting == setting)?;
    Some((flag.name.to_owned(), flag))
}
