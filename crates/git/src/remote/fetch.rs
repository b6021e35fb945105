//! Fetching what is asked for.

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use super::watch::Watching;
use super::{Access, Arrived, FETCHED, Remote, Want, refusal};
use crate::error::Error;
use crate::ids::CommitId;
use crate::mirror::take_lock;
use crate::objects::Objects;
use crate::process::{Call, Most, Output};
use crate::references::write_replacing;

/// The most bytes of a list of references that are read: some 300,000 of them.
const MAX_LIST: usize = 32 << 20;
/// How many packs a copy may come to have while it is read.
const PACK_SLOTS: usize = 256;

/// What is meant, once the repository's references are known.
enum Meant {
    /// A reference, by its full name.
    Reference(String),
    /// A commit, by its name or the beginning of it.
    Commit(String),
}

impl Remote {
    /// Fetches what is wanted, with its history, and says which commit it is. Where the default branch was wanted, or
    /// nothing was fetched before, `HEAD` of the copy is that commit. `tell` is told how it goes on, in lines of text
    /// that may come from the server.
    ///
    /// # Errors
    /// [`Error::Unauthorized`], [`Error::Unreachable`], [`Error::NoRemote`], [`Error::Unsound`], [`Error::Silent`],
    /// [`Error::TooLarge`], [`Error::TimedOut`], [`Error::UnknownRevision`], each with what to do. The copy is usable
    /// then as it was before.
    pub fn fetch(
        &self,
        want: &Want,
        access: &Access,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Arrived, Error> {
        let program = self.program.clone().with_deadline(self.bounds.time);
        let lock = take_lock(&self.directory.join("skep/lock"), &program)?;
        // Whoever looks after the disk knows by it that the copy is used.
        if let Err(error) = lock.set_modified(SystemTime::now()) {
            tracing::debug!(%error, "a use of a copy is not marked");
        }
        self.clear_leftovers();
        let arrived = match self.meant(want, access, tell)? {
            Meant::Reference(name) => Arrived {
                commit: self.fetch_reference(&name, access, tell)?,
                reference: Some(name),
            },
            Meant::Commit(name) => Arrived {
                commit: self.fetch_commit(&name, access, tell)?,
                reference: None,
            },
        };
        self.set_head(&arrived, *want == Want::Head)?;
        Ok(arrived)
    }

    /// Finds out what is meant, by the references that the repository has.
    fn meant(
        &self,
        want: &Want,
        access: &Access,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Meant, Error> {
        let unknown = |rev: &str| Error::NotThere {
            url: self.url.clone(),
            rev: rev.to_owned(),
        };
        match want {
            Want::Commit(name) => Ok(Meant::Commit(name.clone())),
            Want::Named(name) if name.starts_with("refs/") => Ok(Meant::Reference(name.clone())),
            Want::Named(name) => {
                let there = self.list(&["--", &self.url, name], access, tell)?;
                for kind in ["heads", "tags"] {
                    let full = format!("refs/{kind}/{name}");
                    if there.contains(&full) {
                        return Ok(Meant::Reference(full));
                    }
                }
                match is_commit(name) {
                    true => Ok(Meant::Commit(name.to_ascii_lowercase())),
                    false => Err(unknown(name)),
                }
            }
            Want::Tree(text) => {
                let there = self.list(&["--heads", "--tags", "--", &self.url], access, tell)?;
                // Of a branch and a branch below it there is only one, so that the longest is meant.
                let mut name = text.as_str();
                loop {
                    for kind in ["heads", "tags"] {
                        let full = format!("refs/{kind}/{name}");
                        if there.contains(&full) {
                            return Ok(Meant::Reference(full));
                        }
                    }
                    match name.rsplit_once('/') {
                        Some((shorter, _)) => name = shorter,
                        None if is_commit(name) => return Ok(Meant::Commit(name.to_owned())),
                        None => return Err(unknown(text)),
                    }
                }
            }
            Want::Head => {
                let there = self.list(&["--symref", "--", &self.url, "HEAD"], access, tell)?;
                let branch = there
                    .iter()
                    .find_map(|name| name.strip_prefix("ref: "))
                    .map(str::to_owned);
                // A repository whose `HEAD` is no branch gives it all the same.
                match branch {
                    Some(branch) => Ok(Meant::Reference(branch)),
                    None if there.iter().any(|name| name == "HEAD") => {
                        Ok(Meant::Reference("HEAD".into()))
                    }
                    None => Err(Error::EmptyRemote {
                        url: self.url.clone(),
                    }),
                }
            }
        }
    }

    /// The names of references; of a symbolic one also `ref: ` and what it names.
    fn list(
        &self,
        args: &[&str],
        access: &Access,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Vec<String>, Error> {
        let mut command = self.reaching(access)?;
        command.arg("ls-remote").args(args);
        let output = self.run("asking for the references", command, tell)?;
        if output.code != Some(0) {
            return Err(refusal::of(&self.url, &output));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut names = Vec::new();
        for line in text.lines() {
            let Some((value, name)) = line.split_once('\t') else {
                continue;
            };
            if value.starts_with("ref: ") {
                names.push(value.to_owned());
            } else {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn fetch_reference(
        &self,
        name: &str,
        access: &Access,
        tell: &mut dyn FnMut(&str),
    ) -> Result<CommitId, Error> {
        let kept = format!("{FETCHED}{}", name.strip_prefix("refs/").unwrap_or(name));
        let output = self.pull(&[format!("+{name}:{kept}")], access, tell)?;
        if output.code != Some(0) {
            if refusal::is_not_given(&output) {
                return Err(Error::NotThere {
                    url: self.url.clone(),
                    rev: name.to_owned(),
                });
            }
            return Err(refusal::of(&self.url, &output));
        }
        self.commit_of(&kept)?.ok_or_else(|| Error::NotThere {
            url: self.url.clone(),
            rev: name.to_owned(),
        })
    }

    /// A commit that is there already is not asked for. One that the server does not give by its name, or that is named
    /// by its beginning, is looked for in all branches and tags.
    fn fetch_commit(
        &self,
        name: &str,
        access: &Access,
        tell: &mut dyn FnMut(&str),
    ) -> Result<CommitId, Error> {
        if let Some(found) = self.kept_commit(name)? {
            return Ok(found);
        }
        if name.len() == 40 {
            let kept = format!("{FETCHED}commit/{name}");
            let output = self.pull(&[format!("+{name}:{kept}")], access, tell)?;
            match output.code {
                Some(0) => {
                    if let Some(found) = self.commit_of(&kept)? {
                        return Ok(found);
                    }
                }
                _ if refusal::is_not_given(&output) => {}
                _ => return Err(refusal::of(&self.url, &output)),
            }
        }
        let all = ["heads", "tags"].map(|kind| format!("+refs/{kind}/*:{FETCHED}{kind}/*"));
        let output = self.pull(&all, access, tell)?;
        if output.code != Some(0) {
            return Err(refusal::of(&self.url, &output));
        }
        self.kept_commit(name)?.ok_or_else(|| Error::NotThere {
            url: self.url.clone(),
            rev: name.to_owned(),
        })
    }

    /// Fetches these references into the copy.
    fn pull(
        &self,
        references: &[String],
        access: &Access,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Output, Error> {
        let mut command = self.reaching(access)?;
        command.args([
            "fetch",
            "--progress",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--no-auto-maintenance",
            "--no-show-forced-updates",
            "--",
        ]);
        command.arg(&self.url).args(references);
        self.run("fetching", command, tell)
    }

    /// Runs git within the bounds.
    fn run(
        &self,
        doing: &'static str,
        command: Command,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Output, Error> {
        let mut watching = Watching::new(&self.directory, &self.url, self.bounds, tell);
        let program = self.program.clone().with_deadline(self.bounds.time);
        let mut see = |said: &[u8]| watching.see(said);
        program.execute(
            Call::new(doing, command)
                .limit(MAX_LIST)
                .within(Most {
                    file: self.bounds.disk,
                    memory: Some(self.bounds.memory),
                })
                .watch(&mut see),
        )
    }

    /// The commit that a reference of the copy leads to, through a tag where it is one.
    fn commit_of(&self, reference: &str) -> Result<Option<CommitId>, Error> {
        self.parsed(&format!("{reference}^{{commit}}"))
    }

    /// A commit of the copy that was fetched, with all that it reaches.
    fn kept_commit(&self, name: &str) -> Result<Option<CommitId>, Error> {
        let Some(found) = self.parsed(&format!("{name}^{{commit}}"))? else {
            return Ok(None);
        };
        // Objects of a fetch that ended half-way may be there without what they name.
        let doing = "looking for a commit in what was fetched";
        let mut command = self.program.trusted(&self.directory)?;
        command.args(["for-each-ref", "--count=1", "--format=%(refname)"]);
        command.arg(format!("--contains={found}")).arg(FETCHED);
        let output = self
            .program
            .execute(Call::new(doing, command).limit(4096))?
            .success(doing)?;
        Ok((!output.stdout.is_empty()).then_some(found))
    }

    fn parsed(&self, text: &str) -> Result<Option<CommitId>, Error> {
        let doing = "looking for a commit";
        let mut command = self.program.trusted(&self.directory)?;
        command.args(["rev-parse", "--quiet", "--verify", "--end-of-options", text]);
        let output = self
            .program
            .execute(Call::new(doing, command).limit(4096))?;
        if output.code != Some(0) {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let id = text.trim().parse();
        id.map(Some).map_err(|_| Error::Output { doing })
    }

    /// Lets `HEAD` be the default branch's commit; another one only where there is none yet.
    fn set_head(&self, arrived: &Arrived, is_default: bool) -> Result<(), Error> {
        let path = self.directory.join("HEAD");
        let objects = Objects::open(&self.directory.join("objects"), PACK_SLOTS)?;
        let there: Option<CommitId> = fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let is_whole = there.is_some_and(|id| objects.reader().contains(&id.0));
        if is_whole && (!is_default || there == Some(arrived.commit)) {
            return Ok(());
        }
        write_replacing(&path, format!("{}\n", arrived.commit).as_bytes(), true)
    }

    /// Removes what a fetch left that was killed. Its lock is held, so that none is at work.
    fn clear_leftovers(&self) {
        let packs = self.directory.join("objects/pack");
        for entry in fs::read_dir(packs).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_left = ["tmp_pack_", "tmp_idx_", "tmp_rev_"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            if is_left && let Err(error) = fs::remove_file(entry.path()) {
                tracing::debug!(%error, "what a fetch left stays");
            }
        }
    }
}

/// Whether a text is the name of a commit, or the beginning of one.
fn is_commit(text: &str) -> bool {
    (7..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
