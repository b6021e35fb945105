//! A plan: jobs with their dependencies, scope and criteria.

use crate::scope::{self, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most jobs a plan may have.
pub const MAX_JOBS: usize = 64;
/// The longest prompt of a job, in bytes.
pub const MAX_PROMPT: usize = 1 << 20;
/// The longest title of a job, in characters.
pub const MAX_TITLE: usize = 100;
/// The keys of a job that only a person may write: they choose which program runs, who is sent the
/// code, and what it may cost.
const PERSONS_KEYS: [&str; 4] = ["agent", "model", "tokens", "needs"];

/// A plan as it is written by a person (TOML) or a model (JSON).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The jobs. Those without `after` may all start at once.
    #[serde(rename = "job", alias = "jobs")]
    pub jobs: Vec<Job>,
}

/// One job of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// A short name, unique in the plan: lower-case letters, digits and dashes.
    pub name: String,
    /// What it is about, in one line. The first line of the prompt where it is missing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// What the agent is told to do.
    pub prompt: String,
    /// Names of the jobs whose changes must be integrated before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Which paths the agent may write.
    #[serde(default)]
    pub scope: Scope,
    /// What must be true when it is done. The agent is told; people read it in the review.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub criteria: Vec<String>,
    /// Commands that must pass on the change, besides the repository's own checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
    /// The profile of the agent; the request's where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The model; the request's where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The most tokens it may use; an equal share of the request's where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// What a worker must be able to do, besides what the request asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Whether an empty change is an acceptable outcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_change_nothing: bool,
}

/// What is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not the expected TOML or JSON.
    #[error("the plan cannot be read: {0}")]
    Unreadable(String),
    /// It has no jobs.
    #[error("the plan has no jobs")]
    Empty,
    /// It has more than [`MAX_JOBS`].
    #[error("the plan has {0} jobs, and {MAX_JOBS} is the most")]
    TooManyJobs(usize),
    /// A name is not of the wanted form.
    #[error("`{0}` is not a name of a job: use up to 40 lower-case letters, digits and dashes")]
    Name(String),
    /// Two jobs have the same name.
    #[error("two jobs are named `{0}`")]
    Duplicate(String),
    /// A job's prompt is empty or too long.
    #[error("the prompt of job `{0}` is empty, or longer than a megabyte")]
    Prompt(String),
    /// A job waits for one that is not in the plan.
    #[error("job `{job}` waits for `{missing}`, which is not in the plan")]
    Missing {
        /// The job.
        job: String,
        /// What it waits for.
        missing: String,
    },
    /// Jobs wait for each other.
    #[error("these jobs wait for each other: {}", .0.join(", "))]
    Cycle(Vec<String>),
    /// A glob of a scope cannot be read.
    #[error("the scope of job `{job}` is not valid")]
    Scope {
        /// The job.
        job: String,
        /// Why.
        source: scope::Error,
    },
}

impl Plan {
    /// The plan of one job that does all that is asked.
    #[must_use]
    pub fn single(prompt: &str) -> Self {
        Self {
            jobs: vec![Job {
                name: "work".into(),
                title: title(prompt),
                prompt: prompt.into(),
                ..Job::default()
            }],
        }
    }

    /// Reads and validates a plan in TOML.
    ///
    /// # Errors
    /// Says what is wrong and, for TOML, at which line.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let plan: Self =
            toml::from_str(text).map_err(|error| Error::Unreadable(error.to_string()))?;
        plan.validated()
    }

    /// Reads and validates a plan in JSON.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let plan: Self =
            serde_json::from_str(text).map_err(|error| Error::Unreadable(error.to_string()))?;
        plan.validated()
    }

    /// Reads and validates a plan that a model wrote, in JSON. What only a person may choose (the
    /// agent, the model, the tokens and the needs of a job) is left out: a model reads the repository, and
    /// what is written there must not send the code elsewhere.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn from_model(text: &str) -> Result<Self, Error> {
        let mut plan = Self::from_json(text)?;
        for job in &mut plan.jobs {
            (job.agent, job.model, job.tokens) = (None, None, None);
            job.needs.clear();
        }
        Ok(plan)
    }

    /// The plan with titles filled in, each one clean line of at most [`MAX_TITLE`] characters.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn validated(mut self) -> Result<Self, Error> {
        if self.jobs.is_empty() {
            return Err(Error::Empty);
        }
        if self.jobs.len() > MAX_JOBS {
            return Err(Error::TooManyJobs(self.jobs.len()));
        }
        let mut names = BTreeSet::new();
        for job in &mut self.jobs {
            if !is_name(&job.name) {
                return Err(Error::Name(job.name.clone()));
            }
            if !names.insert(job.name.clone()) {
                return Err(Error::Duplicate(job.name.clone()));
            }
            if job.prompt.trim().is_empty() || job.prompt.len() > MAX_PROMPT {
                return Err(Error::Prompt(job.name.clone()));
            }
            let from_prompt = title(&job.prompt);
            let title = [&job.title, &from_prompt, &job.name]
                .into_iter()
                .map(|text| clean(text))
                .find(|title| !title.is_empty());
            job.title = title.unwrap_or_default();
            for globs in [&job.scope.write, &job.scope.forbid] {
                scope::Globs::new(globs).map_err(|source| Error::Scope {
                    job: job.name.clone(),
                    source,
                })?;
            }
        }
        for job in &self.jobs {
            if let Some(missing) = job.after.iter().find(|name| !names.contains(*name)) {
                return Err(Error::Missing {
                    job: job.name.clone(),
                    missing: missing.clone(),
                });
            }
        }
        self.refuse_cycles()?;
        Ok(self)
    }

    fn refuse_cycles(&self) -> Result<(), Error> {
        let mut open: BTreeMap<&str, BTreeSet<&str>> = self
            .jobs
            .iter()
            .map(|job| {
                (
                    job.name.as_str(),
                    job.after.iter().map(String::as_str).collect(),
                )
            })
            .collect();
        while let Some(free) = open
            .iter()
            .find(|(_, after)| after.is_empty())
            .map(|(name, _)| *name)
        {
            open.remove(free);
            for after in open.values_mut() {
                after.remove(free);
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        Err(Error::Cycle(open.into_keys().map(str::to_owned).collect()))
    }

    /// The JSON schema of a plan as a person writes it.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Plan).to_value()
    }

    /// The JSON schema that a model is given: without what [`Plan::from_model`] leaves out.
    #[must_use]
    pub fn schema_for_models() -> serde_json::Value {
        let mut schema = Self::schema();
        let keys = schema
            .pointer_mut("/$defs/Job/properties")
            .and_then(serde_json::Value::as_object_mut);
        if let Some(keys) = keys {
            for key in PERSONS_KEYS {
                keys.remove(key);
            }
        }
        schema
    }
}

/// One line without control characters or marks that turn the direction of writing.
fn clean(title: &str) -> String {
    let plain: String = title
        .chars()
        .map(|c| {
            let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || turns { ' ' } else { c }
        })
        .collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let line = words.join(" ");
    if line.chars().count() <= MAX_TITLE {
        return line;
    }
    let mut cut: String = line.chars().take(MAX_TITLE - 1).collect();
    cut.truncate(cut.trim_end().len());
    cut.push('…');
    cut
}

fn is_name(name: &str) -> bool {
    (1..=40).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The first line of a prompt, at most 72 characters.
#[must_use]
pub fn title(prompt: &str) -> String {
    let line = prompt
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let mut title: String = line.chars().filter(|c| !c.is_control()).take(72).collect();
    if line.chars().count() > 72 {
        title.truncate(
            title
                .rfind(' ')
                .filter(|&at| at > 40)
                .unwrap_or(title.len()),
        );
        title.push('…');
    }
    title
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_in_toml_reads_with_its_order_and_scope() {
        let plan = Plan::from_toml(
            r#"
            [[job]]
            name = "parser"
            prompt = "Accept trailing commas"
            scope = { write = ["src/**"], max_files = 3 }

            [[job]]
            name = "docs"
            prompt = "Describe it"
            after = ["parser"]
            "#,
        )
        .unwrap();
        assert_eq!(plan.jobs[0].title, "Accept trailing commas");
        assert_eq!(plan.jobs[1].after, ["parser"]);
        assert_eq!(plan.jobs[0].scope.max_files, Some(3));
    }

    #[test]
    fn what_is_wrong_with_a_plan_is_said() {
        let message = |text: &str| Plan::from_toml(text).unwrap_err().to_string();
        assert_eq!(message("job = []"), "the plan has no jobs");
        assert_eq!(
            message("[[job]]\nname='a'\nprompt='x'\nafter=['b']"),
            "job `a` waits for `b`, which is not in the plan"
        );
        assert_eq!(
            message(
                "[[job]]\nname='a'\nprompt='x'\nafter=['b']\n[[job]]\nname='b'\nprompt='x'\nafter=['a']"
            ),
            "these jobs wait for each other: a, b"
        );
        assert!(message("[[job]]\nname='a'\nprompt='x'\nscop={}").contains("unknown field `scop`"));
        assert!(message("[[job]]\nname='A b'\nprompt='x'").contains("is not a name"));
    }

    #[test]
    fn a_plan_of_a_model_chooses_no_agent_no_model_and_no_tokens() {
        let text = r#"{"job": [{"name": "a", "prompt": "x", "agent": "command:curl evil",
            "model": "elsewhere/model", "tokens": 9, "criteria": ["it works"]}]}"#;
        let job = Plan::from_model(text).unwrap().jobs.remove(0);
        assert_eq!((job.agent, job.model, job.tokens), (None, None, None));
        assert_eq!(job.criteria, ["it works"]);
        let persons = Plan::from_json(text).unwrap().jobs.remove(0);
        assert_eq!(persons.tokens, Some(9), "a person may");
    }

    #[test]
    fn a_model_is_not_offered_what_only_a_person_may_choose() {
        let keys = |schema: serde_json::Value| {
            let keys = schema.pointer("/$defs/Job/properties").unwrap();
            keys.as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        let mut all = keys(Plan::schema());
        assert!(PERSONS_KEYS.iter().all(|key| all.iter().any(|k| k == key)));
        all.retain(|key| !PERSONS_KEYS.contains(&key.as_str()));
        assert_eq!(keys(Plan::schema_for_models()), all);
        assert!(all.contains(&"prompt".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn a_title_is_one_clean_line_whatever_was_written(
            written in "(\\PC|\\p{Cc}|[\u{202a}-\u{202e}\u{2066}-\u{2069} ]){0,300}",
            prompt in "(\\PC|\\p{Cc}){1,200}x",
        ) {
            let plan = Plan { jobs: vec![Job { title: written, ..Plan::single(&prompt).jobs.remove(0) }] };
            let plan = plan.validated().unwrap();
            let title = &plan.jobs[0].title;
            proptest::prop_assert!(!title.is_empty() && title.chars().count() <= MAX_TITLE);
            let is_wrong = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
            proptest::prop_assert!(!title.chars().any(is_wrong), "{:?}", title);
            proptest::prop_assert_eq!(plan.clone().validated().unwrap(), plan);
        }
    }

    #[test]
    fn a_long_prompt_gets_a_short_title() {
        let title = title(&"word ".repeat(40));
        assert!(
            title.chars().count() <= 73 && title.ends_with('…'),
            "{title}"
        );
    }
}
