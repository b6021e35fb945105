//! What leads out of a sandbox besides models, and how programs inside find it.

use crate::{Error, java, site::MAX_OUTPUT};
use domain::egress::Registry;
use gateway::{Egress, Served};
use sandbox::{Command, Sandbox, Stdin};
use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

/// How long writing a file may take.
const WRITING: Duration = Duration::from_secs(10);

/// Variables by which programs find a proxy. curl reads the first of them in small letters only.
const PROXY: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

/// What is not asked of it: the sandbox's own loopback, where the gateway listens, too.
const NOT_THERE: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Variables by which programs find the certificates that they trust.
const CERTIFICATES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "NIX_SSL_CERT_FILE",
];

/// The way out of a sandbox while it is open.
pub(crate) struct Way {
    pub(crate) served: Served,
    pub(crate) environment: Vec<(OsString, OsString)>,
}

impl Way {
    /// Serves egress on the sandbox's channel; none where it has no channel.
    pub(crate) async fn open(
        egress: &Egress,
        sandbox: &dyn Sandbox,
    ) -> Result<Option<Self>, Error> {
        let Some(channel) = sandbox.take_channel() else {
            return Ok(None);
        };
        let admits = channel
            .guard
            .map(|guard| Arc::new(move |peer| guard.admits(peer)) as gateway::Admits);
        let served = Served::start(None, Some(egress.clone()), channel.listener, admits)
            .map_err(Error::Channel)?;
        let environment = environment_of(egress, sandbox, channel.port).await?;
        Ok(Some(Self {
            served,
            environment,
        }))
    }
}

/// What tells the programs of a registry that they may ask it: without a network, what a sandbox gets of
/// a toolchain says that they must not.
fn asks(registry: Registry) -> Option<(OsString, OsString)> {
    let (name, value) = match registry {
        Registry::Cargo => ("CARGO_NET_OFFLINE", "false"),
        Registry::Npm => ("npm_config_offline", "false"),
        Registry::Pypi => ("PIP_NO_INDEX", "0"),
        // Empty, it is what `go` has by itself.
        Registry::Go => ("GOPROXY", ""),
        Registry::Maven | Registry::Apt => return None,
    };
    Some((name.into(), value.into()))
}

/// What commands in a sandbox need in their environment so that they find its egress at this port of
/// its channel. What is no variable is written into its home: the certificates, where requests are
/// looked into, and settings of programs that read no variables.
///
/// # Errors
/// When they cannot be written.
pub async fn environment_of(
    egress: &Egress,
    sandbox: &dyn Sandbox,
    port: u16,
) -> Result<Vec<(OsString, OsString)>, Error> {
    let at = format!("http://127.0.0.1:{port}");
    let proxy = PROXY.iter().map(|name| (name, at.as_str()));
    let not_there = NOT_THERE.iter().map(|name| (name, "127.0.0.1,localhost"));
    let node = [(&"NODE_USE_ENV_PROXY", "1")];
    let mut environment: Vec<(OsString, OsString)> = proxy
        .chain(not_there)
        .chain(node)
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let registries = egress.registries();
    let is_asked = |registry| registries.contains(&registry);
    environment.extend(registries.iter().copied().filter_map(asks));
    let home = Home { sandbox };
    let certificates = match egress.certificates() {
        Some(pem) => {
            let bytes = pem.clone().into_bytes();
            let file = home.write(".skep-certificates.pem", bytes).await?;
            let told = |name: &&str| (name.into(), file.clone().into_os_string());
            environment.extend(CERTIFICATES.iter().map(told));
            Some((pem, file))
        }
        None => None,
    };
    if is_asked(Registry::Maven) {
        home.write(".m2/settings.xml", java::maven_settings(port))
            .await?;
        let store = match &certificates {
            Some((pem, _)) => {
                let store = java::trust_store(pem);
                Some(home.write(".skep-certificates.jks", store).await?)
            }
            None => None,
        };
        let options = java::options(port, store.as_deref());
        environment.push(("JAVA_TOOL_OPTIONS".into(), options));
    }
    if let Some((_, file)) = certificates.filter(|_| is_asked(Registry::Apt)) {
        let settings = format!("Acquire::https::CAInfo \"{}\";\n", file.display());
        let file = home.write(".skep-apt.conf", settings.into_bytes()).await?;
        environment.push(("APT_CONFIG".into(), file.into()));
    }
    Ok(environment)
}

/// The home of a sandbox. An agent may have left links in it: what is written is written by a command
/// inside.
struct Home<'a> {
    sandbox: &'a dyn Sandbox,
}

impl Home<'_> {
    /// Writes a file, and says where it is seen inside.
    async fn write(&self, name: &str, bytes: Vec<u8>) -> Result<PathBuf, Error> {
        let home = self.sandbox.home();
        let file = home.join(name);
        let directory = file.parent().unwrap_or(home).to_owned();
        let script = r#"mkdir -p -- "$1" && rm -rf -- "$2" && cat > "$2""#;
        let words = ["sh".into(), "-c".into(), script.into(), "sh".into()];
        let paths = [directory.into_os_string(), file.clone().into_os_string()];
        let command = Command::new(words.into_iter().chain(paths), home)
            .with_env(self.sandbox.base_env())
            .with_stdin(Stdin::Bytes(bytes))
            .with_timeout(WRITING);
        let written = sandbox::exec_captured(self.sandbox, command, MAX_OUTPUT).await?;
        if !written.exit.success() {
            return Err(Error::Settings {
                file,
                why: written.exit.to_string(),
            });
        }
        Ok(file)
    }
}
