//! What every command is given.

use crate::{
    cli::Global,
    config::{Environment, File},
    output::Output,
    report::{Error, Report},
    view::{
        paint::{LOOK, paint},
        text,
    },
};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where words go.
    pub(crate) output: Output,
    /// The variables of the environment.
    pub(crate) env: Environment,
    /// The directory that the command works in, absolute.
    pub(crate) directory: PathBuf,
    data: Option<PathBuf>,
}

impl Context {
    /// The name of who asks, for fair turns; the number of the user where it has none.
    pub(crate) fn user(&self) -> String {
        const LONGEST: usize = 64;
        let named = self.env.text("USER").filter(|name| {
            !name.is_empty() && name.len() <= LONGEST && !name.contains(char::is_control)
        });
        named.unwrap_or_else(|| rustix::process::getuid().as_raw().to_string())
    }

    /// From the command line and the environment.
    ///
    /// # Errors
    /// When there is no such directory.
    pub(crate) fn new(global: Global, env: Environment) -> Result<Self, Error> {
        let given = global.directory.as_deref().unwrap_or(Path::new("."));
        let directory = directory(given)?;
        Ok(Self {
            output: Output::new(global.json),
            env,
            directory,
            data: global.data,
        })
    }

    /// The configuration, and the file that it is from.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub(crate) fn config(&self) -> Result<(File, PathBuf), Error> {
        let path = self.env.config_file()?;
        Ok((File::read(&path)?, path))
    }

    /// A directory that the command line names, seen from the one that the command works in.
    ///
    /// # Errors
    /// When there is no such directory.
    pub(crate) fn named_directory(&self, given: &Path) -> Result<PathBuf, Error> {
        directory(&self.directory.join(given))
    }

    /// The directory that holds what Skep keeps, absolute. A relative one is seen from where the
    /// program was started, whatever directory it is to work in.
    ///
    /// # Errors
    /// When nothing names one.
    pub(crate) fn data(&self, config: &File) -> Result<PathBuf, Error> {
        let data = match &self.data {
            Some(data) => data.clone(),
            None => self.env.data(config.data.as_deref())?,
        };
        std::path::absolute(&data).map_err(|source| Error::File {
            doing: "finding the data directory",
            path: data,
            source,
        })
    }

    /// As [`Context::data`], for what needs nothing else of the configuration: mistakes in it do not matter.
    /// Where it cannot be told what it says of the directory, that is noted, and the usual one is meant.
    ///
    /// # Errors
    /// When nothing names one.
    pub(crate) fn data_even_so(&self) -> Result<PathBuf, Error> {
        let error = match self.config() {
            Ok((config, _)) => return self.data(&config),
            Err(error) => error,
        };
        if self.data.is_some() || self.env.get("SKEP_DATA").is_some() {
            return self.data(&File::default());
        }
        let place = self.env.config_file();
        match place.ok().and_then(|place| File::data_of(&place)) {
            Some(data) => self.data(&File {
                data,
                ..File::default()
            }),
            None => {
                let report = Report::of(&error);
                self.output.aside(&format!(
                    "{} the usual data directory is meant, because the configuration cannot be read: {}\n",
                    paint(LOOK, "note:"),
                    text::line(&report.message)
                ));
                self.data(&File::default())
            }
        }
    }

    /// The ledger, for commands that only look and need nothing that works.
    ///
    /// # Errors
    /// When the configuration is wrong, or the ledger cannot be opened.
    pub(crate) async fn ledger(&self) -> Result<ledger::Ledger, Error> {
        let (config, _) = self.config()?;
        let data = self.data(&config)?;
        Ok(ledger::Ledger::open(ledger::Options::new(data)).await?)
    }
}

/// The directory that a command works in, absolute.
fn directory(given: &Path) -> Result<PathBuf, Error> {
    let missing = || Error::Usage(format!("there is no directory {}", given.display()));
    let found = given.canonicalize().map_err(|source| match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => missing(),
        _ => Error::File {
            doing: "opening the directory",
            path: given.into(),
            source,
        },
    })?;
    // What is below a file is never found; the file itself is.
    if found.is_dir() {
        Ok(found)
    } else {
        Err(missing())
    }
}
