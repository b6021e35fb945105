//! Who is told when a request has ended, how often, and with what.

use crate::world::{Told, World};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

/// How long a message may take to come.
const DEADLINE: Duration = Duration::from_secs(60);
/// The secret of the address.
const SECRET: &str = "hook-canary-8f14e45fceea167a";

/// A webhook on loopback that answers with these statuses, one after the other, and then with
/// 200. A status of 0 is no answer at all.
pub struct Webhook {
    port: u16,
    messages: Receiver<Message>,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    line: String,
    content_type: String,
    pub body: Value,
}

impl Webhook {
    pub fn new(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, messages) = channel();
        let mut statuses = Vec::from(statuses).into_iter();
        // It ends with the test: its listener is nobody else's.
        std::thread::spawn(move || {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                let message = Message::read(&stream);
                let status = statuses.next().unwrap_or(200);
                if status == 0 {
                    open.push(stream);
                } else {
                    write!(&stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").unwrap();
                }
                if told.send(message).is_err() {
                    return;
                }
            }
        });
        Self { port, messages }
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/{SECRET}", self.port)
    }

    pub fn next(&self) -> Message {
        self.messages.recv_timeout(DEADLINE).expect("a message")
    }

    fn none_more(&self) -> bool {
        self.messages.try_recv().is_err()
    }
}

impl Message {
    fn read(stream: &TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let header = |name: &str| {
            let found = head.iter().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            });
            found.unwrap_or_default()
        };
        let mut body = vec![0; header("content-length").parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        Self {
            line: head[0].clone(),
            content_type: header("content-type"),
            body: serde_json::from_slice(&body).unwrap(),
        }
    }
}

fn world(config: &str, hook: &Webhook) -> World {
    let world = World::simple().env("TEAM_HOOK", hook.address());
    let directory = world.home.config().join("skep");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("config.toml"), config).unwrap();
    world
}

#[test]
fn a_webhook_that_fails_twice_is_told_a_third_time_and_nobody_else_is_told_again() {
    let hook = Webhook::new(&[503, 429]);
    let world = world(
        "[[notify]]\nwebhook_env = \"TEAM_HOOK\"\n\
         [[notify]]\ncommand = [\"sh\", \"-c\", \"cat >> told; echo >> told\"]\n\
         [[notify]]\nwebhook_env = \"TEAM_HOOK\"\non = [\"failed\"]\n",
        &hook,
    );
    let told = world.run();
    let first = hook.next();
    assert_eq!(first.line, format!("POST /{SECRET} HTTP/1.1"));
    assert_eq!(first.content_type, "application/cloudevents+json");
    let (ended, event) = told
        .events
        .iter()
        .map(|event| (event, &event["payload"]))
        .find(|(event, payload)| event["type"] == "request_changed" && payload["to"] == "done")
        .unwrap();
    let body = &first.body;
    assert_eq!(body["specversion"], "1.0");
    assert_eq!(body["id"], ended["id"]);
    assert_eq!(body["type"], "com.skep.request.done");
    assert_eq!(
        body["source"],
        format!("/skep/sessions/{}", ended["session"].as_str().unwrap())
    );
    assert_eq!(body["subject"], told.request());
    assert_eq!(body["data"]["from"], event["from"]);
    assert_eq!(body["data"]["state"], "done");
    assert_eq!(body["data"]["title"], crate::world::PROMPT);
    assert!(body["data"]["spent"]["tokens"].as_u64().unwrap() > 0);
    assert_eq!([hook.next(), hook.next()], [first.clone(), first.clone()]);
    assert!(hook.none_more(), "it was taken");

    let by_command = fs::read_to_string(world.data().join("told")).unwrap();
    let by_command: Vec<Value> = by_command
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(by_command, [first.body], "once");
    world.assert_nowhere(SECRET, &[&told.ran]);
    world.assert_nothing_left();
}

#[test]
fn what_a_killed_process_has_told_and_not_noted_is_told_again_under_the_same_id() {
    let hook = Webhook::new(&[0]);
    let world = world("[[notify]]\nwebhook_env = \"TEAM_HOOK\"\n", &hook);
    let mut running = world.start(&["run", "--plan", "none", crate::world::PROMPT]);
    let first = hook.next();
    running.kill();
    world.skep(&["resume"]).expect_code(0);
    assert_eq!(hook.next(), first);
    world.skep(&["resume"]).expect_code(0);
    assert!(hook.none_more(), "it was taken");
}

#[test]
fn a_sink_that_is_given_up_is_said_in_the_log_without_its_address() {
    let hook = Webhook::new(&[404]);
    let world = world(
        "[[notify]]\nwebhook_env = \"TEAM_HOOK\"\nformat = \"slack\"\n\
         [[notify]]\nwebhook_env = \"NOT_SET\"\n",
        &hook,
    );
    let told: Told = world.run();
    let message = hook.next();
    assert_eq!(message.content_type, "application/json");
    let text = message.body["text"].as_str().unwrap();
    assert!(
        text.starts_with("*Skep: done* Mend the answer (r-"),
        "{text}"
    );
    let log = world.skep(&["log", &told.request()]).expect_code(0);
    assert!(
        log.stdout.contains(
            "webhook of TEAM_HOOK was not told of this request and will not be: 127.0.0.1"
        ) && log.stdout.contains("answered 404"),
        "{}",
        log.stdout
    );
    assert!(
        log.stdout.contains("NOT_SET is not set in the environment"),
        "{}",
        log.stdout
    );
    assert!(hook.none_more(), "it is not tried again");
    world.assert_nowhere(SECRET, &[&told.ran, &log]);
}

#[test]
fn a_notification_that_was_given_up_is_a_dead_letter_that_can_be_told_again() {
    let hook = Webhook::new(&[404, 404]);
    let config = "[[notify]]\nwebhook_env = \"TEAM_HOOK\"\n";
    let world = world(config, &hook);
    let request = world.run().request();
    let first = hook.next();
    let object = |ran: testkit::Ran| ran.json_lines().remove(0);
    let dead = || object(world.skep(&["dead-letters", "--json"]).expect_code(0));
    let listed = dead();
    assert_eq!(listed["jobs"], Value::Array(Vec::new()));
    let letter = &listed["letters"][0];
    let id = letter["id"].as_str().unwrap();
    assert_eq!(
        (&letter["kind"], &letter["request"]),
        (&"notification".into(), &request.into())
    );
    assert_eq!(letter["id"], first.body["id"]);
    assert_eq!(letter["again"], format!("skep retry {id}"));
    assert!(
        letter["why"].as_str().unwrap().contains("answered 404"),
        "{letter}"
    );
    let why = world.skep(&["why", &id[..8]]).expect_code(0).stdout;
    assert!(
        why.contains("given up") && why.contains(&format!("skep retry {id}")),
        "{why}"
    );
    world.skep(&["show", id]).expect_code(2);

    // It fails again, for one process that tells it at once.
    let again = world.skep(&["retry", id]).expect_code(1);
    assert!(again.stdout.contains("given up again"), "{}", again.stdout);
    assert_eq!(hook.next(), first);
    assert_eq!(dead()["letters"].as_array().unwrap().len(), 1);
    let told = object(world.skep(&["retry", id, "--json"]).expect_code(0));
    assert_eq!(told["state"], "told");
    assert_eq!(hook.next(), first);
    let empty = world.skep(&["dead-letters"]).expect_code(0).stdout;
    assert!(empty.contains("no notification was given up"), "{empty}");
    world.skep(&["retry", id]).expect_code(5);
    assert!(hook.none_more(), "it was taken");
    world.skep(&["ledger", "check"]).expect_code(0);
    world.assert_nothing_left();
}
