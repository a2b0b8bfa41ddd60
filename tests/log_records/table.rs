//! The table of log records in the guide, compared with the calls in the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

/// A target and a level.
type Pair = (String, &'static str);

/// The pairs of the guide's table: a level whose cell is not empty.
fn of_the_guide() -> BTreeSet<Pair> {
    let guide = include_str!("../../src/guide/deploying.md");
    let rows = guide
        .lines()
        .filter(|line| line.starts_with("| `long_polling"));
    let pairs = rows.flat_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let target = cells[1].trim_matches('`').to_owned();
        let levels = LEVELS.into_iter().zip(cells.into_iter().skip(2));
        let filled = levels.filter(|(_, cell)| !cell.is_empty());
        filled
            .map(|(level, _)| (target.clone(), level))
            .collect::<Vec<_>>()
    });
    pairs.collect()
}

/// The pairs of the calls in the source, of which the targets are the modules of the first level.
fn of_the_source() -> BTreeSet<Pair> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut pairs = BTreeSet::new();
    for entry in fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap();
        let target = match module {
            "bin" => "long_polling_server".to_owned(),
            _ => format!("long_polling::{module}"),
        };
        collect(&path, &target, &mut pairs);
    }
    pairs
}

fn collect(path: &Path, target: &str, pairs: &mut BTreeSet<Pair>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with("tests") {
                collect(&path, target, pairs);
            }
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let source = fs::read_to_string(path).unwrap();
        let code = source.lines().map(str::trim_start);
        let code: Vec<&str> = code.filter(|line| !line.starts_with("//")).collect();
        let code = code.join("\n");
        assert!(
            !code.contains("log::trace!"),
            "{path:?}: the table has no column for trace"
        );
        for level in LEVELS {
            if code.contains(&format!("log::{level}!")) {
                pairs.insert((target.to_owned(), level));
            }
        }
    }
}

#[test]
fn the_guides_table_has_the_targets_and_levels_of_the_source() {
    let guide = of_the_guide();
    assert!(
        guide.contains(&("long_polling::server".to_owned(), "info")),
        "{guide:?}"
    );
    assert_eq!(guide, of_the_source());
}
