//! What the agent that is any program promises.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::time::Duration;

use skep_agents::event::AgentEvent;
use skep_agents::profile::Profile;
use skep_agents::{CheckNote, Context, Error, Gateway, Input, Outcome, Stopped, Task};
use support::{Host, Record, in_time};
use tokio_util::sync::CancellationToken;

fn context(record: &Record) -> Context<'_> {
    Context {
        exec: &Host,
        model: None,
        observer: record,
        recorded: None,
        cancel: CancellationToken::new(),
        env: support::environment(std::path::Path::new("/nonexistent")),
        gateway: None,
    }
}

async fn run(script: &str, task: Task, input: Input, context: &Context<'_>) -> Outcome {
    let profile = Profile::named("command").unwrap();
    let argv = ["/bin/sh", "-c", script].map(Into::into).to_vec();
    let mut session = profile.agent(Some(argv)).unwrap().start(task);
    in_time(session.turn(input, context)).await
}

fn texts(record: &Record) -> String {
    let events = record.events.lock().unwrap();
    events
        .iter()
        .filter_map(|event| match event {
            AgentEvent::Text { text } => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn it_gets_the_task_as_input_and_its_exit_code_decides() {
    let dir = tempfile::tempdir().unwrap();
    let mut task = Task::new("Say hello.", dir.path());
    task.checks.push(CheckNote {
        name: "test".into(),
        command: "make test".into(),
    });
    let record = Record::default();
    let outcome = run(
        "cat > asked; printf 'one\\ntwo'",
        task.clone(),
        Input::Task,
        &context(&record),
    )
    .await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    assert_eq!(outcome.summary, "one\ntwo");
    assert_eq!(texts(&record), "one\ntwo\n");
    let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
    assert!(
        asked.starts_with("Say hello.") && asked.contains("- test: make test"),
        "{asked}"
    );
    let feedback = Input::Feedback("it fails".into());
    run("cat > asked", task.clone(), feedback, &context(&record)).await;
    let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
    assert!(
        asked.contains("Say hello.") && asked.contains("it fails"),
        "{asked}"
    );
    let outcome = run("echo why >&2; exit 7", task, Input::Task, &context(&record)).await;
    let Stopped::Failed(Error::Program { exit, said }) = outcome.stopped else {
        panic!()
    };
    assert_eq!((exit.as_str(), said.as_str()), ("exit code 7", "why"));
}

#[tokio::test]
async fn it_is_told_the_gateway_and_no_secret_only_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let record = Record::default();
    let show = "echo \"$OPENAI_BASE_URL $ANTHROPIC_BASE_URL\"";
    let task = Task::new("x", dir.path());
    run(show, task.clone(), Input::Task, &context(&record)).await;
    let mut with = context(&record);
    with.gateway = Some(Gateway {
        url: "http://127.0.0.1:1".into(),
        model: "m".into(),
    });
    run(show, task, Input::Task, &with).await;
    assert_eq!(
        texts(&record),
        " \nhttp://127.0.0.1:1/v1 http://127.0.0.1:1\n"
    );
}

#[tokio::test]
async fn a_prompt_can_be_an_argument() {
    let dir = tempfile::tempdir().unwrap();
    let profile = Profile::parse(
        "name = 'mine'\nsummary = ''\nadapter = 'command'\ndialects = []\n\
         [run]\nargv = ['/bin/echo', 'go:', '{prompt}']\nprompt = 'argument'",
    )
    .unwrap();
    let record = Record::default();
    let agent = profile.agent(None).unwrap();
    let mut session = agent.start(Task::new("{model} it", dir.path()));
    let outcome = in_time(session.turn(Input::Task, &context(&record))).await;
    assert!(outcome.summary.starts_with("go: {model} it"), "{outcome:?}");
}

#[tokio::test]
async fn long_output_is_shown_in_part_and_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let record = Record::default();
    let task = Task::new("x", dir.path());
    let script =
        "x=$(head -c 20000 /dev/zero | tr '\\0' x); yes $x | head -c 6000000; echo; echo end";
    let outcome = run(script, task, Input::Task, &context(&record)).await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    assert!(outcome.summary.ends_with("x\nend") && outcome.summary.len() <= 2000);
    let shown = texts(&record);
    assert!(shown.len() <= 4 << 20);
    assert_eq!(shown.lines().next().unwrap().len(), 8 << 10);
}

// docs/bad-input.md: An agent that prints a gigabyte
#[tokio::test]
async fn a_flood_of_output_is_not_recorded_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let record = Record::default();
    let task = Task::new("x", dir.path());
    let script = "x=$(head -c 5000 /dev/zero | tr '\\0' x); yes $x | head -c 6000000";
    let outcome = run(script, task, Input::Task, &context(&record)).await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    assert!(texts(&record).len() <= 4 << 20);
    assert_eq!(
        record
            .kinds()
            .iter()
            .filter(|kind| *kind == "error")
            .count(),
        1
    );
}

#[tokio::test]
async fn its_time_is_limited() {
    let dir = tempfile::tempdir().unwrap();
    let record = Record::default();
    let mut task = Task::new("x", dir.path());
    task.limits.wall = Duration::from_secs(1);
    let outcome = run(
        "echo begun; sleep 600",
        task,
        Input::Task,
        &context(&record),
    )
    .await;
    assert!(matches!(outcome.stopped, Stopped::TimeLimit), "{outcome:?}");
    assert_eq!(texts(&record), "begun\n");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let record = Record::default();
    let agent = Profile::named("command")
        .unwrap()
        .agent(Some(vec!["no-such-program".into()]))
        .unwrap();
    let mut session = agent.start(Task::new("x", dir.path()));
    let outcome = in_time(session.turn(Input::Task, &context(&record))).await;
    let Stopped::Failed(Error::Exec(error)) = outcome.stopped else {
        panic!()
    };
    assert!(error.to_string().contains("no-such-program"));
}
