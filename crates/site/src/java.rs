//! How Java finds a proxy and certificates: it reads none of the variables that other programs do.

use std::{ffi::OsString, path::Path};

/// What Java takes a trust store by, with its version, as its `JavaKeyStore` class reads it.
const STORE: [u8; 8] = [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2];

/// An entry that is a certificate which is trusted.
const TRUSTED: [u8; 4] = [0, 0, 0, 2];

/// What Maven reads in a home: the proxy at this port, and that there is a network. The toolchains' own
/// settings say that there is none.
pub(crate) fn maven_settings(port: u16) -> Vec<u8> {
    let proxy = |protocol: &str| {
        format!(
            "<proxy><id>{protocol}</id><protocol>{protocol}</protocol>\
             <host>127.0.0.1</host><port>{port}</port>\
             <nonProxyHosts>localhost|127.0.0.1</nonProxyHosts></proxy>"
        )
    };
    let proxies = proxy("http") + &proxy("https");
    format!("<settings><proxies>{proxies}</proxies></settings>\n").into_bytes()
}

/// What every virtual machine of Java takes from `JAVA_TOOL_OPTIONS`. Each says on its error output that
/// it did.
pub(crate) fn options(port: u16, trust_store: Option<&Path>) -> OsString {
    let proxy =
        |protocol: &str| format!("-D{protocol}.proxyHost=127.0.0.1 -D{protocol}.proxyPort={port}");
    let mut options = OsString::from(format!("{} {}", proxy("http"), proxy("https")));
    if let Some(store) = trust_store {
        options.push(" -Djavax.net.ssl.trustStoreType=JKS -Djavax.net.ssl.trustStore=");
        options.push(store);
    }
    options
}

/// The certificates of a bundle as Java keeps those that it trusts, in the form of JKS: read without
/// a password, what it holds is not compared with the digest at its end, so there is none in it.
pub(crate) fn trust_store(bundle: &str) -> Vec<u8> {
    let certificates = pem::parse_many(bundle).unwrap_or_default();
    let mut store = STORE.to_vec();
    let number = u32::try_from(certificates.len()).unwrap_or_default();
    store.extend(number.to_be_bytes());
    for (n, certificate) in certificates.iter().enumerate() {
        store.extend(TRUSTED);
        text(&mut store, &n.to_string());
        // When it was added, in milliseconds.
        store.extend(0_u64.to_be_bytes());
        text(&mut store, "X.509");
        let contents = certificate.contents();
        store.extend(
            u32::try_from(contents.len())
                .unwrap_or_default()
                .to_be_bytes(),
        );
        store.extend(contents);
    }
    store.extend([0; 20]);
    store
}

fn text(store: &mut Vec<u8>, text: &str) {
    store.extend(u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
    store.extend(text.as_bytes());
}
