//! The first bytes in a tunnel: a TLS ClientHello (RFC 8446, 4.1.2), or plain HTTP.

/// The most bytes of a greeting.
pub(super) const MOST: usize = 64 << 10;

/// The longest TLS record of handshake messages: 2^14 bytes, RFC 8446, 5.1.
const RECORD: usize = 1 << 14;

/// What the first bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Not to be known yet.
    Short,
    /// TLS, with the server's name, if it has one.
    Tls(Option<String>),
    /// Perhaps HTTP/1.
    Plain,
    /// Neither.
    Other,
}

/// Reads the first bytes.
pub(super) fn read(bytes: &[u8]) -> Greeting {
    match bytes.first() {
        None => Greeting::Short,
        Some(0x16) => hello(bytes),
        // The first word of HTTP/2 with prior knowledge is no method that anybody means.
        Some(b'A'..=b'Z') if bytes.starts_with(b"PRI ") => Greeting::Other,
        Some(b'P') if bytes.len() < 4 => Greeting::Short,
        Some(b'A'..=b'Z') => Greeting::Plain,
        Some(_) => Greeting::Other,
    }
}

fn hello(bytes: &[u8]) -> Greeting {
    match message(bytes) {
        Ok(Some(message)) => match name(&message) {
            Some(name) => Greeting::Tls(name),
            None => Greeting::Other,
        },
        Ok(None) if bytes.len() < MOST => Greeting::Short,
        Ok(None) | Err(()) => Greeting::Other,
    }
}

/// The first handshake message, out of as many records as it takes; none while it is not whole.
fn message(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let mut message = Vec::new();
    loop {
        if let [1, a, b, c, ..] = *message.as_slice() {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > MOST {
                return Err(());
            }
            if let Some(body) = message.get(4..length + 4) {
                return Ok(Some(body.to_vec()));
            }
        } else if message.first().is_some_and(|kind| *kind != 1) {
            return Err(());
        }
        let [0x16, 3, _, high, low, rest @ ..] = bytes else {
            let begun = [0x16, 3];
            let fits = bytes.iter().zip(begun).all(|(have, want)| *have == want);
            return if fits && bytes.len() < 5 {
                Ok(None)
            } else {
                Err(())
            };
        };
        let length = usize::from(*high) << 8 | usize::from(*low);
        if length == 0 || length > RECORD {
            return Err(());
        }
        match rest.split_at_checked(length) {
            Some((record, rest)) => {
                message.extend_from_slice(record);
                bytes = rest;
            }
            None => {
                message.extend_from_slice(rest);
                // Its beginning may show already that it is no greeting.
                let known = message.first().is_none_or(|kind| *kind == 1);
                return if known { Ok(None) } else { Err(()) };
            }
        }
    }
}

/// The server's name in a ClientHello: the outer one where it is encrypted. None where the message
/// is not well formed.
#[allow(
    clippy::option_option,
    reason = "a message without a name is well formed"
)]
fn name(message: &[u8]) -> Option<Option<String>> {
    let mut all = Bytes(message);
    all.take(2 + 32)?;
    all.vector(1)?;
    all.vector(2)?;
    all.vector(1)?;
    if all.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Bytes(all.vector(2)?);
    if !all.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let content = extensions.vector(2)?;
        if kind != 0 {
            continue;
        }
        let mut content = Bytes(content);
        let mut list = Bytes(content.vector(2)?);
        let (kind, name) = (list.number(1)?, list.vector(2)?);
        // RFC 6066, 3: there is one kind of name, and one name of a kind.
        if kind != 0 || !list.0.is_empty() || !content.0.is_empty() || found.is_some() {
            return None;
        }
        found = Some(std::str::from_utf8(name).ok()?.to_owned());
    }
    Some(found)
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        let taken = self.take(bytes)?;
        Some(
            taken
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        )
    }

    /// A length of so many bytes, and so many bytes.
    fn vector(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector(bytes: usize, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[length.len() - bytes..], content].concat()
    }

    fn named(name: &str) -> Vec<u8> {
        let entry = [vec![0], vector(2, name.as_bytes())].concat();
        [vec![0, 0], vector(2, &vector(2, &entry))].concat()
    }

    /// A greeting with these extensions, in records of at most so many bytes.
    fn greeting(extensions: &[u8], record: usize) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend(vector(1, &[1; 32]));
        body.extend(vector(2, &[0x13, 1]));
        body.extend(vector(1, &[0]));
        body.extend(vector(2, extensions));
        let message = [vec![1], vector(3, &body)].concat();
        let pieces = message.chunks(record);
        pieces
            .flat_map(|piece| [vec![0x16, 3, 1], vector(2, piece)].concat())
            .collect()
    }

    #[test]
    fn the_name_is_found_whatever_stands_around_it_and_however_it_is_cut() {
        let padding = [vec![0, 21], vector(2, &[0; 300])].concat();
        let extensions = [padding.clone(), named("api.example.com"), padding].concat();
        for record in [1, 7, 100, 16_384] {
            let whole = greeting(&extensions, record);
            for cut in 0..whole.len() {
                assert_eq!(read(&whole[..cut]), Greeting::Short, "{record} {cut}");
            }
            let name = Some("api.example.com".to_owned());
            assert_eq!(read(&whole), Greeting::Tls(name));
        }
    }

    #[test]
    fn no_name_is_told_from_two_names_and_from_what_is_no_greeting() {
        assert_eq!(read(&greeting(&[], 999)), Greeting::Tls(None));
        let twice = [named("a.test"), named("b.test")].concat();
        assert_eq!(read(&greeting(&twice, 999)), Greeting::Other);
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Greeting::Plain);
        assert_eq!(read(b"PRI * HTTP/2.0\r\n"), Greeting::Other);
        assert_eq!(read(b"SSH-2.0-x\r\n"), Greeting::Plain);
        assert_eq!(read(&[0x16, 3, 1, 0, 4, 2, 0, 0, 0]), Greeting::Other);
        assert_eq!(read(&[0x15, 3, 1]), Greeting::Other);
        assert_eq!(read(&[0x16, 9]), Greeting::Other);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_never_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes);
            read(&[vec![0x16, 3, 1], bytes].concat());
        }
    }
}
