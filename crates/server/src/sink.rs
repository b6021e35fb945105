//! Where notifications go: webhooks, commands and the desktop.

use bytes::Bytes;
use domain::{RequestState, failure::chain};
use gateway::Hook;
use ledger::ClaimedNotification;
use serde_json::{Value, json};
use site::Environment;
use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(30);
/// The program that shows something on the desktop.
const DESKTOP: &str = "notify-send";
/// What a command gets of the environment besides `PATH` and `HOME`: what it needs to reach the
/// user's desktop, and no keys.
const VARIABLES: &[&str] = &[
    "USER",
    "LANG",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
];

/// Somewhere that a person wants to be told.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Its name, which holds no secret. No other sink has the same.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// The states of requests that are told there.
    pub on: Vec<RequestState>,
}

/// What a sink is.
#[derive(Debug, Clone)]
pub enum Target {
    /// An address of the web.
    Webhook {
        /// The address.
        hook: Hook,
        /// What it takes.
        format: Format,
    },
    /// A program with its arguments: it gets the CloudEvent on its standard input.
    Command(Vec<String>),
    /// The user's desktop.
    Desktop,
    /// It cannot be reached from here, for this reason.
    Missing(String),
}

/// What a webhook takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A CloudEvent 1.0 in structured mode.
    CloudEvents,
    /// An incoming webhook of Slack, or of what is compatible with it.
    Slack,
}

/// Why a sink was not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Hook(#[from] gateway::HookError),
    #[error("{0}")]
    Missing(String),
    #[error("`{program}` could not be started")]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error("`{program}` did not end within {} s", COMMAND.as_secs())]
    Late { program: String },
    #[error("`{program}` ended with {status}")]
    Failed {
        program: String,
        status: std::process::ExitStatus,
    },
    #[error("the notification could not be written")]
    Written(#[from] serde_json::Error),
}

impl Error {
    /// Whether another try may work.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Hook(error) => error.may_pass(),
            Self::Missing(_) | Self::Start { .. } | Self::Written(_) => false,
            Self::Late { .. } | Self::Failed { .. } => true,
        }
    }

    /// All of it, for a person.
    pub(crate) fn told(&self) -> String {
        chain(self)
    }
}

/// What commands are run with.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) path: OsString,
    pub(crate) home: PathBuf,
    pub(crate) env: Environment,
    /// The directory that they are run in.
    pub(crate) directory: PathBuf,
}

/// A notification in each of its forms.
pub(crate) struct Message {
    event: String,
    title: String,
    text: String,
}

impl Message {
    /// The notification, with `hide` applied to all that is said.
    pub(crate) fn of(
        told: &ClaimedNotification,
        hide: impl Fn(String) -> String,
    ) -> Result<Self, serde_json::Error> {
        let body = serde_json::to_value(&told.event.body)?;
        let mut data = body.get("payload").cloned().unwrap_or_else(|| json!({}));
        if let Value::Object(data) = &mut data {
            data.insert("title".into(), json!(told.title));
            data.insert("state".into(), json!(told.state));
            data.insert("spent".into(), serde_json::to_value(told.spent)?);
        }
        let word = said(told.state);
        let spent = told.spent;
        Ok(Self {
            event: hide(
                json!({
                    "specversion": "1.0",
                    "id": told.event.id,
                    "source": format!("/skep/sessions/{}", told.event.session),
                    "type": format!("com.skep.request.{}", told.state),
                    "subject": told.request,
                    "time": rfc_3339(told.event.time),
                    "datacontenttype": "application/json",
                    "data": data,
                })
                .to_string(),
            ),
            title: format!("Skep: {word}"),
            text: hide(format!(
                "{} ({}, {} tokens, {})",
                told.title, told.request, spent.tokens, spent.money
            )),
        })
    }

    fn cloud_event(&self) -> Bytes {
        Bytes::from(self.event.clone())
    }

    fn slack(&self) -> Bytes {
        let text = format!("*{}* {}", self.title, escaped(&self.text));
        Bytes::from(json!({ "text": text }).to_string())
    }
}

/// What a request in this state is said to be.
fn said(state: RequestState) -> &'static str {
    match state {
        RequestState::Waiting => "waiting for you",
        RequestState::Partial => "partly done",
        other => other.as_str(),
    }
}

/// Without the characters that begin a mention, a link or an entity in Slack, or markup on a
/// desktop: a title is whatever somebody has written.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The time as RFC 3339 has it, in UTC.
fn rfc_3339(time: domain::Timestamp) -> String {
    jiff::Timestamp::from_microsecond(time.0)
        .unwrap_or_default()
        .to_string()
}

impl Target {
    /// Delivers a message. When this returns without an error it has been taken.
    pub(crate) async fn deliver(&self, message: &Message, host: &Host) -> Result<(), Error> {
        match self {
            Self::Webhook { hook, format } => {
                let (content_type, body) = match format {
                    Format::CloudEvents => ("application/cloudevents+json", message.cloud_event()),
                    Format::Slack => ("application/json", message.slack()),
                };
                Ok(hook.post(content_type, body).await?)
            }
            Self::Command(words) => {
                let Some((program, arguments)) = words.split_first() else {
                    return Err(Error::Missing("the command is empty".into()));
                };
                run(program, arguments, message.cloud_event(), host).await
            }
            Self::Desktop => {
                if !is_installed(DESKTOP, &host.path) {
                    return Err(Error::Missing(format!("`{DESKTOP}` is not on the PATH")));
                }
                let words = [
                    "--app-name=Skep",
                    "--",
                    &message.title,
                    &escaped(&message.text),
                ];
                run(DESKTOP, &words, Bytes::new(), host).await
            }
            Self::Missing(why) => Err(Error::Missing(why.clone())),
        }
    }
}

fn is_installed(program: &str, path: &OsStr) -> bool {
    std::env::split_paths(path).any(|directory| directory.join(program).is_file())
}

/// Ends a command with all that it has started, unless it has ended by itself.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) =
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
        {
            tracing::debug!(%error, "a command of a notification had ended already");
        }
    }
}

async fn run(
    program: &str,
    arguments: &[impl AsRef<OsStr>],
    input: Bytes,
    host: &Host,
) -> Result<(), Error> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", &host.path)
        .env("HOME", &host.home)
        .current_dir(&host.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    for name in VARIABLES {
        if let Some(value) = (host.env)(name) {
            command.env(name, value);
        }
    }
    let program = program.to_owned();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(source) => return Err(Error::Start { program, source }),
    };
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id.and_then(rustix::process::Pid::from_raw));
    let ended = tokio::time::timeout(COMMAND, async {
        if let Some(mut stdin) = child.stdin.take()
            && let Err(error) = stdin.write_all(&input).await
        {
            // It need not read what it is told.
            tracing::debug!(%error, "a command did not read its notification");
        }
        child.wait().await
    })
    .await;
    match ended {
        Err(_) => Err(Error::Late { program }),
        Ok(Err(source)) => Err(Error::Start { program, source }),
        Ok(Ok(status)) => {
            // Its number may be another process's by now.
            group.0 = None;
            if status.success() {
                Ok(())
            } else {
                Err(Error::Failed { program, status })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what goes wrong in a test ends it")]
    use super::*;
    use domain::{
        Amount, EventId, LeaseId, Micros, RequestId, SessionId, Timestamp,
        event::{Body, Envelope},
    };
    use ledger::{Lease, Subject};

    fn told() -> ClaimedNotification {
        let (event, request) = (EventId::from_bits(1), RequestId::from_bits(2));
        ClaimedNotification {
            lease: Lease {
                id: LeaseId::from_bits(3),
                token: 1,
                subject: Subject::Notification(event),
                deadline: Timestamp(0),
            },
            event: Envelope::new(
                event,
                SessionId::from_bits(4),
                9,
                Timestamp(1_700_000_000_250_000),
                Some(request),
                Body::RequestChanged {
                    request,
                    from: RequestState::Working,
                    to: RequestState::Done,
                    failure: None,
                },
            ),
            request,
            title: "Mend <!channel> & more".into(),
            state: RequestState::Done,
            spent: Amount {
                tokens: 1_234,
                money: Micros(120_000),
                ..Amount::ZERO
            },
            sinks: None,
        }
    }

    #[test]
    fn a_cloud_event_says_what_happened_to_which_request() {
        let message = Message::of(&told(), |text| text).unwrap();
        let event: Value = serde_json::from_slice(&message.cloud_event()).unwrap();
        assert_eq!(
            event,
            json!({
                "specversion": "1.0",
                "id": "e-000000000001",
                "source": "/skep/sessions/s-000000000004",
                "type": "com.skep.request.done",
                "subject": "r-000000000002",
                "time": "2023-11-14T22:13:20.25Z",
                "datacontenttype": "application/json",
                "data": {
                    "request": "r-000000000002",
                    "from": "working",
                    "to": "done",
                    "failure": null,
                    "title": "Mend <!channel> & more",
                    "state": "done",
                    "spent": {"tokens": 1234, "money": 120_000, "wall_ms": 0, "iterations": 0},
                },
            })
        );
    }

    #[test]
    fn a_title_mentions_nobody_in_slack() {
        let message = Message::of(&told(), |text| text).unwrap();
        let text: Value = serde_json::from_slice(&message.slack()).unwrap();
        assert_eq!(
            text["text"],
            "*Skep: done* Mend &lt;!channel&gt; &amp; more (r-000000000002, 1234 tokens, $0.12)"
        );
    }

    #[test]
    fn what_is_to_be_hidden_is_in_no_form_of_a_message() {
        let message = Message::of(&told(), |text| text.replace("Mend", "****")).unwrap();
        for body in [message.cloud_event(), message.slack()] {
            assert!(!String::from_utf8_lossy(&body).contains("Mend"));
        }
    }

    #[tokio::test]
    async fn a_command_that_fails_or_is_not_there_is_said_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host {
            path: std::env::var_os("PATH").unwrap(),
            home: directory.path().to_owned(),
            env: std::sync::Arc::new(|_| None),
            directory: directory.path().to_owned(),
        };
        let message = Message::of(&told(), |text| text).unwrap();
        let run = async |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            Target::Command(words).deliver(&message, &host).await
        };
        run(&["sh", "-c", "cat > told.json"]).await.unwrap();
        let told = std::fs::read(directory.path().join("told.json")).unwrap();
        assert_eq!(told, message.cloud_event());
        run(&["true"]).await.unwrap();
        let failed = run(&["sh", "-c", "exit 3"]).await.unwrap_err();
        assert!(failed.may_pass());
        assert_eq!(failed.told(), "`sh` ended with exit status: 3");
        let missing = run(&["no-such-program"]).await.unwrap_err();
        assert!(!missing.may_pass(), "{missing}");
        let desktop = Host {
            path: OsString::new(),
            ..host
        };
        let refused = Target::Desktop.deliver(&message, &desktop).await;
        assert_eq!(
            refused.unwrap_err().told(),
            "`notify-send` is not on the PATH"
        );
    }
}
