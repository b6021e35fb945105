//! `skep sandbox ssh-config`.

use super::data;
use crate::{context::Context, exit::Exit, report::Error, ssh};
use server::standing::find;
use std::path::Path;

/// What stands before the id or the name of a sandbox in the name of a host.
pub(super) const PREFIX: &str = "skep-";

/// Print the lines of a configuration by which ssh, and editors that use it, reach sandboxes
///
/// Keep them in a file of their own, and put `Include` of it at the top of ~/.ssh/config: of what ssh is
/// told of a host it takes the first, so that behind a `Host *` they may come too late.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep sandbox ssh-config > ~/.ssh/skep    # and `Include skep` at the top of ~/.ssh/config\n  ssh skep-try\n  skep sandbox ssh-config try"
)]
pub(super) struct Args {
    /// For this sandbox alone, by its id or name or the beginning of one; else for all, those to come too
    id: Option<String>,
}

#[derive(serde::Serialize)]
struct Object {
    /// What ssh is told.
    hosts: Vec<String>,
    /// The program and its arguments.
    proxy_command: String,
    known_hosts: String,
    /// The lines.
    text: String,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let data = data(context)?;
    let found = args.id.map(|id| find(&data, &id));
    let record = found.transpose().map_err(server::Error::from)?;
    let record = record.map(|held| held.record);
    let program = std::env::current_exe().map_err(|source| Error::System {
        doing: "finding the path of this program",
        source,
    })?;
    let known = ssh::tell_clients(&data)?;
    let (program, data) = (text(&program)?, text(&data)?);
    let known_hosts = text(&known)?;
    let (hosts, arguments) = match &record {
        Some(record) => {
            let id = record.id.to_string();
            let names = [Some(&id), record.name.as_ref()];
            let hosts = names.into_iter().flatten();
            (hosts.map(|it| format!("{PREFIX}{it}")).collect(), id)
        }
        None => (vec![format!("{PREFIX}*")], "--host %n".to_owned()),
    };
    let proxy_command = format!(
        "{} --data {} sandbox ssh {arguments}",
        word(program),
        word(data)
    );
    let text = lines(&hosts, &proxy_command, known_hosts);
    if context.output.is_json() {
        context.output.object(&Object {
            hosts,
            proxy_command,
            known_hosts: known_hosts.into(),
            text,
        })?;
    } else {
        context.output.say(&text)?;
    }
    Ok(Exit::Done)
}

fn lines(hosts: &[String], proxy_command: &str, known_hosts: &str) -> String {
    let hosts = hosts.join(" ");
    let alias = ssh::ALIAS;
    let known = known_hosts.replace('%', "%%");
    format!(
        "Host {hosts}
    ProxyCommand {proxy_command}
    User agent
    HostKeyAlias {alias}
    UserKnownHostsFile \"{known}\"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    IdentityAgent none
    IdentityFile none
    ForwardAgent no
    ForwardX11 no
"
    )
}

/// A path that can stand in a line.
fn text(path: &Path) -> Result<&str, Error> {
    let fits = |text: &&str| !text.contains(|c: char| c.is_control() || c == '"');
    let text = path.to_str().filter(fits);
    text.ok_or_else(|| {
        Error::Usage(format!(
            "the path {} cannot stand in a configuration of ssh: it has characters that end a line or a word",
            path.display()
        ))
    })
}

/// As one word of a shell, in a line where ssh reads `%`.
fn word(text: &str) -> String {
    let text = text.replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+%:,@".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_whatever_is_in_it() {
        assert_eq!(word("/usr/bin/skep"), "/usr/bin/skep");
        assert_eq!(word("/a b/100%/it's"), r"'/a b/100%%/it'\''s'");
        assert!(text(Path::new("/a\nProxyCommand evil")).is_err());
        assert!(text(Path::new("/a\"b")).is_err());
    }
}
