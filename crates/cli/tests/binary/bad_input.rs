//! The page on bad input and the tests are one: each row of `docs/bad-input.md` names the tests
//! that try it, in a comment at its end, and each of those tests names the row, in a line
//! `// docs/bad-input.md: ITEM` above it, wherever in the workspace it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/bad-input.md";

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// A row: what it is about, the exit code, and the tests that try it.
struct Row {
    item: String,
    code: String,
    tests: Vec<String>,
}

/// The rows of the tables of the page, without their heads.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for line in page(PAGE).lines().filter(|it| it.starts_with('|')) {
        let (cells, tests) = line.split_once("<!--").unwrap_or((line, ""));
        let cells: Vec<&str> = cells
            .split(" | ")
            .map(|it| it.trim_matches(['|', ' ']))
            .collect();
        if cells[0] == "what" || cells[0].starts_with("---") {
            continue;
        }
        assert_eq!(
            cells.len(),
            4,
            "what, what happens, exit, what to do: {line}"
        );
        assert!(
            cells.iter().all(|it| !it.is_empty()),
            "an empty cell: {line}"
        );
        let tests = tests.split("-->").next().unwrap_or_default();
        rows.push(Row {
            item: cells[0].to_owned(),
            code: cells[2].to_owned(),
            tests: tests.split_whitespace().map(str::to_owned).collect(),
        });
    }
    assert!(rows.len() > 50, "the page has its tables");
    rows
}

/// The files with tests.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut queue = vec![root().join("crates")];
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// The rows that each test names, by the test's name.
fn named() -> BTreeMap<String, BTreeSet<String>> {
    let mark = format!("// {PAGE}: ");
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let mut above = BTreeSet::new();
        for line in text.lines() {
            let line = line.trim_start();
            if let Some(item) = line.strip_prefix(&mark) {
                above.insert(item.to_owned());
            } else if let Some(function) = line
                .strip_prefix("fn ")
                .or_else(|| line.strip_prefix("async fn "))
                && !above.is_empty()
            {
                let name = function.split('(').next().unwrap_or_default();
                let known = all.insert(name.to_owned(), std::mem::take(&mut above));
                assert!(known.is_none(), "two tests are called {name}");
            } else {
                let between = line.starts_with("//") || line.starts_with("#[");
                assert!(above.is_empty() || between, "{}: {line}", path.display());
            }
        }
    }
    all
}

#[test]
fn every_row_of_the_page_on_bad_input_is_tried_by_the_tests_that_it_names() {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut items = BTreeSet::new();
    for row in rows() {
        assert!(!row.tests.is_empty(), "no test tries `{}`", row.item);
        assert!(
            items.insert(row.item.clone()),
            "`{}` is there twice",
            row.item
        );
        for test in row.tests {
            wanted.entry(test).or_default().insert(row.item.clone());
        }
    }
    assert_eq!(wanted, named());
}

#[test]
fn every_exit_code_of_the_page_on_bad_input_is_in_the_table_of_exit_codes() {
    let codes = page("docs/exit-codes.md");
    for row in rows() {
        let known = codes.contains(&format!("\n| {} | `", row.code));
        assert!(known, "`{}` ends with {}", row.item, row.code);
    }
}
