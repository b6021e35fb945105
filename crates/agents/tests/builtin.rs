//! What the built-in agent promises.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::time::Duration;

use dialects::{Dialect, Fault, FaultClass};
use serde_json::{Value, json};
use skep_agents::builtin::{Builtin, Options};
use skep_agents::event::AgentEvent;
use skep_agents::model;
use skep_agents::{Agent, Error, Input, Outcome, Stopped, Task, ToolOutput};
use support::{
    Answer, Interrupted, Record, Recorded, Scripted, call, context, in_time, shell, text,
};
use tokio_util::sync::CancellationToken;

fn task(dir: &tempfile::TempDir) -> Task {
    let mut task = Task::new("Fix it.", dir.path());
    task.limits.command = Duration::from_secs(20);
    task
}

async fn run(dir: &tempfile::TempDir, model: &Scripted, record: &Record) -> Outcome {
    let mut session = Builtin::default().start(task(dir));
    in_time(session.turn(Input::Task, &context(model, record))).await
}

fn edit(path: &str, old: &str, new: &str) -> Answer {
    call("e", "edit", json!({"path": path, "old": old, "new": new}))
}

fn fault(status: u16, class: FaultClass, retry_after: Option<Duration>) -> Answer {
    Answer::Error(model::Error::Provider {
        status,
        fault: Fault {
            class,
            kind: String::new(),
            message: "busy".into(),
        },
        retry_after,
    })
}

#[tokio::test]
async fn it_looks_changes_and_says_what_it_did() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "one\ntwo\n").unwrap();
    let model = Scripted::new([
        shell("1", "cat a.txt; echo oops >&2; exit 3"),
        edit("a.txt", "two", "three"),
        text("I changed two to three."),
    ]);
    let record = Record::default();
    let outcome = run(&dir, &model, &record).await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    assert_eq!(outcome.summary, "I changed two to three.");
    assert_eq!(outcome.turns, 3);
    assert_eq!(outcome.usage.total(), Some(45));
    assert_eq!(
        std::fs::read_to_string(dir.path().join("a.txt")).unwrap(),
        "one\nthree\n"
    );
    assert_eq!(model.last_told(1), "one\ntwo\noops\n[exit code 3]");
    assert_eq!(model.last_told(2), "Replaced the text at line 2 of a.txt.");
    assert_eq!(
        record.kinds(),
        [
            "turn_started",
            "usage",
            "tool_call",
            "tool_result",
            "turn_started",
            "usage",
            "tool_call",
            "tool_result",
            "turn_started",
            "usage",
            "finished",
        ]
    );
    assert_eq!(
        model.request(0)["messages"][0]["content"][0]["text"],
        "Fix it."
    );
}

#[tokio::test]
async fn the_same_work_makes_the_same_requests_whatever_the_dialect() {
    let dir = tempfile::tempdir().unwrap();
    for dialect in Dialect::ALL {
        let mut all = Vec::new();
        for _ in 0..2 {
            let answers = match dialect {
                Dialect::Messages => vec![shell("1", "echo hi"), text("done")],
                Dialect::ChatCompletions => vec![
                    Answer::Body(
                        json!({"choices": [{"message": {"tool_calls": [{"id": "1", "function": {
                        "name": "shell", "arguments": "{\"command\": \"echo hi\"}"}}]}, "finish_reason": "tool_calls"}]}),
                    ),
                    Answer::Body(
                        json!({"choices": [{"message": {"content": "done"}, "finish_reason": "stop"}]}),
                    ),
                ],
            };
            let mut model = Scripted::new(answers);
            model.dialect = dialect;
            let outcome = run(&dir, &model, &Record::default()).await;
            assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
            all.push(model.requests.lock().unwrap().clone());
        }
        assert_eq!(all[0], all[1]);
    }
}

#[tokio::test]
async fn files_are_written_inside_whole_and_with_their_mode() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("run.sh"), "echo 1\r\nexit\r\n").unwrap();
    std::fs::set_permissions(path("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("run.sh", path("link")).unwrap();
    let mut binary = vec![b'\xff'; 1 << 20];
    binary.extend_from_slice("Grüße\0".as_bytes());
    std::fs::write(path("big.bin"), &binary).unwrap();
    std::fs::create_dir(path("dir")).unwrap();
    let model = Scripted::new([
        edit("link", "echo 1\nexit", "echo 2\nexit"),
        edit("big.bin", "Grüße", "Hallo"),
        call(
            "w",
            "edit",
            json!({"path": "new/-rf $(touch x)/a b.txt", "content": "x\n"}),
        ),
        edit("missing", "a", "b"),
        edit("dir", "a", "b"),
        call("w", "edit", json!({"path": "dir", "content": "x"})),
        edit("run.sh", "not there", "b"),
        edit("empty", "", "first\n"),
        call(
            "w",
            "edit",
            json!({"path": dir.path().join("abs"), "content": ""}),
        ),
        text("done"),
    ]);
    let record = Record::default();
    run(&dir, &model, &record).await;
    assert_eq!(
        std::fs::read(path("run.sh")).unwrap(),
        b"echo 2\r\nexit\r\n"
    );
    assert!(path("link").is_symlink());
    assert_eq!(
        std::fs::metadata(path("run.sh"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o755
    );
    let changed = std::fs::read(path("big.bin")).unwrap();
    assert_eq!(changed[..1 << 20], binary[..1 << 20]);
    assert_eq!(&changed[1 << 20..], b"Hallo\0");
    assert_eq!(
        std::fs::read(path("new/-rf $(touch x)/a b.txt")).unwrap(),
        b"x\n"
    );
    assert_eq!(std::fs::read(path("empty")).unwrap(), b"first\n");
    assert_eq!(std::fs::read(path("abs")).unwrap(), b"");
    let results = record.results();
    let oks: Vec<bool> = results.iter().map(|r| r.1).collect();
    assert_eq!(
        oks,
        [true, true, true, false, false, false, false, true, true]
    );
    assert!(
        results[3].0.contains("There is no file missing"),
        "{results:?}"
    );
    assert!(results[4].0.contains("no regular file"), "{results:?}");
    assert!(results[5].0.contains("no regular file"), "{results:?}");
    assert!(results[6].0.contains("`old` was not found"), "{results:?}");
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["abs", "big.bin", "dir", "empty", "link", "new", "run.sh"]
    );
}

#[tokio::test]
async fn a_long_output_is_told_in_part_and_a_slow_command_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([
        shell("1", "seq 1 200000"),
        shell("2", "echo begun; sleep 600"),
        text("done"),
    ]);
    let record = Record::default();
    let mut task = task(&dir);
    task.limits.command = Duration::from_millis(1500);
    let mut session = Builtin::default().start(task);
    let outcome = in_time(session.turn(Input::Task, &context(&model, &record))).await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    let told = model.last_told(1);
    assert!(told.starts_with("1\n2\n3\n"), "{told}");
    assert!(told.ends_with("\n200000\n[exit code 0]"), "{told}");
    assert!(told.len() < 17_000 && told.contains("bytes omitted]"));
    let events = record.events.lock().unwrap();
    let omitted = events.iter().find_map(|e| match e {
        AgentEvent::ToolResult { omitted, .. } => Some(*omitted),
        _ => None,
    });
    assert_eq!(
        omitted.unwrap() as usize + told.len() - "[exit code 0]".len(),
        1_288_895 + told.lines().find(|l| l.contains("omitted")).unwrap().len() + 1
    );
    assert_eq!(
        model.last_told(2),
        "begun\n[stopped: it ran longer than 1 s]"
    );
}

// docs/bad-input.md: Tool calls that do not parse
#[tokio::test]
async fn calls_that_make_no_sense_are_told_to_the_model_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([
        call("1", "browse", json!({})),
        call("2", "shell", json!({"cmd": "ls"})),
        Answer::Bytes(
            concat!(
                "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"3\",\"name\":\"shell\",\"input\":{}}}\n\n",
                "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"command\\\": \\\"ls\"}}\n\n",
                "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\"},\"usage\":{\"output_tokens\":1}}\n\n",
                "data: {\"type\":\"message_stop\"}\n\n",
            )
            .into(),
        ),
        shell("4", "true"),
        call("5", "browse", json!({})),
        call("6", "browse", json!({"a": 1})),
        call("7", "browse", json!({"a": 2})),
        call("8", "browse", json!({"a": 3})),
        call("9", "browse", json!({"a": 4})),
    ]);
    let record = Record::default();
    let outcome = run(&dir, &model, &record).await;
    assert!(
        model.last_told(1).contains("no tool \"browse\""),
        "{}",
        model.last_told(1)
    );
    assert!(
        model.last_told(2).contains("needs `command`"),
        "{}",
        model.last_told(2)
    );
    assert!(
        model.last_told(3).contains("not valid JSON"),
        "{}",
        model.last_told(3)
    );
    // A good one in between starts the count anew.
    assert!(
        matches!(&outcome.stopped, Stopped::Stuck { reason } if reason.contains('5')),
        "{outcome:?}"
    );
    assert_eq!(model.count(), 9);
}

#[tokio::test]
async fn an_empty_or_cut_answer_is_not_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let empty = || {
        Answer::Body(
            json!({"content": [{"type": "thinking", "thinking": "", "signature": "x"}], "stop_reason": "end_turn"}),
        )
    };
    let cut = Answer::Body(
        json!({"content": [{"type": "text", "text": "I think that"}], "stop_reason": "max_tokens"}),
    );
    let model = Scripted::new([empty(), cut, text("done")]);
    let outcome = run(&dir, &model, &Record::default()).await;
    assert!(matches!(outcome.stopped, Stopped::Completed));
    assert!(model.last_told(1).contains("was empty"));
    assert!(model.last_told(2).contains("cut off"));
    let model = Scripted::new([empty(), empty(), empty(), empty(), empty()]);
    let outcome = run(&dir, &model, &Record::default()).await;
    assert!(
        matches!(outcome.stopped, Stopped::Stuck { .. }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn going_in_circles_is_first_told_and_then_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new((0..6).map(|n| shell(&n.to_string(), "cat nothing")));
    let outcome = run(&dir, &model, &Record::default()).await;
    assert!(
        matches!(outcome.stopped, Stopped::Stuck { .. }),
        "{outcome:?}"
    );
    assert!(!model.last_told(2).contains("several times"));
    assert!(model.last_told(3).contains("several times"));
}

#[tokio::test]
async fn an_intent_is_on_record_before_its_tool_runs() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([shell("1", "touch ran")]);
    // The record is full exactly at the call: turn, text pieces, usage come before it.
    let probe = Record::default();
    run(
        &dir,
        &Scripted::new([shell("1", "true"), text("x")]),
        &probe,
    )
    .await;
    let before = {
        let events = probe.events.lock().unwrap();
        events
            .iter()
            .position(|e| support::kind_of(e) == "tool_call")
            .unwrap()
    };
    let record = Record {
        full_after: Some(before),
        ..Record::default()
    };
    let outcome = run(&dir, &model, &record).await;
    assert!(
        matches!(outcome.stopped, Stopped::Failed(Error::Halted(_))),
        "{outcome:?}"
    );
    assert!(!dir.path().join("ran").exists());
}

#[tokio::test(start_paused = true)]
async fn what_passes_by_itself_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([
        fault(529, FaultClass::Overloaded, None),
        fault(429, FaultClass::RateLimit, Some(Duration::from_secs(7))),
        Answer::Error(model::Error::Network {
            reason: "reset".into(),
        }),
        Answer::Broken(
            b"data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1}}}\n\n"
                .into(),
        ),
        Answer::Body(
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}),
        ),
        text("done"),
    ]);
    let record = Record::default();
    let outcome = Builtin::default()
        .start(task(&dir))
        .turn(Input::Task, &context(&model, &record))
        .await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    let events = record.events.lock().unwrap();
    let waits: Vec<u64> = events
        .iter()
        .filter_map(|e| match e {
            AgentEvent::Retry { wait_ms, .. } => Some(*wait_ms),
            _ => None,
        })
        .collect();
    assert_eq!(waits, [1000, 7000, 4000, 8000, 16000]);
    // Every try asks the same.
    assert_eq!(model.request(0), model.request(5));
    assert_eq!(outcome.turns, 1);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_by_itself_fails_at_once_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let run = async |answers: Vec<Answer>| {
        let model = Scripted::new(answers);
        let record = Record::default();
        let mut session = Builtin::default().start(task(&dir));
        let outcome = session.turn(Input::Task, &context(&model, &record)).await;
        (outcome, model.count(), record)
    };
    let (outcome, count, record) = run(vec![fault(401, FaultClass::InvalidKey, None)]).await;
    assert!(
        matches!(outcome.stopped, Stopped::Failed(Error::Model(_))),
        "{outcome:?}"
    );
    assert_eq!(count, 1);
    assert_eq!(record.kinds(), ["turn_started", "error"]);
    let budget = Answer::Error(model::Error::Budget {
        what: "tokens".into(),
    });
    assert!(matches!(run(vec![budget]).await.0.stopped, Stopped::Budget));
    let hour = fault(429, FaultClass::RateLimit, Some(Duration::from_secs(3600)));
    assert!(matches!(
        run(vec![hour]).await.0.stopped,
        Stopped::Failed(Error::Model(_))
    ));
    let page = Answer::Bytes(b"<html>hello</html>".to_vec());
    let (outcome, ..) = run(vec![page]).await;
    assert!(
        matches!(
            outcome.stopped,
            Stopped::Failed(Error::Model(model::Error::Nonsense { .. }))
        ),
        "{outcome:?}"
    );
    let refusal = Answer::Body(
        json!({"content": [{"type": "text", "text": "No."}], "stop_reason": "refusal"}),
    );
    assert!(matches!(
        run(vec![refusal]).await.0.stopped,
        Stopped::Failed(Error::Refused { .. })
    ));
    let (outcome, count, _) = run((0..6)
        .map(|_| fault(529, FaultClass::Overloaded, None))
        .collect())
    .await;
    assert!(
        matches!(outcome.stopped, Stopped::Failed(Error::Model(_))),
        "{outcome:?}"
    );
    assert_eq!(count, 6);
}

// docs/bad-input.md: A model that never answers
#[tokio::test(start_paused = true)]
async fn a_silent_model_ends_with_the_time_of_the_turn() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([Answer::Silence]);
    let outcome = Builtin::default()
        .start(task(&dir))
        .turn(Input::Task, &context(&model, &Record::default()))
        .await;
    assert!(matches!(outcome.stopped, Stopped::TimeLimit), "{outcome:?}");
}

#[tokio::test]
async fn the_steps_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([shell("1", "echo 1"), shell("2", "echo 2")]);
    let mut task = task(&dir);
    task.limits.turns = 2;
    let mut session = Builtin::default().start(task);
    let outcome = in_time(session.turn(Input::Task, &context(&model, &Record::default()))).await;
    assert!(matches!(outcome.stopped, Stopped::TurnLimit), "{outcome:?}");
    assert_eq!(outcome.turns, 2);
}

#[tokio::test]
async fn a_cancelled_tool_is_not_run_again_and_its_result_is_told_as_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([shell("1", "echo x >> ran; sleep 600"), text("I looked.")]);
    let token = CancellationToken::new();
    let record = Record {
        cancel_at: Some(("tool_call", token.clone())),
        ..Record::default()
    };
    let agent = Builtin::default();
    let mut session = agent.start(task(&dir));
    let mut cancelled = context(&model, &record);
    cancelled.cancel = token;
    let outcome = in_time(session.turn(Input::Task, &cancelled)).await;
    assert!(matches!(outcome.stopped, Stopped::Cancelled), "{outcome:?}");
    // Another process continues from the state.
    let mut later = agent.resume(task(&dir), &session.state()).unwrap();
    let record = Record::default();
    let outcome =
        in_time(later.turn(Input::Feedback("go on".into()), &context(&model, &record))).await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    let request = model.request(1);
    let told = &request["messages"][2]["content"];
    assert_eq!(told[0]["tool_use_id"], "1");
    assert!(told[0]["content"].as_str().unwrap().contains("unknown"));
    assert!(told[1]["text"].as_str().unwrap().contains("go on"));
    assert!(agent.resume(task(&dir), b"{}").is_err());
}

#[tokio::test]
async fn a_second_round_continues_the_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([text("done"), shell("1", "echo fixed > a"), text("mended")]);
    let mut session = Builtin::default().start(task(&dir));
    let record = Record::default();
    let world = context(&model, &record);
    in_time(session.turn(Input::Task, &world)).await;
    let outcome = in_time(session.turn(Input::Feedback("test failed".into()), &world)).await;
    assert_eq!(outcome.summary, "mended");
    assert_eq!(outcome.turns, 2);
    let messages = model.request(1)["messages"].as_array().unwrap().clone();
    assert_eq!(messages[1]["content"][0]["text"], "done");
    assert!(
        messages[2]["content"][0]["text"]
            .as_str()
            .unwrap()
            .contains("test failed")
    );
    assert_eq!(
        std::fs::read_to_string(dir.path().join("a")).unwrap(),
        "fixed\n"
    );
}

#[tokio::test]
async fn a_replay_runs_the_tools_but_tells_the_model_what_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let script = || Scripted::new([shell("1", "date +%s%N | tee -a stamps"), text("done")]);
    let (first, record) = (script(), Record::default());
    run(&dir, &first, &record).await;
    let told = ToolOutput {
        text: record.results()[0].0.clone(),
        ok: true,
        exit: Some(0),
        omitted: 0,
    };
    let recorded = Recorded(vec![told]);
    let (second, record) = (script(), Record::default());
    let mut world = context(&second, &record);
    world.recorded = Some(&recorded);
    in_time(
        Builtin::default()
            .start(task(&dir))
            .turn(Input::Task, &world),
    )
    .await;
    assert_eq!(
        *first.requests.lock().unwrap(),
        *second.requests.lock().unwrap()
    );
    let stamps = std::fs::read_to_string(dir.path().join("stamps")).unwrap();
    assert_eq!(stamps.lines().count(), 2);
}

#[tokio::test]
async fn a_session_that_goes_on_runs_no_tool_twice() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([
        shell("1", "echo one >> ran"),
        shell("2", "echo two >> ran"),
        shell("3", "echo three >> ran"),
        shell("4", "echo four >> ran"),
    ]);
    let record = Record::default();
    let mut world = context(&model, &record);
    world.recorded = Some(&Interrupted);
    let mut session = Builtin::default().start(task(&dir));
    let outcome = in_time(session.turn(Input::Task, &world)).await;
    let Stopped::Failed(Error::Model(model::Error::Diverged { place })) = &outcome.stopped else {
        panic!("{outcome:?}")
    };
    assert!(place.contains("another"), "{place}");
    let ran = std::fs::read_to_string(dir.path().join("ran")).unwrap();
    assert_eq!(ran, "three\n");
    assert!(model.request(1).to_string().contains("it has run"));
    assert!(model.request(2).to_string().contains("is unknown"));
}

#[tokio::test]
async fn a_conversation_that_is_too_long_is_made_shorter() {
    let dir = tempfile::tempdir().unwrap();
    let mut answers: Vec<Answer> = (0..8)
        .map(|n| shell(&n.to_string(), &format!("seq {n} 2500")))
        .collect();
    answers.push(fault(400, FaultClass::ContextTooLong, None));
    answers.push(text("done"));
    let model = Scripted::new(answers);
    let record = Record::default();
    let mut session = Builtin::new(Options {
        context_tokens: 30_000,
        ..Options::default()
    })
    .start(task(&dir));
    let outcome = in_time(session.turn(Input::Task, &context(&model, &record))).await;
    assert!(matches!(outcome.stopped, Stopped::Completed), "{outcome:?}");
    let size = |n: usize| model.request(n).to_string().len();
    assert!((0..9).all(|n| size(n) < 130_000));
    assert!(size(9) < size(8));
    let elided = |request: &Value| {
        request
            .to_string()
            .matches("was removed to save space")
            .count()
    };
    assert!(elided(&model.request(8)) > 0);
    assert!(elided(&model.request(9)) > elided(&model.request(8)));
}

#[tokio::test]
async fn the_world_of_a_command_is_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let model = Scripted::new([
        shell(
            "1",
            "pwd; echo \"$PAGER $TERM\"; cat; [ -n \"$BASH_VERSION\" ] && echo bash",
        ),
        text("done"),
    ]);
    run(&dir, &model, &Record::default()).await;
    let told = model.last_told(1);
    let real = dir.path().canonicalize().unwrap();
    assert_eq!(
        told,
        format!("{}\ncat dumb\nbash\n[exit code 0]", real.display())
    );
}
