//! From a text to an origin.

use super::{Error, MAX_ORIGIN, MAX_REFERENCE, Origin, Part, Remote, Scheme, web};

/// Parses what a person typed.
pub(super) fn origin(text: &str) -> Result<Origin, Error> {
    if text.is_empty() {
        return Err(Error::Empty);
    }
    if text.len() > MAX_ORIGIN {
        return Err(Error::Long);
    }
    if text.chars().any(char::is_control) {
        return Err(Error::Control);
    }
    if text.starts_with('-') {
        return Err(Error::Option);
    }
    if let Some((scheme, rest)) = text.split_once("://")
        && !scheme.contains('/')
    {
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            "ssh" => Scheme::Ssh,
            "file" => Scheme::File,
            other => return Err(of_scheme(other)),
        };
        return url(scheme, rest).map(Origin::Remote);
    }
    // As git sees it: a colon before the first slash is behind a host.
    match text.split_once(':') {
        Some((before, _)) if before.contains('/') => Ok(Origin::Path(text.into())),
        None => Ok(Origin::Path(text.into())),
        Some((_, after)) if after.starts_with(':') => Err(Error::Helper),
        Some((host, path)) => scp(host, path).map(Origin::Remote),
    }
}

fn of_scheme(scheme: &str) -> Error {
    // `ext::sh://` and the like.
    if scheme.contains("::") {
        return Error::Helper;
    }
    let is_word = scheme.len() <= 16 && scheme.chars().all(|c| c.is_ascii_alphanumeric());
    let word = if is_word { scheme } else { "another scheme" };
    Error::Scheme {
        scheme: word.to_owned(),
    }
}

/// `SCHEME://` and this.
fn url(scheme: Scheme, rest: &str) -> Result<Remote, Error> {
    is_clean(rest)?;
    let (rest, fragment) = cut(rest, '#');
    let (rest, query) = cut(rest, '?');
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = match scheme {
        Scheme::File => match authority {
            "" | "localhost" => String::new(),
            _ => return Err(Error::Host),
        },
        Scheme::Ssh => {
            let (user, host) = split_user(authority);
            if !user.is_none_or(is_user) {
                return Err(wrong_user(user));
            }
            valid_host(host)?
        }
        Scheme::Https | Scheme::Http => {
            if authority.contains('@') {
                return Err(Error::Credentials);
            }
            let host = valid_host(authority)?;
            if scheme == Scheme::Http && !is_loopback(&host) {
                return Err(Error::Plain);
            }
            host
        }
    };
    if path.trim_matches('/').is_empty() {
        return Err(Error::NoPath);
    }
    if matches!(scheme, Scheme::Https | Scheme::Http)
        && let Some(page) = web::page(scheme, &host, path)?
    {
        return Ok(page);
    }
    if query.is_some() {
        return Err(Error::Query);
    }
    let (path, part) = meant(path, fragment)?;
    let user = match scheme {
        Scheme::Ssh => split_user(authority).0,
        _ => None,
    };
    let at = user.map(|user| format!("{user}@")).unwrap_or_default();
    Ok(Remote {
        url: format!("{}://{at}{host}{path}", scheme.as_str()),
        scheme,
        host,
        part,
        issue: None,
    })
}

/// `USER@HOST:PATH`.
fn scp(host: &str, path: &str) -> Result<Remote, Error> {
    is_clean(host)?;
    is_clean(path)?;
    let (user, host) = split_user(host);
    if !user.is_none_or(is_user) {
        return Err(wrong_user(user));
    }
    let host = valid_host(host)?;
    let (path, fragment) = cut(path, '#');
    if path.starts_with('-') {
        return Err(Error::Option);
    }
    if path.trim_matches('/').is_empty() {
        return Err(Error::NoPath);
    }
    let (path, part) = meant(path, fragment)?;
    let at = user.map(|user| format!("{user}@")).unwrap_or_default();
    Ok(Remote {
        url: format!("{at}{host}:{path}"),
        scheme: Scheme::Ssh,
        host,
        part,
        issue: None,
    })
}

/// The path, and what is meant of it: `#NAME`, or `@COMMIT` at its end.
fn meant<'a>(path: &'a str, fragment: Option<&str>) -> Result<(&'a str, Part), Error> {
    let start = path.rfind(['/', ':']).map_or(0, |at| at + 1);
    let last = path.get(start..).unwrap_or_default();
    let commit = last.rsplit_once('@').filter(|(_, id)| is_commit(id));
    match (commit, fragment) {
        (Some(_), Some(_)) => Err(Error::Twice),
        (Some((before, id)), None) => {
            let kept = path.get(..start + before.len()).unwrap_or_default();
            if before.is_empty() {
                return Err(Error::NoPath);
            }
            Ok((kept, Part::Commit(id.to_ascii_lowercase())))
        }
        (None, Some(name)) => {
            let name = reference(name, "what is behind the `#`")?;
            Ok((path, Part::Named(name)))
        }
        (None, None) => Ok((path, Part::Head)),
    }
}

fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// That nothing in a URL is read otherwise by another program.
fn is_clean(text: &str) -> Result<(), Error> {
    let odd = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | '<' | '>' | '`');
    if text.chars().any(odd) {
        return Err(Error::Control);
    }
    // Encoded ones, too: git decodes some of a URL before it asks for credentials.
    let hidden = text.split('%').skip(1).any(|behind| {
        let byte = behind.get(..2).map(|hex| u8::from_str_radix(hex, 16));
        !matches!(byte, Some(Ok(byte)) if byte >= 0x20 && byte != 0x7f)
    });
    if hidden {
        return Err(Error::Control);
    }
    Ok(())
}

fn split_user(authority: &str) -> (Option<&str>, &str) {
    match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    }
}

fn wrong_user(user: Option<&str>) -> Error {
    match user {
        Some(user) if user.contains([':', '@']) => Error::Credentials,
        _ => Error::Host,
    }
}

fn is_user(user: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&user.len()) && user.chars().all(plain) && !user.starts_with('-')
}

/// A host, with its port if it has one, in lower case.
fn valid_host(text: &str) -> Result<String, Error> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(Error::Host)?;
            address
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| Error::Host)?;
            (None, port.strip_prefix(':').or(Some(port)))
        }
        None => match text.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(text), None),
        },
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_named = name.is_none_or(|name| {
        (1..=253).contains(&name.len())
            && name.chars().all(plain)
            && !name.starts_with(['-', '.'])
            && !name.contains("..")
    });
    let is_port = |port: &str| {
        port.parse::<u16>().is_ok_and(|port| port > 0) && port.chars().all(|c| c.is_ascii_digit())
    };
    let has_port = match port {
        None => true,
        // Behind an address in brackets there may be nothing.
        Some("") => name.is_none() && text.ends_with(']'),
        Some(port) => is_port(port),
    };
    if !is_named || !has_port {
        return Err(Error::Host);
    }
    Ok(text.to_ascii_lowercase())
}

/// Whether a host is this machine.
fn is_loopback(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split(']').next().unwrap_or_default();
        return address
            .parse::<std::net::Ipv6Addr>()
            .is_ok_and(|address| address.is_loopback());
    }
    let name = host.split(':').next().unwrap_or_default();
    name == "localhost"
        || name
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Whether a text is the name of a commit, or the beginning of one.
#[must_use]
pub(super) fn is_commit(text: &str) -> bool {
    (7..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A name of a branch, tag or other reference, by git's own rules.
pub(super) fn reference(text: &str, what: &'static str) -> Result<String, Error> {
    let odd = |c: char| {
        c.is_control() || c.is_whitespace() || matches!(c, '~' | '^' | ':' | '?' | '*' | '[' | '\\')
    };
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let is_one = (1..=MAX_REFERENCE).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('.')
        && !text.contains(odd)
        && !text.contains("..")
        && !text.contains("@{")
        && text != "@"
        && text.split('/').all(part);
    is_one
        .then(|| text.to_owned())
        .ok_or(Error::Reference { what })
}
