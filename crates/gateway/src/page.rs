//! One document of the web, read whole: the text of an issue, from the public interface of a forge.

use crate::client::{Client, Pieces};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use std::time::Duration;

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest document that is read, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// Why a document could not be read. Nothing in it is of a token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("`{address}` is no address of the web")]
    Address {
        /// What was given.
        address: String,
    },
    /// Nothing can be read from here.
    #[error("nothing can be read from the web")]
    Setup(#[source] crate::Error),
    /// There was no answer in time.
    #[error("{address} did not answer within {} s", LIMIT.as_secs())]
    Late {
        /// The address.
        address: String,
    },
    /// The connection could not be made, or broke.
    #[error("{address} could not be reached")]
    Unreachable {
        /// The address.
        address: String,
        /// What the connection said.
        source: hyper_util::client::legacy::Error,
    },
    /// It was not given.
    #[error("{address} answered {status}")]
    Refused {
        /// The address.
        address: String,
        /// The status of the answer.
        status: StatusCode,
    },
    /// It broke off, or is too long.
    #[error("what {address} answers breaks off, or is longer than {MAX_BYTES} bytes")]
    Body {
        /// The address.
        address: String,
    },
}

/// Reads the document at `address`, at most 4 MiB of it within 30 seconds. With `token`, it is sent as
/// a bearer's. A redirection is not followed: the token would go with it.
///
/// # Errors
/// When it is not there, is not given, or does not end in time.
pub async fn read(address: &str, token: Option<&str>) -> Result<Bytes, Error> {
    let wrong = || Error::Address {
        address: address.to_owned(),
    };
    let uri: Uri = address.parse().map_err(|_| wrong())?;
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(wrong()),
    };
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(uri)
        .header(header::ACCEPT, "application/json")
        .header(
            header::USER_AGENT,
            concat!("skep/", env!("CARGO_PKG_VERSION")),
        );
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| wrong())?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let request = request
        .body(Pieces::from(Vec::new()))
        .map_err(|_| wrong())?;
    let client = Client::new(CONNECT, secure).map_err(Error::Setup)?;
    let reading = async {
        let answer = client
            .send(request)
            .await
            .map_err(|source| Error::Unreachable {
                address: address.to_owned(),
                source,
            })?;
        let status = answer.status();
        if !status.is_success() {
            return Err(Error::Refused {
                address: address.to_owned(),
                status,
            });
        }
        let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
        let body = body.map_err(|_| Error::Body {
            address: address.to_owned(),
        })?;
        Ok(body.to_bytes())
    };
    match tokio::time::timeout(LIMIT, reading).await {
        Ok(read) => read,
        Err(_) => Err(Error::Late {
            address: address.to_owned(),
        }),
    }
}
