//! The commands that the documentation shows are real.
//!
//! A block of commands (```` ```console ````) in `README.md`, `CONTRIBUTING.md` or `docs/` says
//! directly above itself what becomes of it:
//!
//! - `<!-- tested: NAME -->`: a test here runs its commands, in this order, as they stand;
//! - `<!-- not run: REASON -->`: it is not run, and the reason is said.
//!
//! Whatever the mark, a `cargo xtask` command names steps and benchmarks that exist, and a
//! `skep` command that is not run has a command line that the program understands. A block of
//! output (```` ```text ````) is under `<!-- output: demo -->`: its first line is the command, and
//! the others are lines of what that prints, in which `[…]` stands for more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use testkit::models::{Dialect, Job, Script, Step};
use testkit::{Home, Repo};

use crate::world::{DEADLINE, World};

/// A block of a page.
struct Block {
    /// Where it begins, for messages.
    place: String,
    /// The language after the fence.
    language: String,
    /// What the comment directly above says.
    mark: String,
    /// Its lines.
    lines: Vec<String>,
}

impl Block {
    /// Its commands, without what is said behind them.
    fn commands(&self) -> Vec<Vec<String>> {
        self.lines
            .iter()
            .filter_map(|it| it.strip_prefix("$ "))
            .map(words)
            .collect()
    }
}

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

fn pages() -> Vec<PathBuf> {
    let root = root();
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    let mut docs: Vec<PathBuf> = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .filter(|it| it.extension().is_some_and(|it| it == "md"))
        .collect();
    docs.sort();
    pages.extend(docs);
    pages
}

fn blocks() -> Vec<Block> {
    let mut all = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let name = page.strip_prefix(root()).unwrap().display().to_string();
        let mut above = "";
        let mut open: Option<Block> = None;
        for (number, line) in text.lines().enumerate() {
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(language)) => {
                    open = Some(Block {
                        place: format!("{name}, line {}", number + 1),
                        language: language.trim().to_owned(),
                        mark: mark(above),
                        lines: Vec::new(),
                    });
                }
                (Some(_), Some(_)) => all.extend(open.take()),
                (Some(block), None) => block.lines.push(line.to_owned()),
                (None, None) => above = line,
            }
            if open.is_some() {
                above = "";
            }
        }
        assert!(open.is_none(), "{name}: a block is not closed");
    }
    all
}

fn mark(line: &str) -> String {
    line.trim()
        .strip_prefix("<!--")
        .and_then(|it| it.strip_suffix("-->"))
        .map(|it| it.trim().to_owned())
        .unwrap_or_default()
}

/// The words of a command line as a shell takes them, up to a remark.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The commands of the block with this mark; there is exactly one.
fn tested(name: &str) -> Vec<Vec<String>> {
    let mark = format!("tested: {name}");
    let found: Vec<Block> = blocks().into_iter().filter(|it| it.mark == mark).collect();
    assert_eq!(found.len(), 1, "one block has the mark `{mark}`");
    found[0].commands()
}

/// What tests here run.
const TESTED: [&str; 2] = ["demo", "run"];

#[test]
fn every_block_of_commands_says_whether_it_is_tested() {
    let mut seen = BTreeSet::new();
    for block in blocks() {
        if block.language != "console" {
            assert!(
                block.mark == "output: demo" || !block.lines.iter().any(|it| it.starts_with("$ ")),
                "{}: write ```console, or `<!-- output: demo -->` above",
                block.place
            );
            continue;
        }
        assert!(
            !block.commands().is_empty(),
            "{}: a block of commands has lines that begin with `$ `",
            block.place
        );
        match block.mark.split_once(':') {
            Some(("tested", name)) => {
                let name = name.trim();
                assert!(
                    TESTED.contains(&name),
                    "{}: no test here runs `{name}`; there are {TESTED:?}",
                    block.place
                );
                seen.insert(name.to_owned());
            }
            Some(("not run", reason)) => assert!(
                reason.trim().len() > 3,
                "{}: say why it is not run",
                block.place
            ),
            _ => panic!(
                "{}: write `<!-- tested: NAME -->` or `<!-- not run: REASON -->` on the line \
                 directly above",
                block.place
            ),
        }
    }
    let tested: BTreeSet<String> = TESTED.map(str::to_owned).into();
    assert_eq!(seen, tested, "each test here has its block");
}

#[test]
fn every_command_of_cargo_names_what_exists() {
    // The help of `cargo xtask` as it is printed; building it would take longer than all else.
    let help = fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    let after = |label: &str| -> Vec<String> {
        let rest = help
            .split(label)
            .nth(1)
            .unwrap_or_else(|| panic!("{label} in {help}"));
        let line = rest.lines().next().unwrap();
        line.split([' ', ','])
            .filter(|it| !it.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let steps = after("Steps:");
    let benches = after("Names:");
    let mut crates: Vec<String> = crate::world::entries(&root().join("crates"));
    if root().join("fuzz/targets").is_dir() {
        crates.push("fuzz-targets".into());
    }
    for block in blocks().iter().filter(|it| it.language == "console") {
        for command in block.commands() {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            match command.as_slice() {
                ["cargo", "xtask", "test", wanted @ ..] => {
                    for step in wanted {
                        assert!(steps.iter().any(|it| it == step), "{}: {step}", block.place);
                    }
                }
                ["cargo", "xtask", "bench", name, ..] => {
                    assert!(
                        benches.iter().any(|it| it == name),
                        "{}: {name}",
                        block.place
                    );
                }
                [
                    "cargo",
                    "xtask",
                    name @ ("simulate" | "kills" | "leaks" | "fuzz"),
                    ..,
                ] => {
                    assert!(
                        help.contains(&format!("  {name} [")),
                        "{}: {name}",
                        block.place
                    );
                }
                [
                    "cargo",
                    "build" | "run" | "test" | "nextest" | "clippy" | "fmt",
                    rest @ ..,
                ] => {
                    let named = rest
                        .iter()
                        .skip_while(|it| **it != "-p" && **it != "--package")
                        .nth(1);
                    if let Some(name) = named {
                        let name = name.trim_start_matches("skep-");
                        assert!(
                            crates.iter().any(|it| it == name),
                            "{}: {name}",
                            block.place
                        );
                    }
                }
                ["cargo", ..] => panic!("{}: {command:?} is not known here", block.place),
                ["skep", ..] | ["git", ..] => {}
                _ => panic!(
                    "{}: {command:?} is neither skep, cargo nor git",
                    block.place
                ),
            }
        }
    }
}

#[test]
fn every_command_of_skep_is_one_that_the_program_understands() {
    let home = Home::new();
    for block in blocks().iter().filter(|it| it.language == "console") {
        for command in block.commands().iter().filter(|it| it[0] == "skep") {
            // With `--help` at its end a command line is read and not carried out.
            let mut args: Vec<&str> = command[1..].iter().map(String::as_str).collect();
            args.push("--help");
            let ran = home.run(env!("CARGO_BIN_EXE_skep"), &args, &home.home(), DEADLINE);
            assert_eq!(
                ran.code(),
                Some(0),
                "{}: {command:?}\n{}",
                block.place,
                ran.stderr
            );
        }
    }
}

#[test]
fn the_first_command_of_the_readme_shows_the_demo() {
    let commands = tested("demo");
    let home = Home::new();
    for command in commands {
        let said = demo(&home, &command);
        assert!(said.contains("skep/integration is at"), "{said}");
    }
}

#[test]
fn the_transcript_in_the_readme_is_what_the_demo_prints() {
    let home = Home::new();
    let blocks: Vec<Block> = blocks()
        .into_iter()
        .filter(|it| it.mark == "output: demo")
        .collect();
    assert_eq!(blocks.len(), 1, "one block has the mark `output: demo`");
    for block in blocks {
        let (first, lines) = block.lines.split_first().unwrap();
        let mut command = words(first.strip_prefix("$ ").expect("the command comes first"));
        for word in &mut command {
            if word.starts_with('/') {
                *word = home.root().join("skep-demo").display().to_string();
            }
        }
        let said = demo(&home, &command);
        let real: BTreeSet<String> = said.lines().map(shape).collect();
        for line in lines {
            let is_left_out = line.trim().is_empty() || line.contains("[…");
            assert!(
                is_left_out || real.contains(&shape(line)),
                "{}: the demo does not say\n{line}\nbut\n{said}",
                block.place
            );
        }
    }
}

/// Runs the demo as the documentation says; all that it prints.
fn demo(home: &Home, command: &[String]) -> String {
    let args: Vec<&str> = command.iter().map(String::as_str).collect();
    // The build is another one; what is run is the same.
    let ["cargo", "run", "--release", "--", rest @ ..] = args.as_slice() else {
        panic!("the demo is started with `cargo run --release -- …`: {args:?}");
    };
    let ran = home
        .run(env!("CARGO_BIN_EXE_skep"), rest, &home.home(), DEADLINE)
        .expect_code(0);
    format!("{}{}", ran.stderr, ran.stdout)
}

/// A line without what differs from run to run: figures, ids, names of commits, directories, and
/// which of the jobs that run at once comes first.
fn shape(line: &str) -> String {
    let words: Vec<String> = line
        .split_whitespace()
        .map(|word| {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            let is_id = bare.len() > 6
                && (bare.as_bytes()[1] == b'-' || bare.chars().all(|c| c.is_ascii_hexdigit()));
            if ["durations", "money", "table"].contains(&bare) {
                return word.replace(bare, "JOB");
            }
            if is_id || word.contains('/') && word.contains("skep-demo") {
                return "#".to_owned();
            }
            // A figure, a time or an amount of money.
            let is_figure = |c: char| c.is_ascii_digit() || ".hmsk".contains(c);
            if bare.starts_with(|c: char| c.is_ascii_digit()) && bare.chars().all(is_figure) {
                return word.replace(bare, "#");
            }
            word.to_owned()
        })
        .collect();
    words.join(" ")
}

/// What the example of the README asks for: a parser in a language that is on every machine.
fn parser() -> (Repo, Script, String) {
    let prompt = tested("run")
        .iter()
        .find_map(|it| match it.as_slice() {
            [skep, run, prompt] if skep == "skep" && run == "run" => Some(prompt.clone()),
            _ => None,
        })
        .expect("the block has `skep run \"…\"`");
    let repo = Repo::new();
    repo.file("items", "a,b,\n").file(
        "parse.sh",
        "# The items of a list, one a line.\nif grep -q ',$'; then\n    exit 1\nfi\n",
    );
    repo.commit("A parser");
    let plan = "{\"job\": [{\"name\": \"commas\", \"prompt\": \"TRAILING COMMAS\"}]}";
    let script = Script::new()
        .job(
            Job::on("TRAILING COMMAS")
                .with_tools()
                .step(Step::shell("echo \"sed 's/,$//' | tr , '\\n'\" > parse.sh"))
                .step(Step::say("The parser accepts trailing commas.")),
        )
        .job(Job::on(&prompt).step(Step::say(plan)));
    (repo, script, prompt)
}

#[test]
fn the_commands_for_a_repository_of_ones_own_work_as_they_stand() {
    for dialect in [Dialect::Chat, Dialect::Messages] {
        let (repo, script, _) = parser();
        let world = World::new(dialect, repo, script);
        for command in tested("run") {
            assert_eq!(command[0], "skep", "{command:?}");
            let args: Vec<&str> = command[1..].iter().map(String::as_str).collect();
            world.skep(&args).expect_code(0);
        }
        let parser = fs::read_to_string(world.repo.path().join("parse.sh")).unwrap();
        assert!(parser.starts_with("sed "), "{parser}");
    }
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = page.parent().unwrap().join(target);
            assert!(path.exists(), "{}: {target}", page.display());
        }
    }
}
