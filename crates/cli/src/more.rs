//! What a person asks for their sandbox beyond what every one has: secrets, devices, dotfiles.

use crate::{
    config::file::is_variable,
    context::Context,
    report::Error,
    signals::Signals,
    sources::Progress,
    view::{
        paint::{LOOK, paint},
        text,
    },
};
use domain::origin::Origin;
use sandbox::{
    Extras, Secret, devices,
    extras::{ALL_SECRETS, LONGEST_SECRET, MOST_SECRETS},
};
use serde::{Deserialize, Serialize};
use server::{
    Node,
    standing::{Dotfiles, Given, More},
};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    os::fd::AsFd as _,
    os::unix::net::UnixStream,
    path::PathBuf,
};

/// The longest list of secrets as it is handed on: a byte takes four.
const LONGEST_LIST: u64 = 4 << 20;
/// What names the input as the place of a secret.
const INPUT: &str = "-";
const VARIABLE: &str = "env:";
/// What whoever holds a sandbox needs of the environment, a secret or not: where it finds itself.
const NEEDED: [&str; 11] = [
    "HOME",
    "PATH",
    "USER",
    "TMPDIR",
    "SKEP_CONFIG",
    "SKEP_DATA",
    "SKEP_LOG",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
];

/// The secrets of a sandbox, as a command line names them.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Secrets {
    /// Show what a file holds as /run/skep/secrets/NAME, in memory alone; or `NAME=env:VARIABLE`, or
    /// NAME for what comes from the standard input; may be given several times
    #[arg(long = "secret", value_name = "NAME[=SOURCE]")]
    secrets: Vec<String>,
}

impl Secrets {
    /// Reads them. `has_input` says that the standard input is not a command's.
    ///
    /// # Errors
    /// When one of them cannot be read, or there are more than may be.
    pub(crate) fn read(&self, context: &Context, has_input: bool) -> Result<Vec<Secret>, Error> {
        if self.secrets.len() > MOST_SECRETS {
            let words = format!("`--secret` is given more than {MOST_SECRETS} times");
            return Err(Error::Usage(words));
        }
        let mut all: Vec<Secret> = Vec::new();
        let mut is_read = false;
        let mut room = ALL_SECRETS;
        for text in &self.secrets {
            let (name, source) = text.split_once('=').unwrap_or((text, INPUT));
            if source == INPUT && !has_input {
                return Err(Error::Usage(format!(
                    "the input is the command's: name where the secret is, as `--secret {name}=FILE` or `--secret {name}=env:VARIABLE`"
                )));
            }
            if source == INPUT && std::mem::replace(&mut is_read, true) {
                let words = "two secrets cannot both be what comes from the standard input";
                return Err(Error::Usage(words.into()));
            }
            // Refused before anything is read for it.
            secret(name, Vec::new())?;
            let one = secret(name, value(name, source, context)?)?;
            if all.iter().any(|other| other.name() == one.name()) {
                let words = format!("two secrets have the name `{}`", one.name());
                return Err(Error::Usage(words));
            }
            room = room.checked_sub(one.value().len()).ok_or_else(|| {
                Error::Usage(format!(
                    "the secrets have more than {ALL_SECRETS} bytes together"
                ))
            })?;
            all.push(one);
        }
        Ok(all)
    }

    /// The variables that hold some of them: whoever holds a sandbox has no need of those, but of where
    /// it finds itself.
    pub(crate) fn variables(&self) -> Vec<OsString> {
        let sources = self.secrets.iter().filter_map(|text| text.split_once('='));
        let named = sources.filter_map(|(_, source)| source.strip_prefix(VARIABLE));
        let free = named.filter(|name| !NEEDED.contains(name));
        free.map(Into::into).collect()
    }
}

fn secret(name: &str, value: Vec<u8>) -> Result<Secret, Error> {
    Secret::new(name, value).map_err(|error| match error {
        sandbox::Error::Spec { what } => Error::Usage(what),
        other => Error::Usage(other.to_string()),
    })
}

fn value(name: &str, source: &str, context: &Context) -> Result<Vec<u8>, Error> {
    if let Some(variable) = source.strip_prefix(VARIABLE) {
        if !is_variable(variable) {
            let words = format!("`--secret {name}=env:` wants the name of a variable behind it");
            return Err(Error::Usage(words));
        }
        let value = context.env.get(variable).ok_or_else(|| {
            Error::Usage(format!(
                "the variable `{variable}` is not set, and the secret `{name}` is to be its value"
            ))
        })?;
        return Ok(std::os::unix::ffi::OsStringExt::into_vec(value));
    }
    let mut bytes = Vec::new();
    // One more than may be, so that what is longer is seen.
    let most = LONGEST_SECRET as u64 + 1;
    let doing = "reading the secret from";
    let read = match source {
        INPUT => {
            let read = io::stdin().lock().take(most).read_to_end(&mut bytes);
            read.map_err(|source| Error::File {
                doing,
                path: PathBuf::from("the standard input"),
                source,
            })
        }
        _ => {
            let path = context.directory.join(source);
            let read = File::open(&path).and_then(|file| file.take(most).read_to_end(&mut bytes));
            read.map_err(|source| Error::Named {
                doing,
                path,
                source,
            })
        }
    };
    read.map(|_| bytes)
}

/// What else is asked for, as words that others can be told.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Wishes {
    /// Give it a device of this machine, at the same path: a path below /dev, or `gpu`; may be given
    /// several times
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Let what runs in it make namespaces of its own: containers, or sandboxes. More of the kernel can be
    /// reached then
    #[arg(long)]
    nested: bool,
    /// Put your settings for programs into its home: a directory, or a URL to fetch them from
    /// [default: `dotfiles` of `[shell]` in the configuration]
    #[arg(long, value_name = "SOURCE")]
    dotfiles: Option<String>,
    /// Without dotfiles, whatever is configured
    #[arg(long, conflicts_with = "dotfiles")]
    no_dotfiles: bool,
}

impl Wishes {
    /// What another sandbox was given, to be asked for again.
    pub(crate) fn of(given: &Given) -> Self {
        let (devices, nested) = (given.devices.iter(), given.nested);
        let dotfiles = given.dotfiles.as_ref().map(|put| put.from.clone());
        Self {
            devices: devices
                .map(|it| it.to_string_lossy().into_owned())
                .collect(),
            nested,
            no_dotfiles: dotfiles.is_none(),
            dotfiles,
        }
    }

    /// The same as words of a command line.
    pub(crate) fn words(&self) -> impl Iterator<Item = String> {
        let devices = self.devices.iter().map(|it| format!("--device={it}"));
        let dotfiles = self.dotfiles.iter().map(|it| format!("--dotfiles={it}"));
        let nested = self.nested.then(|| "--nested".to_owned());
        let without = self.no_dotfiles.then(|| "--no-dotfiles".to_owned());
        devices.chain(nested).chain(dotfiles).chain(without)
    }

    /// Looks at what is asked for, before anything is made of it, and says whether something is to be
    /// fetched for it.
    ///
    /// # Errors
    /// When a device cannot be given, or the dotfiles are nowhere.
    pub(crate) fn check(&self, context: &Context) -> Result<bool, Error> {
        devices::find(&self.devices)?;
        let origin = self.origin(context)?;
        Ok(matches!(origin, Some(Origin::Remote(_))))
    }

    /// Where the dotfiles are, if there are to be some.
    fn origin(&self, context: &Context) -> Result<Option<Origin>, Error> {
        let text = match (&self.dotfiles, self.no_dotfiles) {
            (_, true) => return Ok(None),
            (Some(text), false) => text.clone(),
            (None, false) => match context.config()?.0.shell.dotfiles {
                Some(text) => text,
                None => return Ok(None),
            },
        };
        match crate::sources::read(&text)? {
            Origin::Path(path) => Ok(Some(Origin::Path(context.named_directory(&path)?))),
            remote @ Origin::Remote(_) if crate::sources::is_issue(&remote) => Err(Error::Usage(
                "dotfiles are a directory or a repository".into(),
            )),
            remote @ Origin::Remote(_) => Ok(Some(remote)),
        }
    }

    /// All of it, with what must be fetched.
    ///
    /// # Errors
    /// As [`Wishes::check`]; when a repository cannot be had, or the program is told to end.
    pub(crate) async fn fetch(
        &self,
        secrets: Vec<Secret>,
        node: &Node,
        context: &Context,
        signals: &mut Signals,
    ) -> Result<More, Error> {
        let extras = Extras {
            secrets,
            devices: devices::find(&self.devices)?,
            nested: self.nested,
        };
        let dotfiles = match self.origin(context)? {
            None => None,
            Some(Origin::Path(path)) => Some(Dotfiles::Directory(path)),
            Some(origin) => {
                let progress = Progress::of(&origin, context.output);
                let name = "dotfiles".to_owned();
                let one = node.beside(name, &origin, &context.directory, progress.tell());
                Some(Dotfiles::Repository(signals.or(one).await??))
            }
        };
        Ok(More { extras, dotfiles })
    }
}

/// A secret on its way to the process that holds a sandbox.
#[derive(Serialize, Deserialize)]
struct Handed {
    name: String,
    value: Vec<u8>,
}

/// Secrets as one line, for the process that is to hold them.
///
/// # Errors
/// When they cannot be written down.
pub(crate) fn hand(secrets: &[Secret]) -> Result<Vec<u8>, Error> {
    let all = secrets.iter().map(|one| Handed {
        name: one.name().to_owned(),
        value: one.value().to_vec(),
    });
    let all: Vec<Handed> = all.collect();
    let line = serde_json::to_vec(&all).map_err(|error| Error::Internal(error.to_string()))?;
    Ok([line.as_slice(), b"\n"].concat())
}

/// Takes secrets from whoever started this process, through the socket that its output is.
///
/// # Errors
/// When none come, or they are none.
pub(crate) fn take() -> Result<Vec<Secret>, Error> {
    let failed = |source| Error::System {
        doing: "taking the secrets of the sandbox",
        source,
    };
    let output = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut from = UnixStream::from(output).take(LONGEST_LIST);
    let mut line = Vec::new();
    let mut byte = [0; 4096];
    while !line.ends_with(b"\n") {
        match from.read(&mut byte).map_err(failed)? {
            0 => break,
            count => line.extend_from_slice(byte.get(..count).unwrap_or_default()),
        }
    }
    let all: Vec<Handed> =
        serde_json::from_slice(&line).map_err(|error| failed(io::Error::other(error)))?;
    let all = all.into_iter().map(|one| secret(&one.name, one.value));
    all.collect()
}

/// What a person is told of what their sandbox has got, a line each.
pub(crate) fn told(given: &Given) -> String {
    let mut out = String::new();
    for name in &given.secrets {
        out.push_str(&format!(
            "  with the secret {}/{}\n",
            sandbox::extras::SECRETS,
            text::line(name)
        ));
    }
    if given.nested {
        out.push_str("  with namespaces of its own: more of the kernel can be reached\n");
    }
    for device in &given.devices {
        let device = device.to_string_lossy();
        out.push_str(&format!("  with the device {}\n", text::line(&device)));
    }
    let Some(put) = &given.dotfiles else {
        return out;
    };
    out.push_str(&format!(
        "  with the dotfiles of {}\n",
        text::line(&put.from)
    ));
    let mut note = |words: String| out.push_str(&format!("{} {words}\n", paint(LOOK, "note:")));
    if !put.left_out.is_empty() {
        let names: Vec<String> = put.left_out.iter().map(|it| text::line(it)).collect();
        note(format!(
            "not taken of the dotfiles, as {} may be a credential: {}",
            match names.len() {
                1 => "it",
                _ => "each",
            },
            names.join(", ")
        ));
    }
    if let Some(script) = put.script.as_ref().filter(|it| !it.exit.success()) {
        note(format!(
            "`{}` of the dotfiles failed: {}; mend it, or leave them out with `--no-dotfiles`",
            text::line(&script.name),
            script.exit
        ));
        for line in &script.output {
            out.push_str(&format!("  {}\n", text::line(line)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_a_secret_is_taken_from_stays_only_where_it_says_where_things_are() {
        let names = [
            "TOKEN",
            "SKEP_TOKEN",
            "SKEP_DATA",
            "XDG_SESSION_COOKIE",
            "XDG_RUNTIME_DIR",
            "HOME",
        ];
        let mut secrets: Vec<String> = names.iter().map(|it| format!("x=env:{it}")).collect();
        secrets.extend(["x=TOKEN_FILE".to_owned(), "input".to_owned()]);
        let variables = Secrets { secrets }.variables();
        assert_eq!(variables, ["TOKEN", "SKEP_TOKEN", "XDG_SESSION_COOKIE"]);
    }
}
