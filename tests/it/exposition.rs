//! A strict parser of Prometheus' text format, version 0.0.4, and tests that it refuses what is malformed.

use std::collections::{BTreeMap, BTreeSet};

/// Metrics by family name.
pub(crate) type Families = BTreeMap<String, Family>;

/// The labels of a sample, sorted by name.
pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Debug, PartialEq)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: BTreeMap<Labels, f64>,
}

/// Reads a text in which each family has HELP, TYPE and then its samples.
///
/// # Errors
///
/// The first line that is wrong, and why.
pub(crate) fn parse(text: &str) -> Result<Families, String> {
    let mut families = Families::new();
    let mut current: Option<String> = None;
    let mut helps = BTreeMap::new();
    if !text.ends_with('\n') || text.contains('\r') {
        return Err("the last line does not end in one line feed".into());
    }
    for line in text.lines() {
        let result = if let Some(rest) = line.strip_prefix("# HELP ") {
            help(&mut helps, rest)
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            kind(&mut families, &mut helps, rest).map(|name| current = Some(name))
        } else {
            sample(&mut families, current.as_deref(), line)
        };
        result.map_err(|why| format!("{why}: {line:?}"))?;
    }
    match helps.is_empty() && families.values().all(|family| !family.samples.is_empty()) {
        true => Ok(families),
        false => Err("a family without a type or without samples".into()),
    }
}

fn help(helps: &mut BTreeMap<String, String>, rest: &str) -> Result<(), &'static str> {
    let (name, text) = rest.split_once(' ').ok_or("HELP without a text")?;
    let text = unescape(text, false)?;
    match is_name(name, ":") && helps.insert(name.into(), text).is_none() {
        true => Ok(()),
        false => Err("HELP of a bad name, or twice"),
    }
}

fn kind(
    families: &mut Families,
    helps: &mut BTreeMap<String, String>,
    rest: &str,
) -> Result<String, &'static str> {
    let (name, kind) = rest.split_once(' ').ok_or("TYPE without a type")?;
    let help = helps.remove(name).ok_or("TYPE without HELP before it")?;
    if !["counter", "gauge"].contains(&kind) {
        return Err("an unknown type");
    }
    if (kind == "counter") != name.ends_with("_total") {
        return Err("counters, and only they, end in _total");
    }
    let family = Family {
        kind: kind.into(),
        help,
        samples: BTreeMap::new(),
    };
    match families.insert(name.into(), family) {
        None => Ok(name.into()),
        Some(_) => Err("a family twice"),
    }
}

fn sample(families: &mut Families, current: Option<&str>, line: &str) -> Result<(), &'static str> {
    let end = line.find(['{', ' ']).ok_or("a sample without a value")?;
    let (name, rest) = line.split_at(end);
    if Some(name) != current {
        return Err("a sample that is not below its TYPE");
    }
    let (labels, value) = labels(rest)?;
    let value = value.strip_prefix(' ').ok_or("no space before the value")?;
    let number: f64 = value.parse().map_err(|_| "a value that is no number")?;
    if !number.is_finite() || number < 0.0 || value.trim() != value {
        return Err("a value that no count has");
    }
    let family = families.get_mut(name).ok_or("a sample of no family")?;
    match family.samples.insert(labels, number) {
        None => Ok(()),
        Some(_) => Err("a sample twice"),
    }
}

/// The labels, and what follows them.
fn labels(text: &str) -> Result<(Labels, &str), &'static str> {
    let mut labels = Labels::new();
    let Some(mut rest) = text.strip_prefix('{') else {
        return Ok((labels, text));
    };
    loop {
        let (name, value) = rest.split_once("=\"").ok_or("a label without a value")?;
        let end = end_of_quote(value).ok_or("a label without an end")?;
        let is_new = labels
            .insert(name.into(), unescape(&value[..end], true)?)
            .is_none();
        if !is_name(name, "") || name.starts_with("__") || !is_new {
            return Err("a bad label, or one twice");
        }
        rest = &value[end + 1..];
        match rest.as_bytes().first() {
            Some(b',') => rest = &rest[1..],
            Some(b'}') => return Ok((labels, &rest[1..])),
            _ => return Err("labels without an end"),
        }
    }
}

fn end_of_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    })
}

fn unescape(text: &str, in_quotes: bool) -> Result<String, &'static str> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match (character, in_quotes) {
            ('"', true) => return Err("a quote that is not escaped"),
            ('\\', _) => match (characters.next(), in_quotes) {
                (Some('\\'), _) => '\\',
                (Some('n'), _) => '\n',
                (Some('"'), true) => '"',
                _ => return Err("an unknown escape"),
            },
            (other, _) => other,
        });
    }
    Ok(plain)
}

fn is_name(name: &str, more: &str) -> bool {
    let is_valid = |character: char| {
        character.is_ascii_alphanumeric() || character == '_' || more.contains(character)
    };
    !name.is_empty()
        && name.chars().all(is_valid)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// The value of a family's only sample.
pub(crate) fn value(families: &Families, name: &str) -> f64 {
    labelled(families, name, &[])
}

/// The value of the sample with exactly these labels.
pub(crate) fn labelled(families: &Families, name: &str, labels: &[(&str, &str)]) -> f64 {
    let family = families.get(name).unwrap_or_else(|| panic!("no {name}"));
    let labels = labels
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    let labels: Labels = labels.collect();
    let value = family.samples.get(&labels);
    *value.unwrap_or_else(|| panic!("no {name} of {labels:?}: {family:?}"))
}

/// The names of all families.
pub(crate) fn names(families: &Families) -> BTreeSet<&str> {
    families.keys().map(String::as_str).collect()
}

#[test]
fn the_parser_reads_names_labels_and_escapes() {
    let text = "# HELP a_total Up to\\n\\\\ here.\n# TYPE a_total counter\na_total{x=\"1\",y=\"\\\\ \\\" \\n,}\"} 3\n\
                a_total{x=\"2\",y=\"\"} 4.5e3\n# HELP b B \"quoted\".\n# TYPE b gauge\nb 0\n";
    let families = parse(text).unwrap();
    assert_eq!(names(&families), BTreeSet::from(["a_total", "b"]));
    assert_eq!(families["a_total"].help, "Up to\n\\ here.");
    assert_eq!(families["a_total"].kind, "counter");
    let labels = [("y", "\\ \" \n,}"), ("x", "1")];
    assert_eq!(labelled(&families, "a_total", &labels), 3.0);
    assert_eq!(
        labelled(&families, "a_total", &[("x", "2"), ("y", "")]),
        4500.0
    );
    assert_eq!(value(&families, "b"), 0.0);
}

#[test]
fn the_parser_refuses_what_is_malformed() {
    let head = "# HELP a A.\n# TYPE a gauge\n";
    assert!(parse(&format!("{head}a 1\n")).is_ok());
    for sample in [
        "",
        "a 1",
        "a 1\r\n",
        "a\n",
        "a x\n",
        "a NaN\n",
        "a -1\n",
        "a  1\n",
        "a 1 \n",
        "b 1\n",
        "a 1\na 1\n",
        "a{} 1\n",
        "a{x} 1\n",
        "a{x=1} 1\n",
        "a{x=\"1} 1\n",
        "a{x=\"1\"\n",
        "a{x=\"1\" 1\n",
        "a{x=\"1\",x=\"2\"} 1\n",
        "a{1x=\"1\"} 1\n",
        "a{__x=\"1\"} 1\n",
        "a{x:y=\"1\"} 1\n",
        "a{x=\"\\t\"} 1\n",
        "a{x=\"1\"}1\n",
        "a{x=\"1\"} 1\na{x=\"1\"} 2\n",
        "a 1\n\n",
        "a 1\n# comment\n",
        "a 1\n# HELP b B.\n",
        "a 1\n# HELP b B.\n# TYPE b gauge\n",
        "a 1\n# TYPE b gauge\nb 1\n",
        "a 1\n# HELP b B.\nb 1\n",
        "a 1\n# HELP b_total B.\n# TYPE b_total gauge\nb_total 1\n",
        "a 1\n# HELP b B.\n# TYPE b counter\nb 1\n",
        "a 1\n# HELP b B.\n# TYPE b thing\nb 1\n",
        "a 1\n# HELP a A.\n# TYPE a gauge\na{x=\"1\"} 1\n",
        "a 1\n# HELP b \\t\n# TYPE b gauge\nb 1\n",
        "a 1\n# HELP b B.\n# TYPE b gauge\nb 1\na{x=\"1\"} 1\n",
        "a 1\n# HELP b-c B.\n# TYPE b-c gauge\nb-c 1\n",
    ] {
        let text = format!("{head}{sample}");
        assert!(parse(&text).is_err(), "{text}");
    }
}
