//! Where words go: results to standard output, everything else to standard error.

use crate::{
    report::{Error, Report},
    view::screen,
};
use serde::Serialize;
use std::io::{self, IsTerminal as _, Write as _};

/// The narrowest output that is laid out for.
const NARROWEST: usize = 40;
/// The columns of output that goes to no terminal.
const PLAIN: usize = 100;

/// The outputs of the program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// The outputs; with `json`, results are objects instead of text.
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are objects.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// Whether a person looks at results.
    pub(crate) fn result_is_seen(self) -> bool {
        io::stdout().is_terminal()
    }

    /// Whether a person looks at what goes on.
    pub(crate) fn progress_is_seen(self) -> bool {
        io::stderr().is_terminal()
    }

    /// The columns that results may take.
    pub(crate) fn width(self) -> usize {
        if self.result_is_seen() {
            screen::size(io::stdout()).0.max(NARROWEST)
        } else {
            PLAIN
        }
    }

    /// Writes a part of the result.
    ///
    /// # Errors
    /// [`Error::OutputClosed`] when nobody reads it any more.
    pub(crate) fn say(self, text: &str) -> Result<(), Error> {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(Error::of_output)
    }

    /// Writes bytes as they are, for programs.
    ///
    /// # Errors
    /// [`Error::OutputClosed`] when nobody reads them any more.
    pub(crate) fn raw(self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(Error::of_output)
    }

    /// Writes an object on a line of its own.
    ///
    /// # Errors
    /// [`Error::OutputClosed`] when nobody reads it any more.
    pub(crate) fn object(self, object: &impl Serialize) -> Result<(), Error> {
        let mut line = serde_json::to_vec(object).map_err(|error| {
            Error::Internal(format!("a result could not be written as JSON: {error}"))
        })?;
        line.push(b'\n');
        self.raw(&line)
    }

    /// Says what went wrong, where there is anything to say.
    pub(crate) fn report(self, report: &Report) {
        if !report.is_silent() {
            self.aside(&match self.json {
                true => report.object(),
                false => report.render(),
            });
        }
    }

    /// Says something about what goes on. A standard error that is closed is nobody's loss.
    pub(crate) fn aside(self, text: &str) {
        let mut err = anstream::stderr().lock();
        drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
    }
}
