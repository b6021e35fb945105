//! Pages of the documentation that are written from the program or read by it, and kept true by
//! tests.

use crate::{cli::Cli, config::File};
use clap::{CommandFactory as _, Parser as _};
use domain::policy::Policy;
use std::path::{Path, PathBuf};

/// The environment variable that makes the tests write the pages anew.
const UPDATE: &str = "SKEP_UPDATE_DOCS";

fn at(page: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(page)
}

/// Compares a page with what the program says it should be.
pub(crate) fn is_current(page: &str, expected: &str) {
    let path = at(page);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{page} is not what the program says: run `{UPDATE}=1 cargo test -p skep-cli` and commit it"
    );
}

/// The blocks of a page that are TOML.
fn blocks_of_toml(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(at(page)).unwrap();
    let blocks: Vec<String> = text
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect();
    assert!(!blocks.is_empty(), "{page} has no block of TOML");
    blocks
}

/// The words of the command of `skep` in a line for a shell: up to a remark, a pipe or a
/// redirection, and after what is piped into it.
fn words_of_skep(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
        .split(|it| matches!(it.as_str(), "|" | ">" | ">>" | "<" | "&&" | ";"))
        .find(|it| it.first().is_some_and(|it| it == "skep"))
        .unwrap_or_else(|| panic!("no command of skep: {line}"))
        .to_vec()
}

#[test]
fn every_example_in_the_help_is_a_command_line_that_the_program_understands() {
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let examples: Vec<&str> = help
            .lines()
            .skip_while(|it| *it != "Examples:")
            .skip(1)
            .take_while(|it| it.starts_with("  "))
            .collect();
        assert!(!examples.is_empty(), "{name} has no examples");
        for example in examples {
            let words = words_of_skep(example);
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{name}: {example}\n{error}");
            }
        }
    }
}

#[test]
fn every_policy_that_is_shown_is_one_that_a_run_takes() {
    for block in blocks_of_toml("README.md") {
        let policy = Policy::parse(block.as_bytes()).unwrap_or_else(|it| panic!("{it}\n{block}"));
        assert!(policy.is_checked());
    }
    let asked = Policy::parse(blocks_of_toml("docs/egress.md")[0].as_bytes()).unwrap();
    assert_eq!((asked.egress.allow.len(), asked.egress.deny.len()), (2, 1));
    let own = std::fs::read(at("skep.toml")).unwrap();
    assert!(Policy::parse(&own).unwrap().is_checked());
}

#[test]
fn every_configuration_that_is_shown_is_one_that_the_program_reads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let mut blocks = blocks_of_toml("docs/configuration.md");
    blocks.extend(blocks_of_toml("docs/egress.md").into_iter().skip(1));
    for block in blocks {
        std::fs::write(&path, &block).unwrap();
        let file = File::read(&path).unwrap_or_else(|it| panic!("{it}\n{block}"));
        assert_ne!(file, File::default());
    }
}
