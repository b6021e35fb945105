//! What the holder of a sandbox and its clients say to each other.

use crate::inside::is_read_inside;
use server::standing::hostile::{self, Understood};

/// What a client asks means the same in any pieces and when it is said again; a command that is asked
/// for is that command inside.
pub fn asked(bytes: &[u8]) {
    let all = hostile::asked(&[bytes]);
    is_the_same_in_pieces(bytes, &all, hostile::asked);
    if let Some(ask) = all.said.first() {
        assert_eq!(hostile::ask_again(ask).as_ref(), Some(ask));
    }
    all.commands.iter().for_each(is_read_inside);
}

/// What a holder answers means the same in any pieces and when it is said again.
pub fn answered(bytes: &[u8]) {
    let all = hostile::answered(&[bytes]);
    is_the_same_in_pieces(bytes, &all, hostile::answered);
    for answer in &all.said {
        assert_eq!(hostile::answer_again(answer).as_ref(), Some(answer));
    }
}

fn is_the_same_in_pieces(
    bytes: &[u8],
    all: &Understood,
    understood: impl Fn(&[&[u8]]) -> Understood,
) {
    for size in [1, 7, 4_096] {
        // What comes byte by byte is looked at anew with each.
        if bytes.len() / size > 4_096 {
            continue;
        }
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        let again = understood(&pieces);
        assert_eq!(again.said, all.said);
        assert_eq!(again.refused, all.refused);
    }
}
