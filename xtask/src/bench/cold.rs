//! The first run ever, beside a clone.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use testkit::{Home, Repo};

use super::{
    figure::{Figure, Report, Samples},
    model::{Answer, Model},
    overhead::MEDIUM,
    stage::{DEADLINE, failed, interrupt, start},
};

/// How many of each are measured.
const RUNS: usize = 7;

/// Measures first runs and clones in turns; the ratio is of neighbours. One of each goes before, so that what they read is in
/// the page cache; what earlier work left to be written is written before each. What they made is
/// deleted only at the end: for a minute ext4 searches past inodes that were just deleted, which
/// makes the next ten thousand files take seconds.
pub(crate) fn measure(binary: &Path, report: &mut Report) -> Result<(), String> {
    report.doing(&format!(
        "{RUNS} first runs and clones of {} files",
        MEDIUM.files
    ));
    let repo = Repo::generated(MEDIUM.files);
    let (mut run, mut clone, mut ratio) =
        (Samples::default(), Samples::default(), Samples::default());
    let homes: Vec<Home> = (0..=RUNS).map(|_| Home::new()).collect();
    for (n, home) in homes.iter().enumerate() {
        let (first, second) = (first_run(binary, home, &repo)?, git_clone(home, &repo)?);
        if n > 0 {
            run.push_ms(first);
            clone.push_ms(second);
            ratio.push(first.as_secs_f64() / second.as_secs_f64());
        }
    }
    let peer = "git clone --local";
    report.add(
        Figure::median("cold_ratio_10k", "ratio", &ratio)
            .mark(Some(1.5))
            .peer(peer, clone.median()),
    );
    report.add(Figure::median("cold_ms_10k", "ms", &run).peer(peer, clone.median()));
    Ok(())
}

/// With nothing but the repository, from before the process starts to its first call of a model.
fn first_run(binary: &Path, home: &Home, repo: &Repo) -> Result<Duration, String> {
    let model = Model::start(vec![Answer::Hold])?;
    rustix::fs::sync();
    let (began, run) = start(binary, home, repo.path(), &model);
    let Some(first) = model.first(DEADLINE) else {
        return Err(failed(
            "the model was not called",
            &run.finish(Duration::ZERO),
        ));
    };
    interrupt(run)?;
    Ok(first.came.saturating_duration_since(began))
}

fn git_clone(home: &Home, repo: &Repo) -> Result<Duration, String> {
    let into = home.root().join("clone");
    rustix::fs::sync();
    let began = Instant::now();
    let ran = home.run(
        "git",
        [
            "clone".as_ref(),
            "--quiet".as_ref(),
            "--local".as_ref(),
            repo.path().as_os_str(),
            into.as_os_str(),
        ],
        home.root(),
        DEADLINE,
    );
    let took = began.elapsed();
    if !ran.status.success() || fs::metadata(into.join("src")).is_err() {
        return Err(failed("git clone --local", &ran));
    }
    Ok(took)
}
