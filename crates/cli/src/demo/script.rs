//! What the scripted model answers: a pure function of the conversation.

use domain::plan::Plan;
use serde::Deserialize;

/// Why a script cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not what it should be.
    #[error("the script of the demo cannot be read")]
    Unreadable(#[from] toml::de::Error),
    /// Its plan is not valid.
    #[error("the plan of the demo is not valid")]
    Plan(#[from] domain::plan::Error),
    /// A job of the plan has no script.
    #[error("the script of the demo has nothing for the job `{0}`")]
    Missing(String),
    /// A step says both or neither of what to run and what to edit.
    #[error("step {step} of `{job}` needs either `shell` or `edit`")]
    Step {
        /// The job.
        job: String,
        /// The step, from one, over all rounds.
        step: usize,
    },
}

/// The script: for each job, what the model does in each round.
#[derive(Debug)]
pub(crate) struct Script {
    jobs: Vec<Job>,
}

#[derive(Debug)]
struct Job {
    #[cfg(test)]
    name: String,
    /// The line of the prompt by which the job is known.
    mark: String,
    rounds: Vec<Round>,
}

#[derive(Debug)]
struct Round {
    findings: Option<String>,
    steps: Vec<(String, Tool)>,
    finish: String,
}

/// What a tool is called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tool {
    /// The tool `shell`.
    Shell(String),
    /// The tool `edit`, for a piece of a file.
    Replace {
        /// The file.
        path: String,
        /// What is there.
        old: String,
        /// What comes in its place.
        new: String,
    },
    /// The tool `edit`, for a whole file.
    Write {
        /// The file.
        path: String,
        /// What will be in it.
        content: String,
    },
}

impl Tool {
    /// The tool's name, and its arguments as the built-in agent wants them.
    pub(crate) fn call(&self) -> (&'static str, serde_json::Value) {
        match self {
            Self::Shell(command) => ("shell", serde_json::json!({ "command": command })),
            Self::Replace { path, old, new } => (
                "edit",
                serde_json::json!({ "path": path, "old": old, "new": new }),
            ),
            Self::Write { path, content } => (
                "edit",
                serde_json::json!({ "path": path, "content": content }),
            ),
        }
    }
}

/// An answer of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It says something and calls a tool.
    Call {
        /// What it says.
        say: String,
        /// What it calls.
        tool: Tool,
    },
    /// It has finished.
    Finish(String),
}

/// What the model is told: as much of it as the script looks at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conversation(pub(crate) Vec<Message>);

/// A message of the conversation.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    /// From the one who asks: the task, or what the checks found.
    User(String),
    /// From the model itself.
    Assistant,
}

impl Script {
    /// Reads a script for this plan; `{{probe}}` stands for a command.
    pub(crate) fn read(text: &str, plan: Plan, probe: &str) -> Result<Self, Error> {
        let mut written: Written = toml::from_str(text)?;
        let mut jobs = Vec::new();
        for planned in plan.jobs {
            let at = written
                .job
                .iter()
                .position(|job| job.name == planned.name)
                .ok_or_else(|| Error::Missing(planned.name.clone()))?;
            let job = written.job.swap_remove(at);
            let mark = planned
                .prompt
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or_default()
                .to_owned();
            let mut count = 0;
            let rounds = job
                .round
                .into_iter()
                .map(|round| {
                    let steps = round
                        .step
                        .into_iter()
                        .map(|step| {
                            count += 1;
                            step.tool(probe).ok_or_else(|| Error::Step {
                                job: planned.name.clone(),
                                step: count,
                            })
                        })
                        .collect::<Result<_, _>>()?;
                    Ok(Round {
                        findings: round.findings,
                        steps,
                        finish: round.finish,
                    })
                })
                .collect::<Result<_, Error>>()?;
            jobs.push(Job {
                #[cfg(test)]
                name: planned.name,
                mark,
                rounds,
            });
        }
        Ok(Self { jobs })
    }

    /// What the model says next.
    ///
    /// # Errors
    /// In words for whoever asked, when the conversation is not about a job of the demo.
    pub(crate) fn answer(&self, conversation: &Conversation) -> Result<Answer, String> {
        let mut task = None;
        let mut last = "";
        let (mut round, mut step) = (0, 0);
        for message in &conversation.0 {
            match message {
                Message::User(text) => {
                    if task.is_some() {
                        round += 1;
                    } else {
                        task = self.jobs.iter().find(|job| text.contains(&job.mark));
                    }
                    last = text;
                    step = 0;
                }
                Message::Assistant => step += 1,
            }
        }
        let job = task.ok_or("this model is a script: it knows only the four jobs of the demo")?;
        let Some(round) = job.rounds.get(round) else {
            return Ok(Answer::Finish("I have nothing more to try.".into()));
        };
        if let Some(wanted) = &round.findings
            && !last.contains(wanted.as_str())
        {
            let words = format!("The findings do not name `{wanted}`: I do not know what to mend.");
            return Ok(Answer::Finish(words));
        }
        Ok(match round.steps.get(step) {
            Some((say, tool)) => Answer::Call {
                say: say.clone(),
                tool: tool.clone(),
            },
            None => Answer::Finish(round.finish.clone()),
        })
    }

    /// The files that a job edits.
    #[cfg(test)]
    pub(crate) fn paths(&self, name: &str) -> Vec<&str> {
        self.jobs
            .iter()
            .filter(|job| job.name == name)
            .flat_map(|job| &job.rounds)
            .flat_map(|round| &round.steps)
            .filter_map(|(_, tool)| match tool {
                Tool::Shell(_) => None,
                Tool::Replace { path, .. } | Tool::Write { path, .. } => Some(path.as_str()),
            })
            .collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    job: Vec<WrittenJob>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenJob {
    name: String,
    round: Vec<WrittenRound>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRound {
    /// What the findings must name for this round to make sense.
    findings: Option<String>,
    step: Vec<WrittenStep>,
    finish: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    say: String,
    shell: Option<String>,
    edit: Option<WrittenEdit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEdit {
    path: String,
    old: Option<String>,
    new: Option<String>,
    content: Option<String>,
}

impl WrittenStep {
    fn tool(self, probe: &str) -> Option<(String, Tool)> {
        let tool = match (self.shell, self.edit) {
            (Some(command), None) => Tool::Shell(command.trim().replace("{{probe}}", probe)),
            (None, Some(edit)) => match (edit.old, edit.new, edit.content) {
                (Some(old), Some(new), None) => Tool::Replace {
                    path: edit.path,
                    old,
                    new,
                },
                (None, None, Some(content)) => Tool::Write {
                    path: edit.path,
                    content,
                },
                _ => return None,
            },
            _ => return None,
        };
        Some((self.say, tool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = r#"
        [[job]]
        name = "a"
        [[job.round]]
        step = [{ say = "look", shell = "{{probe}}" }, { say = "mend", edit = { path = "f", old = "x", new = "y" } }]
        finish = "done"
        [[job.round]]
        findings = "test_x"
        step = [{ say = "again", shell = "true" }]
        finish = "done again"
    "#;

    fn script() -> Script {
        let plan = Plan::from_toml("[[job]]\nname = 'a'\nprompt = 'Mend the thing'").unwrap();
        Script::read(SCRIPT, plan, "sh probe").unwrap()
    }

    fn answer(messages: &[Message]) -> Result<Answer, String> {
        script().answer(&Conversation(messages.to_vec()))
    }

    fn user(text: &str) -> Message {
        Message::User(text.into())
    }

    #[test]
    fn the_place_in_the_conversation_decides_the_answer() {
        let task = user("Task: Mend the thing, please");
        let Answer::Call { tool, .. } = answer(std::slice::from_ref(&task)).unwrap() else {
            panic!("no call");
        };
        assert_eq!(tool, Tool::Shell("sh probe".into()));
        let Answer::Call { tool, .. } = answer(&[task.clone(), Message::Assistant]).unwrap() else {
            panic!("no call");
        };
        assert_eq!(tool.call().0, "edit");
        assert_eq!(
            answer(&[task, Message::Assistant, Message::Assistant]).unwrap(),
            Answer::Finish("done".into())
        );
    }

    #[test]
    fn a_later_round_acts_only_on_findings_that_it_knows() {
        let before = [user("Mend the thing"), Message::Assistant];
        let with = |findings: &str| {
            let mut messages = before.to_vec();
            messages.push(user(findings));
            answer(&messages).unwrap()
        };
        assert!(matches!(with("FAIL: test_x"), Answer::Call { .. }));
        let Answer::Finish(words) = with("FAIL: test_y") else {
            panic!("it acts on what it does not know");
        };
        assert!(words.contains("do not name `test_x`"), "{words}");
    }

    #[test]
    fn a_task_that_is_not_in_the_demo_is_refused() {
        assert!(
            answer(&[user("Write a compiler")])
                .unwrap_err()
                .contains("script")
        );
        assert!(answer(&[]).is_err());
    }
}
