//! The rules that need no process: what the change touches, and what it writes.

use crate::{Error, Found, markers, secrets};
use bstr::BString;
use domain::{
    entity::{Evidence, Verdict},
    policy::{self, Paths, Policy},
    scope::{Globs, Scope},
};
use git::{CommitId, FileKind, Mirror, PathChange, TreeId};
use std::{collections::BTreeMap, time::Instant};

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
            unrun: None,
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
            let lines = markers::find(content);
            let first = lines.first().map(|&line| Trace {
                key: Vec::new(),
                count: lines.len(),
                told: format!("line {line}: an unresolved conflict"),
            });
            first.into_iter().collect()
        })
    })?;
    rule("secrets", &|| {
        written(candidate, &changes, |content| {
            let found = secrets::find(content).into_iter();
            found
                .map(|found| Trace {
                    told: format!("line {}: this looks like {}", found.line, found.kind),
                    key: found.text,
                    count: found.count,
                })
                .collect()
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
            } else if forbid.matches(path) || displaces(change, &scope.forbid) {
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
        .filter(|change| {
            change.path == policy::FILE
                || protected.matches(&change.path)
                || displaces(change, &paths.protected)
        })
        .map(|change| format!("{}: only a person may change it", change.path))
        .collect())
}

fn forbidden(changes: &[PathChange], paths: &Paths) -> Result<Vec<String>, Error> {
    let forbidden = Globs::new(&paths.forbidden)?;
    Ok(changes
        .iter()
        .filter(|change| {
            let matches = forbidden.matches(&change.path);
            (change.after.is_some() && matches) || displaces(change, &paths.forbidden)
        })
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

/// Something in a file that should not be there.
struct Trace {
    /// What tells it from others of its kind.
    key: Vec<u8>,
    /// How often it is there.
    count: usize,
    /// What is said of it.
    told: String,
}

/// Looks at the content of every file that was written. What the file at the base has as often
/// already is left alone.
///
/// Everything that the rule of sizes lets through is read, so that nothing lands unread.
fn written(
    candidate: &Candidate<'_>,
    changes: &[PathChange],
    look: impl Fn(&[u8]) -> Vec<Trace>,
) -> Result<Vec<String>, Error> {
    let paths = &candidate.policy.paths;
    let most = paths.max_file_bytes.unwrap_or(Paths::MAX_FILE_BYTES);
    let read = |id| {
        if candidate.mirror.blob_size(id)? > most {
            return Ok::<_, Error>(Vec::new());
        }
        Ok(look(&candidate.mirror.read_blob(id, most)?))
    };
    let mut findings = Vec::new();
    for (change, id) in files(changes) {
        let traces = read(id)?;
        if traces.is_empty() {
            continue;
        }
        let before = match change.before {
            Some(entry) if is_file(entry.kind) => read(entry.id)?,
            _ => Vec::new(),
        };
        let before: BTreeMap<&[u8], usize> = before
            .iter()
            .map(|trace| (trace.key.as_slice(), trace.count))
            .collect();
        for trace in &traces {
            if trace.count > before.get(trace.key.as_slice()).copied().unwrap_or(0) {
                findings.push(format!("{}, {}", change.path, trace.told));
            }
        }
    }
    Ok(findings)
}

/// Whether a file or link is put where a glob needs a directory: `dir/**` does not match `dir`
/// itself, and a link of that name would take everything below it elsewhere.
fn displaces(change: &PathChange, globs: &[String]) -> bool {
    change.after.is_some()
        && globs
            .iter()
            .any(|glob| is_above(change.path.as_slice(), glob))
}

fn is_above(path: &[u8], glob: &str) -> bool {
    let glob = glob.strip_prefix("./").unwrap_or(glob);
    let end = glob.find(['*', '?', '[', '{', '\\']).unwrap_or(glob.len());
    let literal = glob.get(..end).unwrap_or_default();
    !path.is_empty()
        && literal
            .as_bytes()
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with(b"/"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_link_in_the_place_of_a_directory_of_a_glob_is_noticed() {
        for (path, glob, expected) in [
            ("ci", "ci/**", true),
            ("ci", "ci/", true),
            ("ci", "./ci/*.yml", true),
            ("a", "a/b/**", true),
            ("c", "ci/**", false),
            ("ci-old", "ci/**", false),
            ("ci", "**/ci/x", false),
            ("ci", "ci", false),
        ] {
            assert_eq!(is_above(path.as_bytes(), glob), expected, "{path} {glob}");
        }
    }
}
