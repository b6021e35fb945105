//! Sources that a command line names: read, and fetched while a person looks on.

use crate::{
    context::Context,
    output::Output,
    report::Error,
    signals::Signals,
    view::{
        format,
        paint::{FAINT, paint},
        screen::{self, Screen},
        text,
    },
};
use domain::{
    entity::{Beside, Sources},
    origin::{self, Origin},
};
use server::{Node, Tell, standing::MOST_ALSO};
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// Reads a source. It is no parser of the command line's own: that would repeat what is wrong, which
/// may be a secret.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(text: &str) -> Result<Origin, Error> {
    text.parse()
        .map_err(|error: domain::origin::Error| Error::Usage(error.to_string()))
}

/// Further repositories that are shown.
pub(crate) const WITH: Further = Further {
    option: "--with",
    most: 16,
};
/// Further repositories that are written.
const ALSO: Further = Further {
    option: "--also",
    most: MOST_ALSO,
};

/// An option that names further repositories.
pub(crate) struct Further {
    option: &'static str,
    most: usize,
}

impl Further {
    /// Reads them, each with its name.
    ///
    /// # Errors
    /// What is wrong with the first that is wrong, as that there is no such directory; more than there may
    /// be, or two of one name.
    pub(crate) fn read(
        &self,
        texts: &[String],
        context: &Context,
    ) -> Result<Vec<(String, Origin)>, Error> {
        let Self { option, most } = self;
        if texts.len() > *most {
            return Err(Error::Usage(format!(
                "`{option}` is given more than {most} times"
            )));
        }
        let mut all: Vec<(String, Origin)> = Vec::with_capacity(texts.len());
        for text in texts {
            let named = origin::named(text).map_err(|error| Error::Usage(error.to_string()))?;
            if all.iter().any(|(known, _)| *known == named.0) {
                return Err(server::Error::SameName { name: named.0 }.into());
            }
            if let Origin::Path(path) = &named.1 {
                context.named_directory(path)?;
            }
            all.push(named);
        }
        Ok(all)
    }
}

/// The further repositories of a command for people: those that are written, and those that are shown.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Others {
    /// Work on another repository too: a path, or a URL to fetch it from, in the directory
    /// /workspace/NAME; may be given several times
    #[arg(long, value_name = "[NAME=]SOURCE")]
    also: Vec<String>,
    /// Show another repository, read-only, in the directory /workspace/NAME; may be given several times
    #[arg(long, value_name = "[NAME=]SOURCE")]
    with: Vec<String>,
}

/// The same, read.
pub(crate) struct Named {
    also: Vec<(String, Origin)>,
    with: Vec<(String, Origin)>,
}

impl Others {
    /// The same as words of a command line.
    pub(crate) fn words(&self) -> impl Iterator<Item = String> {
        let also = self.also.iter().map(|one| format!("--also={one}"));
        also.chain(self.with.iter().map(|one| format!("--with={one}")))
    }

    /// Reads them.
    ///
    /// # Errors
    /// As [`Further::read`]; when one of those that are shown has the name of one that is written.
    pub(crate) fn read(&self, context: &Context) -> Result<Named, Error> {
        let also = ALSO.read(&self.also, context)?;
        let with = WITH.read(&self.with, context)?;
        let mut names = also.iter().map(|(name, _)| name);
        match names.find(|name| with.iter().any(|(other, _)| other == *name)) {
            Some(name) => Err(server::Error::SameName { name: name.clone() }.into()),
            None => Ok(Named { also, with }),
        }
    }
}

impl Named {
    /// Whether one of them is fetched from a URL, if it is not a bare repository's.
    pub(crate) fn is_remote(&self) -> bool {
        let mut all = self.also.iter().chain(&self.with);
        all.any(|(_, origin)| matches!(origin, Origin::Remote(_)))
    }

    /// Fetches them while a person looks on: those that are written, and those that are shown.
    ///
    /// # Errors
    /// When one of them cannot be had, or the program is told to end.
    pub(crate) async fn fetch(
        self,
        node: &Node,
        context: &Context,
        signals: &mut Signals,
    ) -> Result<(Vec<Beside>, Vec<Beside>), Error> {
        let (mut also, mut with) = (Vec::new(), Vec::new());
        for (name, origin) in self.also {
            let progress = Progress::of(&origin, context.output);
            let one = node.also(name, &origin, &context.directory, progress.tell());
            also.push(signals.or(one).await??);
        }
        for (name, origin) in self.with {
            let progress = Progress::of(&origin, context.output);
            let one = node.beside(name, &origin, &context.directory, progress.tell());
            with.push(signals.or(one).await??);
        }
        Ok((also, with))
    }
}

/// Whether a source is the page of an issue.
pub(crate) fn is_issue(origin: &Origin) -> bool {
    matches!(origin, Origin::Remote(remote) if remote.issue().is_some())
}

/// The directory of the repository that a command is about: the one that is named, else the one that
/// the command works in. Nothing is fetched.
///
/// # Errors
/// When the source is none, or nothing was fetched from it yet.
pub(crate) fn known(node: &Node, repo: Option<&str>, context: &Context) -> Result<PathBuf, Error> {
    match repo {
        None => Ok(context.directory.clone()),
        Some(text) => Ok(node.known(&read(text)?, &context.directory)?),
    }
}

/// What a person is shown of a fetch: the line that it writes over again and again, on a terminal.
pub(crate) struct Progress {
    output: Output,
    screen: Arc<Mutex<Screen>>,
}

impl Progress {
    /// Says what is fetched, and shows how it goes on until the value is dropped.
    pub(crate) fn of(origin: &Origin, output: Output) -> Self {
        if let Origin::Remote(remote) = origin
            && !output.is_json()
        {
            let line = format!("fetching {}\n", text::line(&remote.to_string()));
            output.aside(&paint(FAINT, line));
        }
        Self {
            output,
            screen: Arc::default(),
        }
    }

    /// Who is told.
    pub(crate) fn tell(&self) -> Tell {
        if self.output.is_json() || !self.output.progress_is_seen() {
            return Arc::new(|_| {});
        }
        let screen = Arc::clone(&self.screen);
        Arc::new(move |line| {
            let width = screen::size(io::stderr()).0.max(1);
            let line = text::line(line);
            let shown: String = line.chars().take(width.saturating_sub(1)).collect();
            let mut drawn = screen.lock().unwrap_or_else(PoisonError::into_inner);
            draw(&drawn.frame(&[], &[paint(FAINT, shown)], width));
        })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let width = screen::size(io::stderr()).0;
        let mut drawn = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        draw(&drawn.rewind(width));
    }
}

/// Draws on the terminal. A terminal that is gone is noticed elsewhere.
fn draw(frame: &str) {
    drop(screen::put(anstream::stderr().lock(), frame));
}

/// Where the repositories of a request come from, a line for each that is not of this directory.
pub(crate) fn told(sources: &Sources) -> String {
    let mut out = String::new();
    let meant = sources.reference.as_deref();
    let meant = meant.map(|name| format!(", {}", text::line(short(name))));
    let meant = meant.unwrap_or_default();
    match &sources.url {
        Some(url) => out.push_str(&format!("  from {}{meant}\n", text::line(url))),
        None if !meant.is_empty() => out.push_str(&format!("  from here{meant}\n")),
        None => {}
    }
    if let Some(issue) = &sources.issue {
        out.push_str(&format!("  with the issue {}\n", text::line(issue)));
    }
    for beside in &sources.beside {
        out.push_str(&format!(
            "  beside it {}: {} at {}\n",
            text::line(&beside.name),
            text::line(&beside.origin),
            format::short(&beside.commit)
        ));
    }
    out
}

/// A reference as a person names it.
fn short(name: &str) -> &str {
    let kind = ["refs/heads/", "refs/tags/", "refs/"];
    kind.iter()
        .find_map(|kind| name.strip_prefix(kind))
        .unwrap_or(name)
}
