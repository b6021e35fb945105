//! What a person's place gets beyond what every one has.

use super::error::Error as StandingError;
use crate::{Error, Node, submit::blocking};
use domain::entity::Beside;
use sandbox::{Extras, Kind};
use serde::{Deserialize, Serialize};
use site::Site;
use std::path::PathBuf;

/// What a place is to get beyond what every one has: never by a word of a repository.
#[derive(Debug, Clone, Default)]
pub struct More {
    /// Secrets and devices.
    pub extras: Extras,
    /// The person's own settings for programs.
    pub dotfiles: Option<Dotfiles>,
}

/// Where a person's settings for programs are.
#[derive(Debug, Clone)]
pub enum Dotfiles {
    /// In a directory of this machine.
    Directory(PathBuf),
    /// In a repository, as [`Node::beside`] gives it.
    Repository(Beside),
}

/// What a place has got, for people and programs: of secrets their names alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The names of its secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Its devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<PathBuf>,
    /// Whether namespaces can be made in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nested: bool,
    /// Its dotfiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dotfiles: Option<Put>,
}

/// Dotfiles that are in a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The directory, or the URL.
    pub from: String,
    /// What was left out because it may be a credential: the first paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The script that was run, and how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
}

/// A script of dotfiles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub exit: sandbox::Exit,
    /// Its last lines where it failed, without the values of secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
}

impl Node {
    /// What a place gets of this, and of what is configured for every one; its dotfiles come later.
    pub(super) fn extras_of(&self, more: &More) -> Result<Given, Error> {
        let asked = &more.extras;
        let mut devices: Vec<PathBuf> = Vec::new();
        let mut configured = Vec::new();
        if self.sites.kind() != Kind::Host {
            configured = sandbox::devices::find(&self.options.devices)
                .map_err(|error| Error::Sandbox(error.into()))?;
        }
        for device in asked.devices.iter().chain(&configured) {
            if devices.iter().all(|known| known != device.path()) {
                devices.push(device.path().to_owned());
            }
        }
        Ok(Given {
            secrets: asked.secrets.iter().map(|it| it.name().into()).collect(),
            devices,
            nested: asked.nested || self.options.nested && self.sites.kind().is_sealed(),
            dotfiles: None,
        })
    }

    /// Puts dotfiles into a place in which nothing has run.
    pub(super) async fn put(&self, dotfiles: &Dotfiles, site: &Site) -> Result<Put, Error> {
        let (from, directory) = match dotfiles {
            Dotfiles::Directory(path) => (path.display().to_string(), path.clone()),
            Dotfiles::Repository(one) => {
                let shown = self.shown(std::slice::from_ref(one)).await?;
                let checked_out = self.sites.checked_out(&shown).await?;
                let path = checked_out.into_iter().next().ok_or(Error::Ended)?;
                (one.origin.clone(), path)
            }
        };
        let home = self.options.home.clone();
        let read = blocking(move || Ok(site::Dotfiles::read(&directory, &home)?)).await;
        let read = read.map_err(of_dotfiles)?;
        let left_out = read.left_out.clone();
        let installed = site.put_dotfiles(read).await;
        let installed = installed.map_err(|error| of_dotfiles(error.into()))?;
        Ok(Put {
            from,
            left_out,
            script: installed.map(|it| Script {
                name: it.script.to_owned(),
                exit: it.exit,
                output: it.output,
            }),
        })
    }
}

/// What a person can see to is said without the rooms that it went through.
fn of_dotfiles(error: Error) -> Error {
    match error {
        Error::Site(site @ site::Error::Dotfiles(_)) => {
            StandingError::Dotfiles(site.to_string()).into()
        }
        other => other,
    }
}
