//! Every setting of the library has a flag.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{Apply, all};

/// Setters that no flag belongs to, with the reason.
const WITHOUT_FLAG: [(&str, &str, &str); 13] = [
    ("BrokerOptions", "on_leave", "takes code"),
    ("BrokerOptions", "on_subscribe", "takes code"),
    ("ServerInfo", "broker", "the flags of BrokerOptions"),
    ("ServerInfo", "cors_origin", "--cors-origin by cors"),
    ("ServerInfo", "fallback", "takes code"),
    ("ServerInfo", "file", "the flags of FilePersistorInfo"),
    ("ServerInfo", "listener", "from LISTEN_FDS"),
    ("ServerInfo", "max_body_size", "of the fallback"),
    ("ServerInfo", "on_failure", "a callback: logged"),
    ("ServerInfo", "shared_broker", "takes code"),
    ("ServerInfo", "store", "takes code"),
    (
        "ServerInfo",
        "trusted_proxies",
        "--trusted-proxy by trusted_networks",
    ),
    ("FilePersistorInfo", "on_change", "a callback: logged"),
];

/// The types with settings.
const TYPES: [&str; 4] = [
    "ServerInfo",
    "BrokerOptions",
    "FilePersistorInfo",
    "RedisBackplane",
];

/// The source files of the library.
fn sources(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("bin") {
            texts.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
    texts
}

/// The public builder methods of the types with settings: type and name.
fn setters() -> BTreeSet<(&'static str, String)> {
    let mut setters = BTreeSet::new();
    for text in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let mut of = None;
        // rustfmt begins an `impl` in the first column, and ends it there.
        for line in text.lines() {
            if line.starts_with("impl ") || line == "}" {
                of = TYPES
                    .into_iter()
                    .find(|name| line == format!("impl {name} {{"));
            }
            let Some(of) = of else { continue };
            let Some(signature) = line.strip_prefix("    pub fn ") else {
                continue;
            };
            let (name, parameters) = signature.split_once('(').unwrap_or((signature, ""));
            let name = name.split('<').next().unwrap_or_default();
            if parameters.starts_with("mut self") || parameters.starts_with("self") {
                setters.insert((of, name.to_owned()));
            }
        }
    }
    setters
}

#[test]
fn every_setting_of_the_library_has_a_flag_or_a_reason_for_none() {
    let setters = setters();
    for (of, known) in [
        ("ServerInfo", "timeout"),
        ("ServerInfo", "max_connections"),
        ("BrokerOptions", "max_parked"),
        ("FilePersistorInfo", "compact_from"),
        ("RedisBackplane", "key_prefix"),
    ] {
        assert!(setters.contains(&(of, known.to_owned())), "{of}::{known}");
    }
    let reason = |of: &str, name: &str| {
        WITHOUT_FLAG
            .iter()
            .any(|(type_, setter, _)| (*type_, *setter) == (of, name))
    };
    let has_flag = |of: &str, name: &str| {
        all().any(|flag| {
            flag.setting == name
                && match flag.apply {
                    Apply::Server(_) => of == "ServerInfo",
                    Apply::Broker(_) => of == "BrokerOptions",
                    Apply::File(_) => of == "FilePersistorInfo",
                    #[cfg(feature = "redis")]
                    Apply::Redis(_) => of == "RedisBackplane",
                    Apply::Settings(_) => true,
                }
        })
    };
    let is_redis_missing = |of: &str, name: &str| {
        cfg!(not(feature = "redis")) && (of == "RedisBackplane" || name == "redis")
    };
    let missing: Vec<String> = setters
        .iter()
        .filter(|(of, name)| {
            !has_flag(of, name)
                && !reason(of, name)
                && !is_redis_missing(of, name)
                && (*of, &**name) != ("RedisBackplane", "on_state")
        })
        .map(|(of, name)| format!("{of}::{name}"))
        .collect();
    assert!(
        missing.is_empty(),
        "without a flag: {missing:?}; add one to flags/, or a reason to WITHOUT_FLAG"
    );
    for (of, name, _) in WITHOUT_FLAG {
        assert!(
            setters.contains(&(of, name.to_owned())),
            "{of}::{name} is no setter any more"
        );
        assert!(!has_flag(of, name), "{of}::{name} has a flag");
    }
}

#[test]
fn names_are_unique_and_have_one_form() {
    let mut names = BTreeSet::new();
    let mut variables = BTreeSet::new();
    for flag in all() {
        assert!(names.insert(flag.name), "{} twice", flag.name);
        assert!(variables.insert(flag.variable()), "{} twice", flag.name);
        let letters = flag.name.strip_prefix("--").expect("two dashes");
        assert!(
            letters
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
            "{}",
            flag.name
        );
        let is_placeholder = |byte: u8| byte.is_ascii_uppercase() || b"=:[]".contains(&byte);
        assert!(flag.value.bytes().all(is_placeholder), "{}", flag.value);
        assert!(!flag.help.ends_with('.'), "{}", flag.help);
    }
}
