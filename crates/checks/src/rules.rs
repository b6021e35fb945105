//! The rules that need no process: what the change touches, and what it writes.

use crate::{Error, Found, markers, secrets};
use bstr::BString;
use domain::{
    entity::{Evidence, Verdict},
    policy::{self, Paths, Policy},
    scope::{Globs, Scope},
};
use git::{CommitId, FileKind, Mirror, PathChange, TreeId};
use std::time::Instant;

/// The most bytes of one file that are read for markers and secrets.
const MAX_READ: u64 = 4 << 20;
/// The most paths that a finding names.
const MAX_NAMED: usize = 20;

/// A tree on its base, with what it must keep to.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    /// Where both are.
    pub mirror: &'a Mirror,
    /// The commit that the work started from.
    pub base: CommitId,
    /// What was extracted.
    pub tree: TreeId,
    /// Which paths the job may write.
    pub scope: &'a Scope,
    /// What the repository asks of its changes, at the base commit.
    pub policy: &'a Policy,
}

/// Checks the candidate against every rule, and says which paths it touches.
///
/// # Errors
/// When the mirror cannot be read or a glob is not valid.
pub fn rules(candidate: &Candidate<'_>) -> Result<(Vec<Found>, Vec<BString>), Error> {
    let base = candidate.mirror.tree_of(candidate.base)?;
    let changes = candidate.mirror.changed_paths(base, candidate.tree)?;
    let tree = candidate.tree.to_string();
    let mut found = Vec::new();
    let mut rule = |name: &str, check: &dyn Fn() -> Result<Vec<String>, Error>| {
        let start = Instant::now();
        let findings = check()?;
        found.push(Found {
            evidence: Evidence {
                check: name.into(),
                verdict: if findings.is_empty() {
                    Verdict::Passed
                } else {
                    Verdict::Failed
                },
                command: None,
                exit_code: None,
                findings: named(&findings),
                output: None,
                duration_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
                tree: tree.clone(),
            },
            output: Vec::new(),
        });
        Ok::<(), Error>(())
    };
    rule("not empty", &|| Ok(not_empty(&changes)))?;
    rule("scope", &|| scope(&changes, candidate.scope))?;
    rule("protected paths", &|| {
        protected(&changes, &candidate.policy.paths)
    })?;
    rule("forbidden paths", &|| {
        forbidden(&changes, &candidate.policy.paths)
    })?;
    rule("size", &|| size(candidate, &changes))?;
    rule("conflict markers", &|| {
        written(candidate, &changes, |content| {
            markers::find(content).map(|line| format!("line {line}: an unresolved conflict"))
        })
    })?;
    rule("secrets", &|| {
        written(candidate, &changes, |content| {
            secrets::find(content)
                .first()
                .map(|found| format!("line {}: this looks like {}", found.line, found.kind))
        })
    })?;
    Ok((
        found,
        changes.into_iter().map(|change| change.path).collect(),
    ))
}

fn not_empty(changes: &[PathChange]) -> Vec<String> {
    if changes.is_empty() {
        vec!["nothing was changed".into()]
    } else {
        Vec::new()
    }
}

fn scope(changes: &[PathChange], scope: &Scope) -> Result<Vec<String>, Error> {
    let (write, forbid) = (Globs::new(&scope.write)?, Globs::new(&scope.forbid)?);
    let mut findings: Vec<String> = changes
        .iter()
        .filter_map(|change| {
            let path = &change.path;
            if !write.is_empty() && !write.matches(path) {
                Some(format!(
                    "{path}: outside the paths that the job may write ({})",
                    scope.write.join(", ")
                ))
            } else if forbid.matches(path) {
                Some(format!("{path}: the job must not write it"))
            } else {
                None
            }
        })
        .collect();
    if let Some(most) = scope
        .max_files
        .filter(|&most| changes.len() > most as usize)
    {
        findings.push(format!(
            "{} files are touched, and {most} is the most for the job",
            changes.len()
        ));
    }
    Ok(findings)
}

fn protected(changes: &[PathChange], paths: &Paths) -> Result<Vec<String>, Error> {
    let protected = Globs::new(&paths.protected)?;
    Ok(changes
        .iter()
        .filter(|change| change.path == policy::FILE || protected.matches(&change.path))
        .map(|change| format!("{}: only a person may change it", change.path))
        .collect())
}

fn forbidden(changes: &[PathChange], paths: &Paths) -> Result<Vec<String>, Error> {
    let forbidden = Globs::new(&paths.forbidden)?;
    Ok(changes
        .iter()
        .filter(|change| change.after.is_some() && forbidden.matches(&change.path))
        .map(|change| format!("{}: the policy forbids such a file", change.path))
        .collect())
}

fn size(candidate: &Candidate<'_>, changes: &[PathChange]) -> Result<Vec<String>, Error> {
    let paths = &candidate.policy.paths;
    let most_bytes = paths.max_file_bytes.unwrap_or(Paths::MAX_FILE_BYTES);
    let most_files = paths.max_files.unwrap_or(Paths::MAX_FILES);
    let mut findings = Vec::new();
    if changes.len() > most_files as usize {
        findings.push(format!(
            "{} files are touched, and {most_files} is the most",
            changes.len()
        ));
    }
    for (change, id) in files(changes) {
        let bytes = candidate.mirror.blob_size(id)?;
        if bytes > most_bytes {
            findings.push(format!(
                "{}: {bytes} bytes, and {most_bytes} is the most",
                change.path
            ));
        }
    }
    Ok(findings)
}

/// Looks at the content of every file that was written, unless the base has it already.
fn written(
    candidate: &Candidate<'_>,
    changes: &[PathChange],
    look: impl Fn(&[u8]) -> Option<String>,
) -> Result<Vec<String>, Error> {
    let mut findings = Vec::new();
    for (change, id) in files(changes) {
        if candidate.mirror.blob_size(id)? > MAX_READ {
            continue;
        }
        let content = candidate.mirror.read_blob(id, MAX_READ)?;
        let Some(finding) = look(&content) else {
            continue;
        };
        let before = match change.before {
            Some(entry)
                if is_file(entry.kind) && candidate.mirror.blob_size(entry.id)? <= MAX_READ =>
            {
                look(&candidate.mirror.read_blob(entry.id, MAX_READ)?)
            }
            _ => None,
        };
        if before.is_none() {
            findings.push(format!("{}, {finding}", change.path));
        }
    }
    Ok(findings)
}

fn files(changes: &[PathChange]) -> impl Iterator<Item = (&PathChange, git::ObjectId)> {
    changes.iter().filter_map(|change| {
        let entry = change.after.filter(|entry| is_file(entry.kind))?;
        Some((change, entry.id))
    })
}

fn is_file(kind: FileKind) -> bool {
    matches!(kind, FileKind::File | FileKind::Executable)
}

fn named(findings: &[String]) -> String {
    let mut text = findings
        .iter()
        .take(MAX_NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n");
    if findings.len() > MAX_NAMED {
        text.push_str(&format!("\nand {} more", findings.len() - MAX_NAMED));
    }
    text
}
