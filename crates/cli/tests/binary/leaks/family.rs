//! The processes below one of Skep's, and what each of them is there for.

use std::fs;

/// What a process is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A program outside of any sandbox: git, or the static program that makes or changes one.
    Helper,
    /// Process 1 of a sandbox, from the moment of its birth.
    First,
    /// A child of process 1: the minder of a command, or what one left behind.
    Minder,
    /// What an agent, a check, a setup or a person has started in a sandbox.
    Command,
}

/// A process and what it is there for.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its id.
    pub pid: i32,
    /// What it is there for.
    pub role: Role,
}

/// The descendants of a process of Skep, as far as they are still there.
pub fn descendants(pid: i32) -> Vec<Member> {
    let mut found = Vec::new();
    let mut queue: Vec<(i32, Option<Role>)> = vec![(pid, None)];
    while let Some((parent, role)) = queue.pop() {
        for pid in children(parent) {
            let role = match role {
                None | Some(Role::Helper) if is_first(pid) => Role::First,
                None | Some(Role::Helper) => Role::Helper,
                Some(Role::First) => Role::Minder,
                Some(Role::Minder | Role::Command) => Role::Command,
            };
            found.push(Member { pid, role });
            queue.push((pid, Some(role)));
        }
    }
    found
}

/// The children of a process, of whichever thread.
pub fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().filter_map(Result::ok);
    let lists = threads.filter_map(|it| fs::read_to_string(it.path().join("children")).ok());
    let mut found = Vec::new();
    for list in lists {
        found.extend(
            list.split_whitespace()
                .filter_map(|it| it.parse().ok())
                .filter(|it: &i32| *it > 0),
        );
    }
    found
}

/// Whether it is the first process of a pid namespace below this one.
fn is_first(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|it| it.strip_prefix("NSpid:"));
    let ids: Vec<&str> = ids.unwrap_or_default().split_whitespace().collect();
    ids.len() > 1 && ids.last() == Some(&"1")
}
