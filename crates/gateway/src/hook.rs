//! Webhooks: a message to an address that a person has configured.

use crate::{
    client::{Client, Pieces},
    secret::Secret,
};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use std::{fmt, time::Duration};

/// How long a message may take, from the connection to the head of the answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a message did not arrive. Nothing in it is of the address but the host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("the address of a webhook must be `https://HOST/PATH` or `http://HOST/PATH`")]
    Address,
    /// A message cannot be sent from here.
    #[error("no message can be sent")]
    Setup(#[source] crate::Error),
    /// There was no answer in time.
    #[error("{host} did not answer within {} s", LIMIT.as_secs())]
    Late {
        /// The host.
        host: String,
    },
    /// The connection could not be made, or broke.
    #[error("{host} could not be reached")]
    Unreachable {
        /// The host.
        host: String,
        /// What the connection said.
        source: hyper_util::client::legacy::Error,
    },
    /// The message was not taken.
    #[error("{host} answered {status}")]
    Refused {
        /// The host.
        host: String,
        /// The status of the answer.
        status: StatusCode,
    },
}

impl Error {
    /// Whether the same message may arrive another time.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Address => false,
            Self::Refused { status, .. } => {
                !status.is_client_error()
                    || matches!(
                        *status,
                        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            Self::Setup(_) | Self::Late { .. } | Self::Unreachable { .. } => true,
        }
    }
}

/// An address that takes messages. It may hold a secret, so that only its host is ever shown.
#[derive(Clone)]
pub struct Hook {
    address: Secret,
    host: String,
    secure: bool,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hook({})", self.host)
    }
}

impl Hook {
    /// The hook at this address.
    ///
    /// # Errors
    /// [`Error::Address`] when it is no address of the web, or holds credentials.
    pub fn new(address: Secret) -> Result<Self, Error> {
        let uri: Uri = address.expose().parse().map_err(|_| Error::Address)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(Error::Address),
        };
        let host = uri
            .authority()
            .filter(|host| !host.host().is_empty() && !host.as_str().contains('@'))
            .ok_or(Error::Address)?
            .to_string();
        Ok(Self {
            address,
            host,
            secure,
        })
    }

    /// The host, with its port where the address has one.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends a message and waits until it is taken. What the answer holds is not read, and a
    /// redirection is not followed.
    ///
    /// # Errors
    /// When it was not taken; [`Error::may_pass`] says whether to try again.
    pub async fn post(&self, content_type: &'static str, body: Bytes) -> Result<(), Error> {
        let uri: Uri = self.address.expose().parse().map_err(|_| Error::Address)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::CONTENT_TYPE, content_type)
            .header(
                header::USER_AGENT,
                concat!("skep/", env!("CARGO_PKG_VERSION")),
            )
            .body(Pieces::from(vec![body]))
            .map_err(|_| Error::Address)?;
        // Messages are rare: no connection is kept for the next one.
        let client = Client::new(LIMIT, self.secure).map_err(Error::Setup)?;
        let host = || self.host.clone();
        let status = match tokio::time::timeout(LIMIT, client.send(request)).await {
            Ok(Ok(answer)) => answer.status(),
            Ok(Err(source)) => {
                return Err(Error::Unreachable {
                    host: host(),
                    source,
                });
            }
            Err(_) => return Err(Error::Late { host: host() }),
        };
        if status.is_success() {
            Ok(())
        } else {
            Err(Error::Refused {
                host: host(),
                status,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    fn hook(address: &str) -> Result<Hook, Error> {
        Hook::new(Secret::new(address))
    }

    #[test]
    fn only_the_host_of_an_address_is_ever_shown() {
        let known = hook("https://hooks.example:8443/T0/hidden?key=hidden").unwrap();
        assert_eq!(known.host(), "hooks.example:8443");
        assert_eq!(format!("{known:?}"), "Hook(hooks.example:8443)");
        for wrong in [
            "hidden",
            "ftp://hidden/x",
            "https://ann:hidden@example/x",
            "/hidden",
        ] {
            let error = hook(wrong).unwrap_err();
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_with_the_message_is_not_tried_again() {
        let refused = |status| Error::Refused {
            host: "h".into(),
            status: StatusCode::from_u16(status).unwrap(),
        };
        for (status, again) in [
            (400, false),
            (404, false),
            (410, false),
            (408, true),
            (429, true),
            (302, true),
            (500, true),
            (503, true),
        ] {
            assert_eq!(refused(status).may_pass(), again, "{status}");
        }
    }

    #[tokio::test]
    async fn a_hook_that_nobody_serves_is_said_by_its_host_alone() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let hook = hook(&format!("http://127.0.0.1:{port}/hidden")).unwrap();
        let error = hook.post("text/plain", Bytes::new()).await.unwrap_err();
        assert!(error.may_pass() && error.source().is_some(), "{error}");
        let said = domain::failure::chain(&error);
        assert!(said.starts_with(&format!("127.0.0.1:{port} could not")));
        assert!(!said.contains("hidden"), "{said}");
    }
}
