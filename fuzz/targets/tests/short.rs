//! Each target for a moment: with its seeds as they are, and then with changes of them that a seed
//! decides. `SKEP_FUZZ_SECONDS` and `SKEP_SEED` choose otherwise; `cargo xtask fuzz` goes on for long,
//! guided by what the code does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use skep_fuzz_targets::{Run, TARGETS};

/// How long each is changed, in seconds.
const SECONDS: u64 = 1;
/// The longest input, in bytes.
const LONGEST: usize = 64 << 10;
/// Changes of one input, at most.
const CHANGES: usize = 6;
/// Inputs between two looks at the clock.
const CASES: u32 = 200;
/// What parsers look at in particular.
const TOKENS: [&[u8]; 32] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\r",
    b" ",
    b"\t",
    b"\"",
    b"\\",
    b"/",
    b"..",
    b":",
    b"@",
    b"#",
    b"=",
    b"*",
    b"{",
    b"}",
    b"[",
    b"]",
    b"-",
    b"0",
    b"-1",
    b"18446744073709551615",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x1b",
    b"\x1b]",
    b"\xc2\x9b",
    b"\xe2\x80\x8b",
    b"null",
    b"data: ",
    b"%2f",
];

/// One change: what it is, where, as a part of the whole, and two numbers that mean what it makes of
/// them.
type Change = (u16, u16, u16, u16);

/// A seed and its changes.
fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec(any::<Change>(), 0..CHANGES);
    (0..seeds.len(), changes).prop_map(move |(seed, changes)| {
        let mut bytes = seeds[seed].clone();
        for change in changes {
            apply(&mut bytes, change, &seeds);
            bytes.truncate(LONGEST);
        }
        bytes
    })
}

fn place(at: u16, bytes: &[u8]) -> usize {
    usize::from(at) * (bytes.len() + 1) / (1 << 16)
}

fn apply(bytes: &mut Vec<u8>, (what, at, a, b): Change, seeds: &[Vec<u8>]) {
    let at = place(at, bytes);
    let until = |count: u16| (at + usize::from(count)).min(bytes.len());
    match what % 9 {
        // A bit is another one.
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (a % 8);
            }
        }
        // A byte is another one.
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = a as u8;
            }
        }
        // Some bytes come in.
        2 => drop(bytes.splice(at..at, [a.to_le_bytes(), b.to_be_bytes()].concat())),
        // What parsers look at comes in.
        3 => {
            let token = TOKENS[usize::from(a) % TOKENS.len()];
            drop(bytes.splice(at..at, token.iter().copied()));
        }
        // A few bytes go.
        4 => drop(bytes.drain(at..until(a % 64))),
        // A part is there more often.
        5 => {
            let part = bytes[at..until(a % 64)].repeat(usize::from(b % 40));
            drop(bytes.splice(at..at, part));
        }
        // One letter comes in, very often.
        6 => {
            let run = std::iter::repeat_n(b'0' + (a % 64) as u8, usize::from(b % 4_096));
            drop(bytes.splice(at..at, run));
        }
        // It ends here.
        7 => bytes.truncate(at),
        // It goes on as another one.
        _ => {
            let other = &seeds[usize::from(a) % seeds.len()];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[place(b, other).min(other.len())..]);
        }
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../corpus")
        .join(target);
    let list = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = list.map(|it| it.unwrap().path()).collect();
    files.sort();
    let mut seeds: Vec<Vec<u8>> = files.iter().map(|it| fs::read(it).unwrap()).collect();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds.push(Vec::new());
    seeds
}

fn number(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |it| it.parse().expect("a number"))
}

/// Runs a target on its seeds, and on changes of them until the time is over.
fn holds(target: &str) {
    let run: Run = TARGETS.iter().find(|it| it.0 == target).unwrap().1;
    let seeds = seeds(target);
    seeds.iter().for_each(|seed| run(seed));
    let seed = number("SKEP_SEED", 1);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config.clone(), rng);
    let end = Instant::now() + Duration::from_secs(number("SKEP_FUZZ_SECONDS", SECONDS));
    let inputs = inputs(seeds);
    let mut tried = 0;
    loop {
        tried += CASES;
        let ended = runner.run(&inputs, |input| {
            run(&input);
            Ok(())
        });
        match ended {
            Ok(()) => {}
            Err(TestError::Fail(why, input)) => {
                panic!(
                    "{target}, seed {seed}: {why}\n{:?}",
                    String::from_utf8_lossy(&input)
                );
            }
            Err(error) => panic!("{target}: {error}"),
        }
        if Instant::now() >= end {
            println!("{target}: {tried} inputs");
            return;
        }
        // One runs so many and no more.
        let rng = runner.new_rng();
        runner = TestRunner::new_with_rng(config.clone(), rng);
    }
}

macro_rules! targets {
    ($($name:ident = $target:literal;)*) => {
        $(#[test] fn $name() { holds($target); })*

        #[test]
        fn every_target_is_run() {
            let run = [$($target),*];
            assert!(TARGETS.iter().all(|it| run.contains(&it.0)));
            assert_eq!(run.len(), TARGETS.len());
        }
    };
}

targets! {
    the_lines_of_an_agent_are_bounded_and_the_same_in_any_pieces = "agent_lines";
    a_client_hears_the_same_of_a_holder_in_any_pieces = "answered";
    an_archive_leads_nowhere_and_means_the_same_in_any_pieces = "archive";
    what_a_client_asks_a_holder_means_the_same_in_any_pieces_and_inside = "asked";
    whatever_claude_code_prints_its_events_are_bounded = "claude";
    no_spelling_of_a_git_directory_is_missed = "git_name";
    the_first_bytes_of_a_tunnel_mean_one_thing = "greeting";
    a_host_is_one_to_every_resolver = "host";
    an_id_has_one_text = "ids";
    an_index_of_git_is_refused_or_kept_whole = "index";
    a_command_inside_is_the_one_that_was_asked_for = "init_command";
    a_plan_is_read_inside_as_it_was_written_or_refused = "init_plan";
    no_name_of_a_process_changes_what_is_read_of_it = "init_status";
    what_changed_by_a_listing_is_all_that_changed_and_within_bounds = "listing";
    a_manifest_is_refused_or_read_whole = "manifest";
    a_source_holds_no_password_and_means_one_thing = "origin";
    whatever_an_inside_says_each_command_has_one_start_and_one_end = "packets";
    a_plan_is_refused_or_within_its_bounds = "plan";
    a_policy_is_taken_or_refused = "policy";
    a_record_of_a_workspace_is_refused_or_means_one_thing = "record";
    a_reply_of_a_model_means_the_same_in_any_pieces = "reply";
    a_request_to_a_model_asks_for_the_same_with_its_usage = "request";
    no_repository_lets_itself_out = "rules";
    a_target_is_one_host_and_one_port = "target";
    nothing_that_a_terminal_obeys_gets_through = "terminal";
}
