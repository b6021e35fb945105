//! What models say, and what agents ask them.

use dialects::{Decoder, Delta, Dialect, Meter, Request};

const DIALECTS: [Dialect; 2] = [Dialect::ChatCompletions, Dialect::Messages];

/// A response means the same in whatever pieces it comes, and the meter counts what the reader read.
/// The first byte says how long pieces are.
pub fn reply(bytes: &[u8]) {
    let Some((size, body)) = bytes.split_first() else {
        return;
    };
    let size = usize::from(*size % 32).max(1);
    for dialect in DIALECTS {
        for status in [200, 429] {
            let (whole, words) = read(dialect, status, [body].into_iter());
            let (pieces, same) = read(dialect, status, body.chunks(size));
            assert_eq!(pieces, whole);
            assert_eq!(same, words, "nothing is said twice or lost");
            let meter = |chunks: &mut dyn Iterator<Item = &[u8]>| {
                let mut meter = Meter::new(dialect, status);
                chunks.for_each(|chunk| meter.feed(chunk));
                meter.finish()
            };
            let report = meter(&mut [body].into_iter());
            assert_eq!(meter(&mut body.chunks(size)), report);
            assert_eq!(report.bytes, body.len() as u64);
            assert_eq!((report.usage, report.end), (whole.usage, whole.end));
        }
    }
}

/// The reply, and all words that came before its end as one text of each kind.
fn read<'a>(
    dialect: Dialect,
    status: u16,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (dialects::Reply, [String; 2]) {
    let mut decoder = Decoder::new(dialect, status);
    let mut deltas: Vec<Delta> = chunks.flat_map(|chunk| decoder.feed(chunk)).collect();
    let (reply, last) = decoder.finish();
    deltas.extend(last);
    let mut words = [String::new(), String::new()];
    for delta in deltas {
        match delta {
            Delta::Text(text) => words[0].push_str(&text),
            Delta::Reasoning(text) => words[1].push_str(&text),
        }
    }
    (reply, words)
}

/// What a request asks for does not change by asking for its usage, which is done once.
pub fn request(bytes: &[u8]) {
    for dialect in DIALECTS {
        let Ok(request) = Request::inspect(dialect, bytes) else {
            continue;
        };
        let Some(with) = request.with_usage_option(bytes) else {
            assert!(!request.needs_usage_option());
            continue;
        };
        let again = Request::inspect(dialect, &with).expect("it is a request still");
        assert!(!again.needs_usage_option(), "it was asked for");
        assert_eq!(
            (
                &again.model,
                again.max_output,
                again.stream,
                again.answers,
                again.images
            ),
            (
                &request.model,
                request.max_output,
                request.stream,
                request.answers,
                request.images
            )
        );
        assert_eq!(again.remote_tools, request.remote_tools);
    }
}
