//! An engine of tests, which says of containers what it is told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::find::Way;

/// A status, and an object.
pub(super) type Answer = (u16, &'static str);

/// Serves one until `answer`, which is asked for each question about a container with its first line,
/// says that this was the last one. How it is reached, and its directory.
pub(super) fn serve(
    mut answer: impl FnMut(&str) -> (Answer, bool) + Send + 'static,
) -> (Way, TempDir, JoinHandle<()>) {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("engine");
    let listener = UnixListener::bind(&socket).unwrap();
    let served = std::thread::spawn(move || {
        for connection in listener.incoming() {
            if one(&mut connection.unwrap(), &mut answer) {
                return;
            }
        }
    });
    (Way::Socket(socket), place, served)
}

/// Answers the question of one connection; whether it was the last.
fn one(connection: &mut UnixStream, answer: &mut impl FnMut(&str) -> (Answer, bool)) -> bool {
    let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
    // Some only look whether it is there.
    let Some(Ok(asked)) = lines.next() else {
        return false;
    };
    let head = lines.map_while(Result::ok);
    head.take_while(|line| !line.is_empty()).for_each(drop);
    let ((status, body), last) = match &asked {
        asked if asked.contains("/containers/") => answer(asked),
        asked if asked.contains("/version") => {
            ((200, r#"{"Version":"1","ApiVersion":"1.41"}"#), false)
        }
        _ => ((200, "{}"), false),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n");
    let rest = format!("Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    connection.write_all((head + &rest).as_bytes()).unwrap();
    last
}
