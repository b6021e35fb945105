//! Pages of forges: what a person copies from a browser.

use super::{
    Error, Forge, Issue, Part, Remote, Scheme,
    parse::{is_commit, reference},
};

/// The repository that a page of a forge is of, and what of it the page shows; nothing where the URL
/// is one to fetch from, as it is.
pub(super) fn page(scheme: Scheme, host: &str, path: &str) -> Result<Option<Remote>, Error> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    // GitLab sets its pages apart from names of groups.
    let at = parts.iter().skip(2).position(|part| *part == "-");
    if let Some(at) = at.map(|at| at + 2) {
        let (repository, rest) = parts.split_at(at);
        let rest = rest.get(1..).unwrap_or_default();
        let shown = gitlab(rest)?;
        is_plain(repository)?;
        // A group whose name makes the repository's own URL a page of another forge.
        let behind = repository.get(2..).unwrap_or_default();
        if behind.len() > 1 && others(behind)?.is_some() {
            return Err(Error::Page);
        }
        return Ok(Some(found(scheme, host, repository, shown, Forge::GitLab)));
    }
    if parts.len() < 4 {
        // `owner/name/pulls` and the like are lists.
        return match parts.get(2) {
            Some(&("pull" | "pulls" | "issues" | "tree" | "commit" | "blob")) => Err(Error::Page),
            _ => Ok(None),
        };
    }
    let (repository, rest) = parts.split_at(2);
    let Some((shown, forge)) = others(rest)? else {
        return Ok(None);
    };
    is_plain(repository)?;
    let forge = forge.or(match host {
        "github.com" => Some(Forge::GitHub),
        "codeberg.org" => Some(Forge::Forgejo),
        _ => None,
    });
    let mut remote = found(scheme, host, repository, shown, Forge::GitHub);
    if let Some(issue) = &mut remote.issue {
        issue.forge = forge;
    }
    Ok(Some(remote))
}

/// That the names of a repository lead to nothing else at its forge.
fn is_plain(repository: &[&str]) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '+');
    let is_name = |part: &&str| part.chars().all(plain) && !matches!(*part, "." | "..");
    match repository.iter().all(is_name) {
        true => Ok(()),
        false => Err(Error::Page),
    }
}

/// What a page shows.
enum Shown {
    Part(Part),
    Issue(u64),
}

fn found(scheme: Scheme, host: &str, repository: &[&str], shown: Shown, forge: Forge) -> Remote {
    let path = repository.join("/");
    let path = path.strip_suffix(".git").unwrap_or(&path);
    let (part, issue) = match shown {
        Shown::Part(part) => (part, None),
        Shown::Issue(number) => (
            Part::Head,
            Some(Issue {
                secure: scheme == Scheme::Https,
                host: host.to_owned(),
                repository: path.to_owned(),
                number,
                forge: Some(forge),
            }),
        ),
    };
    Remote {
        url: format!("{}://{host}/{path}.git", scheme.as_str()),
        scheme,
        host: host.to_owned(),
        part,
        issue,
    }
}

fn gitlab(rest: &[&str]) -> Result<Shown, Error> {
    match rest {
        ["tree" | "blob" | "commits", name @ ..] => tree(name),
        ["commit", id, ..] => commit(id),
        ["tags", name @ ..] => tag(name),
        ["merge_requests", number, ..] => {
            let number = numbered(number)?;
            Ok(Shown::Part(Part::Named(format!(
                "refs/merge-requests/{number}/head"
            ))))
        }
        ["issues" | "work_items", number, ..] => Ok(Shown::Issue(numbered(number)?)),
        _ => Err(Error::Page),
    }
}

/// GitHub, Forgejo and Gitea: what is shown, and whose page it is where that shows.
fn others(rest: &[&str]) -> Result<Option<(Shown, Option<Forge>)>, Error> {
    let pull = |number: &str| -> Result<Shown, Error> {
        let number = numbered(number)?;
        Ok(Shown::Part(Part::Named(format!("refs/pull/{number}/head"))))
    };
    let shown = match rest {
        ["pull", number, ..] => (pull(number)?, Some(Forge::GitHub)),
        ["pulls", number, ..] => (pull(number)?, Some(Forge::Forgejo)),
        ["issues", number, ..] => (Shown::Issue(numbered(number)?), None),
        ["tree" | "blob", name @ ..] => (tree(name)?, Some(Forge::GitHub)),
        ["commit", id, ..] => (commit(id)?, None),
        ["src", "branch", name @ ..] => (tree(name)?, Some(Forge::Forgejo)),
        ["src", "tag", name @ ..] => (tree(name)?, Some(Forge::Forgejo)),
        ["src", "commit", id, ..] => (commit(id)?, Some(Forge::Forgejo)),
        ["releases", "tag", name @ ..] => (tag(name)?, None),
        _ => return Ok(None),
    };
    Ok(Some(shown))
}

fn numbered(text: &str) -> Result<u64, Error> {
    let is_number = text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if is_number && number > 0 => Ok(number),
        _ => Err(Error::Page),
    }
}

fn commit(id: &str) -> Result<Shown, Error> {
    if !is_commit(id) {
        return Err(Error::Page);
    }
    Ok(Shown::Part(Part::Commit(id.to_ascii_lowercase())))
}

fn tree(parts: &[&str]) -> Result<Shown, Error> {
    let name = decoded(&parts.join("/"))?;
    // A path behind the name is cut off once the references are known; what is left is looked at
    // again there.
    let name = reference(&name, "the name in the URL")?;
    Ok(Shown::Part(Part::Tree(name)))
}

fn tag(parts: &[&str]) -> Result<Shown, Error> {
    let name = decoded(&parts.join("/"))?;
    let name = reference(&format!("refs/tags/{name}"), "the tag in the URL")?;
    Ok(Shown::Part(Part::Named(name)))
}

/// A text without its percent-encoding. That this is whole was looked at before.
fn decoded(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = behind
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.map(|hex| u8::from_str_radix(hex, 16)) {
            Some(Ok(byte_meant)) if byte == b'%' => {
                bytes.push(byte_meant);
                rest = behind.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| Error::Page)
}
