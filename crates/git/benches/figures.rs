//! The figures that this crate promises, on repositories of 10,000 and 90,000 files: `cargo bench -p skep-git
//! [-- 10000]`.
//! One JSON object a line.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)] // Run by hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use skep_git::{Merged, Mirror, NewCommit, Program, Published, Signature, Source};

fn main() {
    let root = std::env::temp_dir().join(format!("skep-git-figures-{}", std::process::id()));
    std::fs::create_dir_all(&root).unwrap();
    let mut sizes: Vec<usize> = std::env::args()
        .filter_map(|arg| arg.parse().ok())
        .collect();
    if sizes.is_empty() {
        sizes = vec![10_000, 90_000];
    }
    for files in sizes {
        figures(&root.join(files.to_string()), files);
    }
    std::fs::remove_dir_all(&root).unwrap();
}

fn program() -> Program {
    Program::find(&std::env::var_os("PATH").unwrap()).unwrap()
}

fn git(dir: &Path, args: &[&str]) {
    let status = Command::new("git")
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .args([
            "-c",
            "user.name=U",
            "-c",
            "user.email=u@example.invalid",
            "-c",
            "gc.auto=0",
        ])
        .args(args)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "git {args:?}");
}

/// The middle of several runs, in milliseconds.
fn median(runs: usize, mut run: impl FnMut(usize) -> Duration) -> f64 {
    let mut times: Vec<_> = (0..runs).map(&mut run).collect();
    times.sort();
    times[runs / 2].as_secs_f64() * 1000.0
}

fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let value = run();
    (start.elapsed(), value)
}

/// Processor time of this process and its ended children, in milliseconds: means something on a busy machine too.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<f64> = stat[stat.rfind(')').unwrap() + 2..]
        .split(' ')
        .filter_map(|f| f.parse().ok())
        .collect();
    // utime, stime, cutime, cstime, after the state (which is not a number), in hundredths of a second.
    fields[10..14].iter().sum::<f64>() * 10.0
}

fn say(name: &str, files: usize, value: f64, unit: &str) {
    println!(
        "{{\"name\":\"{name}_{}k\",\"value\":{value:.3},\"unit\":\"{unit}\"}}",
        files / 1000
    );
}

fn figures(root: &Path, files: usize) {
    let user = root.join("user");
    make(&user, files);
    let source = Source::discover(&user, program()).unwrap();
    let head = source.head().commit;
    say(
        "discover",
        files,
        median(9, |_| {
            timed(|| Source::discover(&user, program()).unwrap()).0
        }),
        "ms",
    );

    let runs = if files > 10_000 { 1 } else { 5 };
    for packed in [false, true] {
        if packed {
            git(&user, &["repack", "-adq"]);
        }
        let suffix = if packed { "packed" } else { "loose" };
        let source = Source::discover(&user, program()).unwrap();
        let mut clones = Vec::new();
        let mut colds = Vec::new();
        let mut cpus = Vec::new();
        for i in 0..runs {
            let clone = root.join("clone");
            let before = cpu();
            clones.push(timed(|| git(root, &["clone", "--quiet", "--local", "user", "clone"])).0);
            let after_clone = cpu();
            std::fs::remove_dir_all(&clone).unwrap();
            let (mirror, base) = (
                root.join(format!("mirror-{suffix}-{i}")),
                root.join(format!("base-{suffix}-{i}")),
            );
            let start_cold = cpu();
            colds.push(
                timed(|| {
                    let mirror = Mirror::open_or_create(&mirror, program()).unwrap();
                    mirror.checkout(head, &base, Some(&source)).unwrap();
                })
                .0,
            );
            cpus.push((after_clone - before, cpu() - start_cold));
            if i > 0 {
                std::fs::remove_dir_all(&base).unwrap();
            }
        }
        cpus.sort_by(|a, b| a.1.total_cmp(&b.1));
        say(
            &format!("clone_local_cpu_{suffix}"),
            files,
            cpus[runs / 2].0,
            "ms",
        );
        say(&format!("cold_cpu_{suffix}"), files, cpus[runs / 2].1, "ms");
        clones.sort();
        colds.sort();
        say(
            &format!("clone_local_{suffix}"),
            files,
            clones[runs / 2].as_secs_f64() * 1000.0,
            "ms",
        );
        say(
            &format!("cold_{suffix}"),
            files,
            colds[runs / 2].as_secs_f64() * 1000.0,
            "ms",
        );
        say(
            &format!("cold_ratio_{suffix}"),
            files,
            colds[runs / 2].as_secs_f64() / clones[runs / 2].as_secs_f64(),
            "x",
        );
        let base = root.join(format!("base-{suffix}-0"));
        say(
            &format!("first_status_{suffix}"),
            files,
            timed(|| git(&base, &["--no-optional-locks", "status", "--porcelain"]))
                .0
                .as_secs_f64()
                * 1000.0,
            "ms",
        );
    }
    warm(root, files, &user);
}

fn warm(root: &Path, files: usize, user: &Path) {
    let source = Source::discover(user, program()).unwrap();
    let head = source.head().commit;
    let mirror = Mirror::open_or_create(&root.join("mirror-packed-0"), program()).unwrap();
    say(
        "fetch_noop",
        files,
        median(99, |_| timed(|| mirror.fetch(&source, head).unwrap()).0),
        "ms",
    );
    say(
        "open_and_fetch_noop",
        files,
        median(9, |_| {
            timed(|| {
                Mirror::open_or_create(&root.join("mirror-packed-0"), program())
                    .unwrap()
                    .fetch(&source, head)
                    .unwrap()
            })
            .0
        }),
        "ms",
    );
    say(
        "checkout_again",
        files,
        median(3, |i| {
            let base = root.join(format!("again-{i}"));
            timed(|| mirror.checkout(head, &base, None).unwrap()).0
        }),
        "ms",
    );
    say(
        "uncommitted",
        files,
        median(5, |_| timed(|| source.uncommitted().unwrap()).0),
        "ms",
    );

    let who = Signature::new("Skep", "skep@skep.invalid", 1_700_000_000);
    let base_tree = mirror.tree_of(head).unwrap();
    let change = |salt: &str, count: usize, from: usize, parent| {
        let mut writer = mirror.tree_writer(mirror.tree_of(parent).unwrap());
        for i in 0..count {
            let content = format!("changed {salt} {i}\n").repeat(20);
            let path = file_name(from + i * 97);
            writer
                .put_file(
                    path.to_str().unwrap().into(),
                    false,
                    &mut content.as_bytes(),
                    content.len() as u64,
                )
                .unwrap();
        }
        let tree = writer.finish().unwrap().tree;
        let parents = [parent];
        mirror
            .commit(&NewCommit {
                tree,
                parents: &parents,
                author: &who,
                committer: &who,
                message: salt.into(),
            })
            .unwrap()
    };
    say(
        "tree_write_12",
        files,
        median(9, |i| timed(|| change(&format!("t{i}"), 12, 0, head)).0),
        "ms",
    );

    let ours = change("ours", 10, 1, head);
    say(
        "merge",
        files,
        median(9, |i| {
            let theirs = change(&format!("m{i}"), 10, 5, head);
            timed(|| {
                assert!(matches!(
                    mirror.merge(ours, theirs, None).unwrap(),
                    Merged::Clean { .. }
                ))
            })
            .0
        }),
        "ms",
    );
    let next = mirror.tree_of(change("d", 10, 7, head)).unwrap();
    say(
        "changed_paths",
        files,
        median(9, |_| {
            timed(|| mirror.changed_paths(base_tree, next).unwrap()).0
        }),
        "ms",
    );
    say(
        "diff",
        files,
        median(9, |_| timed(|| mirror.diff(base_tree, next).unwrap()).0),
        "ms",
    );

    let mut tip = None;
    say(
        "update_ref",
        files,
        median(9, |i| {
            let new = change(&format!("r{i}"), 10, 3, head);
            let took = timed(|| {
                mirror
                    .update_ref("refs/skep/bench", Some(new), tip)
                    .unwrap()
            })
            .0;
            tip = Some(new);
            took
        }),
        "ms",
    );
    let mut tip = None;
    say(
        "publish_10",
        files,
        median(9, |i| {
            let new = change(&format!("p{i}"), 10, 11, tip.unwrap_or(head));
            let (took, outcome) = timed(|| {
                source
                    .publish(&mirror, "skep/integration", new, tip, &who)
                    .unwrap()
            });
            assert_eq!(outcome, Published::Done);
            tip = Some(new);
            took
        }),
        "ms",
    );
    let tip = tip.unwrap();
    say(
        "base_pack_of_integrated",
        files,
        timed(|| mirror.checkout(tip, &root.join("tip"), None).unwrap())
            .0
            .as_secs_f64()
            * 1000.0,
        "ms",
    );
}

fn file_name(i: usize) -> PathBuf {
    PathBuf::from(format!(
        "src/part{:03}/module{:02}/file{i:06}.rs",
        (i / 400) % 1000,
        (i / 20) % 20
    ))
}

/// Files of some kilobytes in directories of 20, with a few commits.
fn make(user: &Path, files: usize) {
    std::fs::create_dir_all(user).unwrap();
    git(user, &["init", "--quiet", "--initial-branch=main"]);
    for i in 0..files {
        let path = user.join(file_name(i));
        if i % 20 == 0 {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        let lines: String = (0..60 + i % 60)
            .map(|line| format!("fn function_{i}_{line}() -> u64 {{ {} }}\n", i * line))
            .collect();
        std::fs::write(path, lines).unwrap();
    }
    git(user, &["add", "--all"]);
    git(user, &["commit", "--quiet", "-m", "start"]);
    for round in 0..10 {
        for i in 0..20 {
            let path = user.join(file_name(i * 311 + round));
            let mut text = std::fs::read_to_string(&path).unwrap();
            text.push_str("// more\n");
            std::fs::write(path, text).unwrap();
        }
        git(user, &["commit", "--quiet", "-am", "more"]);
    }
}
