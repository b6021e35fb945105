//! How a container is, as its engine says.

use std::time::Duration;

use bollard::models::ContainerState;

use super::engine::{Engine, has_answered, is_missing};
use crate::{Error, Trouble};

/// How often an engine that cannot say it is asked, and how long it has in between.
const ASKED: u32 = 25;
const LOOK: Duration = Duration::from_millis(20);

impl Engine {
    /// Its state; nothing of one that the engine does not know.
    async fn state(&self, id: &str) -> Option<ContainerState> {
        for _ in 0..ASKED {
            match self.docker.inspect_container(id, None).await {
                Ok(told) => return told.state,
                Err(error) if is_missing(&error) || !has_answered(&error) => return None,
                // While a container ends, Podman may not find what it had of it a moment ago.
                Err(error) => tracing::debug!(%error, id, "a container's state is not known yet"),
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    /// The number of its first process, here.
    pub(super) async fn first_process(&self, id: &str) -> Option<i64> {
        let pid = self.state(id).await?.pid?;
        (pid > 0).then_some(pid)
    }

    pub(super) async fn runs(&self, id: &str) -> bool {
        let state = self.state(id).await;
        state.is_some_and(|state| state.running == Some(true))
    }

    /// What can be known of a container that ended before it was ready.
    pub(super) async fn why_ended(&self, id: &str) -> Error {
        let state = self.state(id).await.unwrap_or_default();
        let what = match (state.exit_code, state.error.filter(|text| !text.is_empty())) {
            (_, Some(error)) => format!("the container ended ({error})"),
            (Some(code), None) => format!("the container ended with code {code}"),
            (None, None) => "the container ended".to_owned(),
        };
        Error::engine(Trouble::RuntimeRefuses, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::fake;

    #[tokio::test]
    async fn an_engine_that_cannot_say_how_a_container_is_is_asked_again() {
        let gone = (500, r#"{"message":"read /proc/7/cgroup: no such process"}"#);
        let mut answers = vec![
            (404, r#"{"message":"no such container"}"#),
            (200, r#"{"State":{"Running":false,"ExitCode":3}}"#),
            gone,
            (200, r#"{"State":{"Running":true}}"#),
            gone,
            gone,
        ];
        let (way, _place, served) = fake::serve(move |_| {
            let answer = answers.pop().unwrap();
            (answer, answers.is_empty())
        });
        let engine = Engine::reach(way, None).await.unwrap();
        assert!(engine.runs("one").await);
        let ended = engine.why_ended("one").await;
        assert_eq!(Trouble::of_error(&ended), Some(Trouble::RuntimeRefuses));
        assert!(ended.to_string().contains("code 3"), "{ended}");
        assert!(!engine.runs("one").await, "it is gone, and asked for once");
        served.join().unwrap();
    }

    #[tokio::test]
    async fn an_engine_that_cannot_list_containers_for_a_moment_is_asked_again() {
        let not_yet = r#"{"message":"getting container from store: container not known"}"#;
        let mut answers = vec![(200, "[]"), (500, not_yet)];
        let (way, _place, served) = fake::serve(move |_| {
            let answer = answers.pop().unwrap();
            (answer, answers.is_empty())
        });
        let engine = Engine::reach(way, None).await.unwrap();
        assert_eq!(engine.stale().await.unwrap(), [""; 0]);
        served.join().unwrap();
    }
}
