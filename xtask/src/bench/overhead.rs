//! What a run costs before the model's first call and after its last answer.

use std::time::{Duration, Instant};

use super::{
    figure::{Figure, Report, Samples},
    model::{Answer, Model},
    reference::Watch,
    stage::{DEADLINE, Stage, failed},
};

/// How many runs are measured where the repository has files enough for their changes.
const RUNS: usize = 15;
/// How often it is looked whether a run has ended too early.
const INTERVAL: Duration = Duration::from_millis(500);

/// A size of repository, and the marks on it.
#[derive(Debug)]
pub(crate) struct Size {
    /// Its name, as it ends the names of figures.
    pub(crate) name: &'static str,
    /// How many files it has.
    pub(crate) files: usize,
    first_call: Option<f64>,
    integrate: Option<f64>,
}

/// A hundred files.
pub(crate) const SMALL: Size = Size {
    name: "100",
    files: 100,
    first_call: None,
    integrate: None,
};

/// Ten thousand files.
pub(crate) const MEDIUM: Size = Size {
    name: "10k",
    files: 10_000,
    first_call: Some(80.0),
    integrate: None,
};

/// Ninety thousand files.
pub(crate) const LARGE: Size = Size {
    name: "90k",
    files: 90_000,
    first_call: Some(120.0),
    integrate: Some(120.0),
};

/// The times of one run.
struct Times {
    first_call: Duration,
    integrate: Duration,
    whole: Duration,
}

/// The first run: makes the mirror, the base and the branch.
pub(crate) fn warm(stage: &Stage) -> Result<(), String> {
    let model = Model::start(answers(stage)?)?;
    let (_, run) = stage.start(&model);
    let ran = run.finish(DEADLINE);
    if !ran.status.success() {
        return Err(failed("the first run", &ran));
    }
    stage.holds_all()
}

/// Measures runs with mirror and base present.
pub(crate) fn measure(stage: &Stage, size: &Size, report: &mut Report) -> Result<(), String> {
    let runs = RUNS.min(size.files / super::stage::CHANGED - 1);
    report.doing(&format!("{runs} runs on {} files", size.files));
    let (mut first_call, mut integrate, mut whole) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..runs {
        let times = once(stage)?;
        first_call.push_ms(times.first_call);
        integrate.push_ms(times.integrate);
        whole.push_ms(times.whole);
    }
    stage.holds_all()?;
    let name = size.name;
    report.add(
        Figure::median(format!("first_call_ms_{name}"), "ms", &first_call).mark(size.first_call),
    );
    report
        .add(Figure::median(format!("integrate_ms_{name}"), "ms", &integrate).mark(size.integrate));
    report.add(Figure::median(format!("run_ms_{name}"), "ms", &whole));
    Ok(())
}

fn answers(stage: &Stage) -> Result<Vec<Answer>, String> {
    Ok(vec![
        Answer::Shell(stage.change()?),
        Answer::Say("Appended a line to ten files.".to_owned()),
    ])
}

fn once(stage: &Stage) -> Result<Times, String> {
    let model = Model::start(answers(stage)?)?;
    let watch = Watch::new(&stage.references(), "integration")?;
    let (began, mut run) = stage.start(&model);
    let moved = loop {
        if let Some(moved) = watch.appears(INTERVAL)? {
            break moved;
        }
        if run.ends_within(Duration::ZERO) || began.elapsed() > DEADLINE {
            return Err(failed("the branch did not move", &run.finish(DEADLINE)));
        }
    };
    let ran = run.finish(DEADLINE);
    let ended = Instant::now();
    if !ran.status.success() {
        return Err(failed("a run", &ran));
    }
    let exchanges = model.exchanges();
    let (Some(first), Some(last), 2) = (exchanges.first(), exchanges.last(), exchanges.len())
    else {
        return Err(failed(
            &format!("{} calls of the model, not 2", exchanges.len()),
            &ran,
        ));
    };
    let left = last.left.ok_or("the last answer did not leave")?;
    Ok(Times {
        first_call: first.came.saturating_duration_since(began),
        integrate: moved.saturating_duration_since(left),
        whole: ended.saturating_duration_since(began),
    })
}
