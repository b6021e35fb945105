//! With what a repository is reached: the few variables of the user's environment that lead to keys, agents and
//! proxies, the user's credential helpers, or a token.

use std::ffi::OsString;
use std::fmt;
use std::process::Command;

use bstr::ByteSlice;

use super::{Protocol, Remote};
use crate::error::Error;
use crate::process::Call;

/// The variables of the user's environment that git and what it starts may see: where keys and agents are, and how the
/// network is reached.
const VARIABLES: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "SSH_AUTH_SOCK",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "GNUPGHOME",
    "GH_CONFIG_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// Where the user's configuration is, for the one question for `credential.*`.
const CONFIGURATION: &[&str] = &[
    "HOME",
    "XDG_CONFIG_HOME",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
];

/// The names of all variables of the user's environment that [`Access`] reads, for whoever starts a process
/// that is to reach repositories. Some are in it twice.
pub fn variables() -> impl Iterator<Item = &'static str> {
    VARIABLES.iter().chain(CONFIGURATION).copied()
}

/// The user's `ssh`, which asks nothing and forwards nothing.
const SSH: &str = "ssh -oBatchMode=yes -oConnectTimeout=30 -oClearAllForwardings=yes \
                   -oForwardAgent=no -oPermitLocalCommand=no -oControlMaster=no";

/// What answers for a token. It is in no argument, and the user's own helpers do not come to store it.
const TOKEN_HELPER: &str = "!f() { test \"$1\" = get && \
                            printf 'username=%s\\npassword=%s\\n' \"$SKEP_USERNAME\" \"$SKEP_TOKEN\"; }; f";

/// The most bytes of the user's settings that are read.
const MAX_SETTINGS: usize = 1 << 20;

/// With what a repository is reached.
#[derive(Clone, Default)]
pub struct Access {
    variables: Vec<(&'static str, OsString)>,
    configuration: Vec<(&'static str, OsString)>,
    token: Option<Token>,
}

/// A secret for one host.
#[derive(Clone)]
pub struct Token {
    /// The name that goes with it.
    pub username: String,
    /// The secret.
    pub secret: String,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.is_some();
        f.debug_struct("Access").field("token", &token).finish()
    }
}

impl Access {
    /// As the user whose environment this is.
    pub fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Access {
        let take = |names: &'static [&'static str]| {
            names
                .iter()
                .filter_map(|name| Some((*name, variable(name)?)))
                .collect()
        };
        Access {
            variables: take(VARIABLES),
            configuration: take(CONFIGURATION),
            token: None,
        }
    }

    /// The same with a token for the host, instead of the user's credential helpers. It is given to that host alone,
    /// when it asks.
    #[must_use]
    pub fn with_token(mut self, token: Option<Token>) -> Access {
        self.token = token;
        self
    }
}

impl Remote {
    /// A command in the copy that may reach the URL, and nothing by another protocol.
    pub(super) fn reaching(&self, access: &Access) -> Result<Command, Error> {
        let mut command = self.program.trusted(&self.directory)?;
        command
            .envs(access.variables.iter().map(|(name, value)| (name, value)))
            .env("GIT_SSH_COMMAND", SSH)
            .env("GIT_SSH_VARIANT", "ssh")
            .env("SSH_ASKPASS_REQUIRE", "never");
        let name = self.protocol.name();
        let mut settings = vec![
            (format!("protocol.{name}.allow"), "always".to_owned()),
            ("core.askPass".to_owned(), String::new()),
        ];
        if matches!(self.protocol, Protocol::Https | Protocol::Http) {
            settings.extend(self.credentials(access)?);
        }
        if let Some(token) = &access.token {
            command
                .env("SKEP_USERNAME", &token.username)
                .env("SKEP_TOKEN", &token.secret);
        }
        // By the environment: a helper's command line may be private, and arguments are seen by all.
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (name, value)) in settings.iter().enumerate() {
            command
                .env(format!("GIT_CONFIG_KEY_{index}"), name)
                .env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        for setting in [
            "protocol.version=2",
            "transfer.credentialsInUrl=die",
            "transfer.bundleURI=false",
            "fetch.fsckObjects=true",
            // What old and sound histories have, as the large forges take it too: see Gitaly's own
            // settings.
            "fetch.fsck.badTimezone=ignore",
            "fetch.fsck.missingSpaceBeforeDate=ignore",
            "fetch.fsck.zeroPaddedFilemode=ignore",
            "fetch.unpackLimit=1",
            "fetch.recurseSubmodules=false",
            "http.followRedirects=initial",
            "http.lowSpeedLimit=1",
            "http.lowSpeedTime=120",
        ] {
            command.arg("-c").arg(setting);
        }
        Ok(command)
    }

    /// The settings `credential.*`: of the user's configuration, or for the token. Which of them are for this host is
    /// git's to say.
    fn credentials(&self, access: &Access) -> Result<Vec<(String, String)>, Error> {
        if access.token.is_some() {
            let at = self.url.splitn(4, '/').take(3).collect::<Vec<_>>();
            let name = format!("credential.{}.helper", at.join("/"));
            return Ok(vec![(name, TOKEN_HELPER.to_owned())]);
        }
        let doing = "looking for credential helpers";
        let mut command = Command::new(self.program.path());
        command
            .env_clear()
            .env("PATH", self.program.search())
            .env("LC_ALL", "C")
            .envs(
                access
                    .configuration
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .current_dir("/")
            // In no repository.
            .args(["--git-dir=/dev/null", "config", "--null", "--includes"])
            .args(["--get-regexp", r"^credential\."]);
        let call = Call::new(doing, command).limit(MAX_SETTINGS);
        let output = self.program.execute(call)?;
        match output.code {
            Some(0) => {}
            // There are none.
            Some(1) => return Ok(Vec::new()),
            _ => return Err(output.failure(doing)),
        }
        let text = |bytes: &[u8]| bytes.to_str().ok().map(str::to_owned);
        let settings = output
            .stdout
            .split(|byte| *byte == 0)
            .filter(|setting| !setting.is_empty())
            .filter_map(|setting| match setting.split_once_str("\n") {
                Some((name, value)) => Some((text(name)?, text(value)?)),
                None => Some((text(setting)?, "true".to_owned())),
            });
        Ok(settings.collect())
    }
}
