//! What a run holds in memory while its model thinks.

use std::{collections::HashMap, fs, time::Duration};

use super::{
    figure::{Figure, Report, Samples},
    model::{Answer, Model},
    stage::{DEADLINE, Stage, interrupt},
};

/// How often it is looked, and how long apart: a second in all.
const LOOKS: usize = 5;
const APART: Duration = Duration::from_millis(200);

/// Measures a run and every process below it while the first answer is held back.
pub(crate) fn measure(stage: &Stage, report: &mut Report) -> Result<(), String> {
    report.doing("memory of a run that waits");
    let model = Model::start(vec![Answer::Hold])?;
    let (_, mut run) = stage.start(&model);
    if model.first(DEADLINE).is_none() {
        return Err("the model was not called".to_owned());
    }
    let mut samples = Samples::default();
    let mut processes = 0;
    for _ in 0..LOOKS {
        if run.ends_within(APART) {
            return Err("the run ended while its model was thinking".to_owned());
        }
        let all = below(run.pid())?;
        processes = all.len();
        let bytes: u64 = all
            .iter()
            .map(|pid| proportional(*pid))
            .sum::<Result<u64, String>>()?;
        samples.push(bytes as f64 / 1e6);
    }
    interrupt(run)?;
    report.doing(&format!("the run that waits is {processes} processes"));
    report.add(Figure::median("waiting_mb", "MB", &samples).mark(Some(30.0)));
    Ok(())
}

/// A process and all below it.
fn below(top: i32) -> Result<Vec<i32>, String> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let entries = fs::read_dir("/proc").map_err(|error| format!("cannot read /proc: {error}"))?;
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // One that has just ended is passed over.
        if let Ok(stat) = fs::read_to_string(entry.path().join("stat"))
            && let Some((_, rest)) = stat.rsplit_once(')')
            && let Some(parent) = rest
                .split_whitespace()
                .nth(1)
                .and_then(|it| it.parse().ok())
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut all = vec![top];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        all.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(all)
}

/// The proportional memory of a process, in bytes.
fn proportional(pid: i32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {path} (run this as root): {error}"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| {
            rest.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()
        })
        .ok_or_else(|| format!("{path} says no Pss"))?;
    Ok(kib * 1024)
}
