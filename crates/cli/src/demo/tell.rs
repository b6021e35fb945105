//! What the demo says.

use super::{
    probe::{Report, Tried},
    repository::Variant,
};
use crate::{
    exit::Exit,
    view::{
        paint::{BAD, FAINT, GOOD, LOOK, STRONG, paint},
        result,
        story::Story,
        table::{self, Cell},
        text,
    },
};
use domain::{RequestId, entity::Verdict};
use std::path::Path;

/// How the tests of the first commit went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tests {
    /// The command.
    pub(crate) command: String,
    /// Whether they passed.
    pub(crate) passed: bool,
}

/// What was seen of the probe, outside and inside of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probed {
    /// What it said outside.
    pub(crate) outside: Report,
    /// What it said inside, if it ran there.
    pub(crate) inside: Option<Report>,
    /// Whether anybody came to the port, or wrote the file, after it ran outside.
    pub(crate) touched: bool,
    /// Whether the content of the file reached the model.
    pub(crate) heard: bool,
}

impl Probed {
    /// Whether the sandbox held: everything was tried inside and refused, and nothing shows that
    /// it was not.
    pub(crate) fn is_sealed(&self) -> bool {
        let refused = |tried: &Tried| matches!(tried, Tried::Refused(_));
        !self.touched
            && !self.heard
            && self.inside.as_ref().is_some_and(|inside| {
                refused(&inside.read) && refused(&inside.network) && refused(&inside.write)
            })
    }
}

/// Before it starts.
pub(crate) fn opening(variant: Variant, repository: &Path, tests: &Tests) -> String {
    format!(
        "A small {} repository with bugs, in {}: `{}` {}.\n{} no real model: the answers are scripted. \
         All else is real: sandboxes, checks, merges.\n\n",
        variant.name(),
        repository.display(),
        tests.command,
        if tests.passed {
            paint(GOOD, "passes")
        } else {
            paint(BAD, "fails")
        },
        paint(LOOK, "note:"),
    )
}

/// What happened that is worth a second look: `files` are those that each job changed.
pub(crate) fn seen(story: &Story, files: &[(String, Vec<String>)]) -> String {
    let mut lines = Vec::new();
    for job in &story.jobs {
        let failed = job
            .attempts
            .iter()
            .flat_map(|attempt| &attempt.checks)
            .find(|check| !check.merged && check.evidence.verdict == Verdict::Failed);
        if let (Some(check), Some(true)) = (failed, job.outcome()) {
            lines.push(format!(
                "{}: its first change failed the check `{}`; the findings went back, and it was repaired",
                text::line(&job.name),
                text::line(&check.evidence.check)
            ));
        }
    }
    for (at, (name, own)) in files.iter().enumerate() {
        for (other, others) in files.iter().skip(at + 1) {
            for path in own.iter().filter(|path| others.contains(path)) {
                lines.push(format!(
                    "{} and {}: both changed {}, and both landed",
                    text::line(name),
                    text::line(other),
                    text::line(path)
                ));
            }
        }
    }
    for job in &story.jobs {
        let waited: Vec<String> = job
            .after
            .iter()
            .filter_map(|id| story.job(*id))
            .map(|other| text::line(&other.name))
            .collect();
        if !waited.is_empty() && job.outcome() == Some(true) {
            lines.push(format!(
                "{}: began when the changes of {} were integrated, from all of them",
                text::line(&job.name),
                waited.join(", ")
            ));
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    format!("\n{}\n{lines}", result::heading("what to see in it"))
}

/// What the probe could do outside, and what it could do inside.
pub(crate) fn probe(probed: &Probed, width: usize) -> String {
    let Some(inside) = &probed.inside else {
        return format!(
            "\n{}\n  It did not run inside a sandbox.\n",
            result::heading("the probe")
        );
    };
    let mut rows = vec![vec![
        Cell::default(),
        Cell::styled(FAINT, "without a sandbox"),
        Cell::styled(FAINT, "as the agent of `money`"),
    ]];
    for (what, outside, inside) in [
        (
            "read a file of this machine",
            &probed.outside.read,
            &inside.read,
        ),
        (
            "reach a port of this machine",
            &probed.outside.network,
            &inside.network,
        ),
        (
            "write outside of its workspace",
            &probed.outside.write,
            &inside.write,
        ),
    ] {
        rows.push(vec![what.into(), tried(outside), tried(inside)]);
    }
    let mut out = format!(
        "\n{}\n{}",
        result::heading("the probe"),
        table::render(&rows, 2, width)
    );
    if probed.is_sealed() {
        out.push_str(
            "  Seen from outside too: nobody came to the port, nothing was written, and what is in\n  \
             the file never reached the model.\n",
        );
    } else {
        out.push_str(&format!(
            "  {}\n",
            paint(
                BAD,
                "The sandbox did not hold. Do not run agents here; please report it."
            )
        ));
    }
    out
}

fn tried(tried: &Tried) -> Cell {
    match tried {
        Tried::Done => Cell::styled(LOOK, "done"),
        Tried::Refused(why) if why.is_empty() => Cell::styled(GOOD, "refused"),
        Tried::Refused(why) => Cell::styled(GOOD, format!("refused: {}", text::line(why))),
        Tried::Unknown => Cell::styled(BAD, "not said"),
    }
}

/// What to do next.
pub(crate) fn closing(
    tests: &Tests,
    exit: Exit,
    request: RequestId,
    kept: Option<&Path>,
) -> String {
    let mut out = String::from("\n");
    if exit == Exit::Done {
        out.push_str(&format!(
            "`{}` {} at the first commit, and {} on skep/integration.\n",
            tests.command,
            paint(BAD, "fails"),
            paint(GOOD, "passes")
        ));
    }
    out.push_str(&format!("{}\n", paint(STRONG, "try next")));
    let rows: Vec<(String, &str)> = match kept {
        Some(at) => {
            let at = at.display();
            vec![
                (
                    format!("git -C {at} log --graph skep/integration"),
                    "the commits",
                ),
                (format!("skep show {request}"), "the evidence"),
                (format!("skep -C {at} apply"), "take it onto main"),
            ]
        }
        None => vec![
            (
                "skep demo --dir worklog".into(),
                "keep the repository, and look around",
            ),
            (
                "skep doctor".into(),
                "see what works here, and which models are set",
            ),
            (
                "skep run \"what you want done\"".into(),
                "in a repository of yours",
            ),
        ],
    };
    out.push_str(&result::commands(&rows));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{paint::plain, sample};

    fn report(tried: &Tried) -> Report {
        Report {
            read: tried.clone(),
            network: tried.clone(),
            write: tried.clone(),
        }
    }

    fn probed() -> Probed {
        Probed {
            outside: report(&Tried::Done),
            inside: Some(report(&Tried::Refused("No such file or directory".into()))),
            touched: false,
            heard: false,
        }
    }

    #[test]
    fn the_probe_is_shown_outside_and_inside() {
        insta::assert_snapshot!("demo_probe", plain(&probe(&probed(), 100)));
    }

    #[test]
    fn a_sandbox_that_did_not_hold_is_not_praised() {
        for broken in [
            Probed {
                touched: true,
                ..probed()
            },
            Probed {
                heard: true,
                ..probed()
            },
            Probed {
                inside: None,
                ..probed()
            },
            Probed {
                inside: Some(report(&Tried::Done)),
                ..probed()
            },
            Probed {
                inside: Some(report(&Tried::Unknown)),
                ..probed()
            },
        ] {
            assert!(!broken.is_sealed());
            assert!(!probe(&broken, 100).contains("Seen from outside too"));
        }
    }

    #[test]
    fn what_is_worth_a_second_look_is_pointed_out() {
        let files = vec![
            ("durations".to_owned(), vec!["a.py".to_owned()]),
            (
                "money".to_owned(),
                vec!["a.py".to_owned(), "b.py".to_owned()],
            ),
        ];
        insta::assert_snapshot!("demo_seen", plain(&seen(&sample::done(), &files)));
        assert_eq!(seen(&Story::new(sample::REQUEST), &[]), "");
    }

    #[test]
    fn the_end_names_three_commands() {
        let tests = Tests {
            command: "python3 -m unittest".into(),
            passed: false,
        };
        let of = |kept| plain(&closing(&tests, Exit::Done, sample::REQUEST, kept));
        insta::assert_snapshot!(
            "demo_closing",
            format!("{}{}", of(None), of(Some(Path::new("/tmp/worklog"))))
        );
    }
}
