//! What people, repositories and models write for Skep to read.

use domain::origin::{self, MAX_ORIGIN, Origin};
use domain::plan::{MAX_JOBS, Plan};
use domain::policy::Policy;
use domain::{AttemptId, BlobId, JobId, RequestId, SandboxId};

use crate::text;

/// A plan that is taken is within its bounds, and means the same when it is written again.
pub fn plan(bytes: &[u8]) {
    let text = text(bytes);
    for plan in [
        Plan::from_toml(&text),
        Plan::from_json(&text),
        Plan::from_model(&text),
    ] {
        let Ok(plan) = plan else { continue };
        assert!((1..=MAX_JOBS).contains(&plan.jobs.len()));
        for (place, job) in plan.jobs.iter().enumerate() {
            assert!(!job.prompt.is_empty());
            assert!(plan.jobs[..place].iter().all(|it| it.name != job.name));
            assert!(
                job.after
                    .iter()
                    .all(|it| plan.jobs.iter().any(|job| job.name == *it))
            );
        }
        let written = serde_json::to_string(&plan).expect("a plan can be written");
        assert_eq!(Plan::from_json(&written), Ok(plan));
    }
}

/// A policy is taken or refused.
pub fn policy(bytes: &[u8]) {
    if let Ok(policy) = Policy::parse(bytes) {
        // What it says of commands is asked all the time.
        let _checked: bool = policy.is_checked();
    }
}

/// An origin holds no credentials and is no option or other program's transport, and what is fetched
/// means the same when it is written again.
pub fn origin(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok((name, _)) = origin::named(&text) {
        assert!(!name.is_empty() && !name.contains('/') && !name.starts_with('.'));
    }
    let Ok(found) = text.parse::<Origin>() else {
        return;
    };
    assert!(text.len() <= MAX_ORIGIN);
    let Origin::Remote(remote) = found else {
        return;
    };
    let url = remote.url();
    assert!(!url.starts_with('-'), "{url} is an option");
    let helper = url.split_once("::").map(|(name, _)| name);
    let is_word = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric());
    assert!(!helper.is_some_and(is_word), "{url} starts a program");
    assert!(
        !url.chars().any(|it| it.is_control() || it == ' '),
        "{url:?}"
    );
    // Of `user@host:path` the path is whatever it is.
    let scheme = format!("{}://", remote.scheme().as_str());
    if let Some(rest) = url.strip_prefix(&scheme) {
        let authority = rest.split('/').next().unwrap_or_default();
        let user = authority.split_once('@').map(|(user, _)| user);
        assert!(
            user.is_none_or(|it| !it.contains(':')),
            "a password stays in {url}"
        );
    }
    let issue = remote.issue().is_some();
    match remote.to_string().parse::<Origin>() {
        Ok(Origin::Remote(again)) if !issue => {
            assert_eq!(again.to_string(), remote.to_string());
            assert_eq!(again.url(), remote.url());
        }
        Ok(Origin::Remote(again)) => assert_eq!(again.url(), remote.url()),
        other => panic!("{remote} was read again as {other:?}"),
    }
}

/// An id has one text.
pub fn ids(bytes: &[u8]) {
    let text = text(bytes);
    let same = |again: Option<String>| assert!(again.is_none_or(|it| it == text), "{text:?}");
    same(text.parse::<JobId>().ok().map(|it| it.to_string()));
    same(text.parse::<AttemptId>().ok().map(|it| it.to_string()));
    same(text.parse::<RequestId>().ok().map(|it| it.to_string()));
    same(text.parse::<SandboxId>().ok().map(|it| it.to_string()));
    same(text.parse::<BlobId>().ok().map(|it| it.to_string()));
}
