//! `skep run`.

mod header;

pub(crate) use self::header::{About, header};

use self::header::not_seen;

use crate::{
    config::{Budget, MAX_PARALLEL},
    context::Context,
    exit::Exit,
    output::Output,
    report::Error,
    settings::{Flags, Settings},
    signals::Signals,
    sources::{self, Progress},
    view::{
        format,
        result::{self, Fetched, FileStat, Outcome},
    },
    watch::{self, Ended, Note},
};
use domain::{
    Timestamp,
    entity::{Beside, Placement, Planning, Priority},
    plan::Plan,
    time::parse_duration,
};
use sandbox::Kind;
use server::{Chosen, New, Node, Submitted};
use std::{
    io::{self, ErrorKind, IsTerminal as _, Read},
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest plan or prompt that is read, in bytes.
const MAX_INPUT: u64 = 2 << 20;

/// Have agents do what the prompt says, and integrate what passes the checks
///
/// The work starts from HEAD and ends on the branch skep/integration. Nothing else of the
/// repository changes: `skep apply` takes the work, `skep drop` throws it away.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    skep run \"make the parser accept trailing commas\"\n  \
    skep run --model anthropic/claude-opus-5-5 --budget 200k --budget '$2' \"speed up the importer\"\n  \
    skep run --plan plan.toml\n  \
    skep run --repo https://github.com/OWNER/NAME/pull/7 \"add the missing tests\"\n  \
    skep run --repo https://github.com/OWNER/NAME/issues/5\n  \
    skep run --not-before 2h \"try the new release of the parser\"\n  \
    git show HEAD | skep run --plan none -\n\n\
    A model is needed: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or name a provider in\n\
    ~/.config/skep/config.toml. `skep doctor` says what is missing.")]
pub(crate) struct Args {
    /// What should be done; `-` reads it from standard input
    #[arg(required_unless_present_any = ["plan", "repo", "issue"])]
    prompt: Option<String>,
    /// The repository: a path, or a URL to fetch it from (https://, ssh://, USER@HOST:PATH, file://),
    /// with `#BRANCH`, `#TAG` or `@COMMIT` behind it, or the page of a repository, branch, commit, pull
    /// request, merge request or issue at GitHub, GitLab or Forgejo [default: the one of this directory]
    #[arg(long, value_name = "SOURCE")]
    repo: Option<String>,
    /// Start from this branch, tag or commit instead of HEAD, or of a URL's default branch
    #[arg(long = "ref", value_name = "NAME")]
    reference: Option<String>,
    /// Take the text of this issue along: the URL of its page at GitHub, GitLab or Forgejo. The page of
    /// an issue as `--repo` does the same, on its own repository
    #[arg(long, value_name = "URL")]
    issue: Option<String>,
    /// Show another repository beside the work, read-only: a path or URL as for `--repo`, in the
    /// directory /workspace/NAME of every sandbox; may be given several times
    #[arg(long, value_name = "[NAME=]SOURCE")]
    with: Vec<String>,
    /// How it becomes jobs: auto, required, none, or a file with a plan
    #[arg(long, value_name = "HOW", default_value = "auto")]
    plan: String,
    /// Take uncommitted work along, instead of starting from HEAD alone
    #[arg(long)]
    dirty: bool,
    /// The same key is the same request: it is not started twice
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// How soon it is wanted, beside other work on the same data
    #[arg(long, value_name = "PRIORITY", value_enum, default_value_t = Wanted::Interactive)]
    priority: Wanted,
    /// Begin no earlier: a time like 2026-11-27T08:00:00Z, or a span from now like 2h
    #[arg(long, value_name = "TIME", value_parser = begin)]
    not_before: Option<Begin>,
    #[command(flatten)]
    how: How,
}

/// When a request may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    At(Timestamp),
    In(Duration),
}

fn begin(text: &str) -> Result<Begin, String> {
    if let Ok(span) = parse_duration(text) {
        return Ok(Begin::In(span));
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Begin::At(Timestamp(time.as_microsecond()))),
        Err(_) => Err(
            "write a time with its zone, like `2026-11-27T08:00:00Z`, or how long from now, \
             like `2h`"
                .into(),
        ),
    }
}

impl Begin {
    /// The time that is meant. With a key it must be said as one: a span is another time, and so
    /// another request, whenever it is read.
    fn time(self, now: Timestamp, keyed: bool) -> Result<Timestamp, Error> {
        match self {
            Self::At(time) => Ok(time),
            Self::In(_) if keyed => Err(Error::Usage(
                "with `--key`, `--not-before` takes a time like `2026-11-27T08:00:00Z`: a span \
                 from now would be another request each time"
                    .into(),
            )),
            Self::In(span) => Ok(now.plus(span)),
        }
    }
}

/// How soon a request is wanted.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Wanted {
    /// Somebody waits for it
    Interactive,
    /// After what is interactive, unless it has waited for five minutes
    Normal,
    /// After everything else, unless it has waited for an hour
    Background,
}

impl From<Wanted> for Priority {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Interactive => Self::Interactive,
            Wanted::Normal => Self::Normal,
            Wanted::Background => Self::Background,
        }
    }
}

/// What runs the work.
#[derive(Debug, clap::Args)]
pub(crate) struct How {
    /// The agent: builtin, claude-code, or command:PROGRAM [default: $SKEP_AGENT, else builtin]
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// The model, as PROVIDER/NAME or NAME [default: $SKEP_MODEL, else the provider's]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The most to spend: tokens like 200k, money like '$2'; may be given twice
    #[arg(long, value_name = "AMOUNT", value_parser = Budget::parse)]
    budget: Vec<Budget>,
    /// How many jobs run at once [default: $SKEP_PARALLEL, else 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PARALLEL)))]
    parallel: Option<u32>,
    /// The kind of sandbox: namespace, container, or host, which seals nothing
    #[arg(long, value_name = "KIND", value_parser = kind)]
    sandbox: Option<Kind>,
}

pub(super) fn kind(text: &str) -> Result<Kind, String> {
    Kind::named(text).ok_or_else(|| {
        "write `namespace` or `container`, or `host` to run agents unsealed on this machine".into()
    })
}

impl How {
    /// What the flags say.
    pub(crate) fn flags(self) -> Flags {
        Flags {
            agent: self.agent,
            model: self.model,
            budget: self
                .budget
                .into_iter()
                // The last one counts, as with other flags.
                .fold(Budget::default(), |sum, one| one.or(sum)),
            parallel: self.parallel,
            sandbox: self.sandbox,
            image: None,
            host_root: false,
        }
    }
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let origin = sources::read(args.repo.as_deref().unwrap_or("."))?;
    let with = sources::WITH.read(&args.with, context)?;
    let (planning, plan) = planned(&args.plan, &context.directory)?;
    let issue = match &args.issue {
        Some(text) => Some(sources::read(text)?),
        None => sources::is_issue(&origin).then(|| origin.clone()),
    };
    let prompt = match (args.prompt, &plan) {
        (Some(prompt), _) => Some(read_prompt(prompt)?),
        (None, Some(plan)) => Some(
            plan.jobs
                .iter()
                .map(|job| job.title.as_str())
                .collect::<Vec<_>>()
                .join("; "),
        ),
        (None, None) if issue.is_some() => None,
        (None, None) => {
            return Err(Error::Usage(
                "a prompt is needed: say what should be done".into(),
            ));
        }
    };
    let not_before = args
        .not_before
        .map(|begin| begin.time(format::now(), args.key.is_some()))
        .transpose()?;
    let settings = Settings::read(context, args.how.flags())?;
    let mut signals = Signals::listen()?;
    let sandbox = settings.options.sandbox;
    let node = signals.or(Node::open(settings.options)).await??;
    let output = context.output;
    let (prompt, issue) = match &issue {
        Some(issue) => {
            let (prompt, name) = signals.or(node.with_issue(prompt, issue)).await??;
            (prompt, Some(name))
        }
        None => (prompt.unwrap_or_default(), None),
    };
    let progress = Progress::of(&origin, output);
    let reached = node.reach(
        &origin,
        args.reference.as_deref(),
        &context.directory,
        progress.tell(),
    );
    let (path, chosen) = signals.or(reached).await??;
    drop(progress);
    let mut beside: Vec<Beside> = Vec::new();
    for (name, origin) in with {
        let progress = Progress::of(&origin, output);
        let one = node.beside(name, &origin, &context.directory, progress.tell());
        beside.push(signals.or(one).await??);
    }
    let submitted = signals
        .or(node.submit(New {
            path: path.clone(),
            chosen: Chosen {
                issue,
                beside,
                ..chosen
            },
            prompt,
            planning,
            plan,
            agent: settings.agent.clone(),
            model: settings.model,
            budget: settings.budget,
            dirty: args.dirty,
            parallel: settings.parallel,
            placement: Placement {
                priority: args.priority.into(),
                user: context.user(),
                not_before,
                ..Placement::default()
            },
            key: args.key,
            retry_of: None,
        }))
        .await??;
    if !output.is_json() {
        let about = About {
            agent: &settings.agent,
            sandbox,
            devices: node.devices(),
            nested: node.nested(),
            parallel: settings.parallel,
        };
        output.aside(&header(&submitted, &about));
    }
    let note: Option<Note<'_>> = (!args.dirty && !output.is_json())
        .then(|| -> Note<'_> { Box::pin(not_seen(&node, &path)) });
    let exit = to_the_end(&node, &submitted, output, &mut signals, note).await?;
    node.close().await;
    Ok(exit)
}

/// Works on a request until it has ended, and says what came of it.
///
/// # Errors
/// When the ledger fails, or a second signal comes.
pub(crate) async fn to_the_end(
    node: &Node,
    submitted: &Submitted,
    output: Output,
    signals: &mut Signals,
    note: Option<Note<'_>>,
) -> Result<Exit, Error> {
    let (request, session) = (submitted.request, submitted.session);
    let ended = watch::work(node, request, session, output, signals, note).await?;
    outcome(node, submitted, &ended, output).await?;
    Ok(ended.exit)
}

/// Says what came of a request. Programs have it from the events.
///
/// # Errors
/// When the ledger fails, or nobody reads it.
pub(crate) async fn outcome(
    node: &Node,
    submitted: &Submitted,
    ended: &Ended,
    output: Output,
) -> Result<(), Error> {
    let Ended {
        request,
        story,
        exit,
    } = ended;
    let request = *request;
    if output.is_json() || matches!(exit, Exit::OutputClosed | Exit::HungUp) {
        return Ok(());
    }
    let spent = node.ledger().spent(request).await?;
    let files = match node.diff(ledger::Found::Request(request), 0).await {
        Ok(diff) => diff.files.iter().map(stat).collect(),
        // Nothing was integrated.
        Err(_) => Vec::new(),
    };
    let ask = node.ledger().request(request).await?.ask;
    let fetched = ask.sources.url.as_deref().map(|url| Fetched {
        url,
        copy: &ask.repository_path,
        branch: &ask.policy.integration.branch,
    });
    output.say(&result::render(&Outcome {
        fetched,
        request,
        story,
        spent,
        checked: submitted.checked,
        files: &files,
        width: output.width(),
    }))
}

/// A file that changed, as it is shown.
pub(crate) fn stat(file: &server::FileChange) -> FileStat {
    let lines = |count: u64| (!file.binary).then_some(count);
    FileStat {
        path: file.path.to_string(),
        added: lines(file.additions),
        removed: lines(file.deletions),
    }
}

fn planned(how: &str, directory: &Path) -> Result<(Planning, Option<Plan>), Error> {
    match how {
        "auto" => Ok((Planning::Auto, None)),
        "required" => Ok((Planning::Required, None)),
        "none" => Ok((Planning::None, None)),
        file => {
            let path: PathBuf = directory.join(file);
            let text = std::fs::File::open(&path)
                .and_then(bounded_text)
                .map_err(|source| match source.kind() {
                    ErrorKind::NotFound => Error::Usage(format!(
                        "there is no plan at {}: `--plan` takes auto, required, none, or a file",
                        path.display()
                    )),
                    ErrorKind::InvalidData | ErrorKind::FileTooLarge => {
                        Error::Usage(format!("the plan {} is {source}", path.display()))
                    }
                    _ => Error::File {
                        doing: "reading the plan",
                        path: path.clone(),
                        source,
                    },
                })?;
            let plan = Plan::from_toml(&text).map_err(|source| Error::Plan { path, source })?;
            Ok((Planning::Given, Some(plan)))
        }
    }
}

fn read_prompt(prompt: String) -> Result<String, Error> {
    if prompt != "-" {
        return Ok(prompt);
    }
    let input = std::io::stdin();
    if input.is_terminal() {
        Output::new(false).aside("Write what should be done, then press Ctrl-D.\n");
    }
    bounded_text(input.lock()).map_err(|source| match source.kind() {
        ErrorKind::InvalidData | ErrorKind::FileTooLarge => {
            Error::Usage(format!("the prompt on standard input is {source}"))
        }
        _ => Error::System {
            doing: "reading the prompt from standard input",
            source,
        },
    })
}

/// A text of at most [`MAX_INPUT`] bytes. What is longer is refused and not cut: the beginning of a
/// plan may be another plan.
fn bounded_text(from: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_INPUT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_INPUT {
        let words = format!("longer than {MAX_INPUT} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, words));
    }
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "not a text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_begin_is_a_moment_or_a_span_from_now() {
        assert_eq!(begin("2h"), Ok(Begin::In(Duration::from_secs(7_200))));
        let moment = Begin::At(Timestamp(3_600_000_000));
        assert_eq!(begin("1970-01-01T01:00:00Z"), Ok(moment));
        assert_eq!(begin("1970-01-01T02:00:00+01:00"), Ok(moment));
        for wrong in [
            "",
            "soon",
            "-2h",
            "1970-01-01T01:00:00",
            "99999999999999999999d",
        ] {
            assert!(begin(wrong).is_err(), "{wrong}");
        }
        assert!(Begin::In(Duration::ZERO).time(Timestamp(1), true).is_err());
    }

    #[test]
    fn a_plan_is_a_word_or_a_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.toml"), "[[job]]\nname='a'\nprompt='b'").unwrap();
        let planned = |how| planned(how, dir.path());
        assert_eq!(planned("none").unwrap(), (Planning::None, None));
        assert_eq!(planned("p.toml").unwrap().1.unwrap().jobs.len(), 1);
        assert!(matches!(planned("q.toml"), Err(Error::Usage(_))));
        std::fs::write(dir.path().join("p.toml"), "job = []").unwrap();
        assert!(matches!(planned("p.toml"), Err(Error::Plan { .. })));
    }
}
