//! What leads out of a sandbox besides models, and how programs inside find it.

use crate::{Error, site::MAX_OUTPUT};
use domain::egress::Registry;
use gateway::{Egress, Served};
use sandbox::{Command, Sandbox, Stdin};
use std::{ffi::OsString, sync::Arc, time::Duration};

/// How long writing the certificates may take.
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
/// its channel. Where requests are looked into, the certificates are written into its home.
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
    environment.extend(egress.registries().into_iter().filter_map(asks));
    if let Some(certificates) = egress.certificates() {
        let file = sandbox.home().join(".skep-certificates.pem");
        // By a command inside, because an agent may have left a link there.
        let script = "rm -rf -- \"$1\" && cat > \"$1\"";
        let words = ["sh".into(), "-c".into(), script.into(), "sh".into()];
        let command = Command::new(
            words.into_iter().chain([file.clone().into_os_string()]),
            sandbox.home(),
        )
        .with_env(sandbox.base_env())
        .with_stdin(Stdin::Bytes(certificates.into_bytes()))
        .with_timeout(WRITING);
        let written = sandbox::exec_captured(sandbox, command, MAX_OUTPUT).await?;
        if !written.exit.success() {
            return Err(Error::Certificates(written.exit.to_string()));
        }
        let file = file.into_os_string();
        environment.extend(CERTIFICATES.map(|name| (name.into(), file.clone())));
    }
    Ok(environment)
}
