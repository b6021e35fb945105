//! Headers of requests and answers that pass.

use domain::egress::Host;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
    uri::Authority,
};

/// Headers of one connection, RFC 9110, 7.6.1; what `Expect` asks for, this side answers itself.
const OF_A_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    EXPECT,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Others that programs send.
const ODD: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];

/// Takes out what is of one connection and no more, and what is meant for a proxy. What the
/// connection is asked to become is the answer; that it could become HTTP/2 is an offer that nobody
/// needs to take.
pub(super) fn strip(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let upgrade = named
        .contains(&UPGRADE)
        .then(|| headers.get(UPGRADE).cloned())
        .flatten()
        .filter(|to| !to.as_bytes().eq_ignore_ascii_case(b"h2c"));
    for name in named {
        // Where a request ends is not for the connection to say.
        if name != HOST && name != http::header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
    for name in ODD {
        headers.remove(name);
    }
    upgrade
}

/// The host and the port of an authority.
pub(super) fn parts(authority: &Authority, usual: u16) -> Option<(Host, u16)> {
    // A name with a password is for somebody else.
    if authority.as_str().contains('@') {
        return None;
    }
    let port = match authority.port() {
        Some(port) => port.as_str().parse().ok().filter(|port| *port != 0)?,
        // `host:` without a number has none, and means the usual one.
        None => usual,
    };
    Some((Host::parse(authority.host())?, port))
}

/// Whether the `Host` of a request is its target; there may be none in HTTP/1.0.
pub(super) fn host_is(headers: &HeaderMap, host: &Host, port: u16, usual: u16) -> bool {
    let mut all = headers.get_all(HOST).iter();
    let (first, second) = (all.next(), all.next());
    let is = |value: &HeaderValue| {
        let authority: Authority = value.to_str().ok()?.parse().ok()?;
        let (named, at) = parts(&authority, usual)?;
        Some(named == *host && at == port)
    };
    second.is_none() && first.is_none_or(|value| is(value) == Some(true))
}

/// The `Host` of a target.
pub(super) fn host_value(host: &Host, port: u16, usual: u16) -> Option<HeaderValue> {
    let text = if port == usual {
        host.to_string()
    } else {
        format!("{host}:{port}")
    };
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_one_connection_or_for_a_proxy_does_not_pass() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret, Upgrade"),
            ("upgrade", "websocket"),
            ("x-secret", "1"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("authorization", "Bearer of-the-agent"),
            ("content-length", "3"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let upgrade = strip(&mut headers);
        assert_eq!(upgrade.unwrap(), "websocket");
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length"]);
        headers.append(
            "connection",
            HeaderValue::from_static("Upgrade, HTTP2-Settings"),
        );
        headers.append("upgrade", HeaderValue::from_static("H2C"));
        assert_eq!(strip(&mut headers), None);
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn the_host_of_a_request_must_be_its_target() {
        let host = Host::parse("a.test").unwrap();
        let is = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HOST, HeaderValue::from_static(value));
            }
            host_is(&headers, &host, 80, 80)
        };
        assert!(is(&[]) && is(&["a.test"]) && is(&["A.test.:80"]) && is(&["a.test:80"]));
        for other in [
            &["b.test"][..],
            &["a.test:81"],
            &["a.test", "b.test"],
            &["u@a.test"],
            &["a.test/x"],
            &[""],
        ] {
            assert!(!is(other), "{other:?}");
        }
    }
}
