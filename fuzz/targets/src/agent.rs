//! What agents print.

use agents::event::{AgentEvent, MAX_TEXT};
use agents::hostile;

/// What is said where a text was cut.
const CUT: usize = 64;
/// The longest id or name of an agent's own that is told on.
const LONGEST_ID: usize = 256;

/// Lines are the same however they are cut, none is longer than allowed, and no byte is lost count of.
/// The first two bytes say how long pieces are, and what is allowed.
pub fn agent_lines(bytes: &[u8]) {
    let [size, limit, printed @ ..] = bytes else {
        return;
    };
    let (size, limit) = (usize::from(*size).max(1), usize::from(*limit));
    let whole = hostile::lines(&[printed], limit);
    let pieces: Vec<&[u8]> = printed.chunks(size).collect();
    assert_eq!(hostile::lines(&pieces, limit), whole);
    let mut count = 0;
    for (line, omitted) in &whole {
        assert!(line.len() <= limit && !line.contains(&b'\n'));
        count += line.len() as u64 + omitted;
    }
    assert!(count <= printed.len() as u64);
}

/// Every event of an agent is of bounded size, whatever it prints.
pub fn claude(bytes: &[u8]) {
    for event in hostile::claude(bytes) {
        let (ids, texts) = parts(&event);
        assert!(
            ids.iter().all(|it| it.len() <= LONGEST_ID),
            "an id of any length"
        );
        assert!(
            texts.iter().all(|it| it.len() <= MAX_TEXT + CUT),
            "a text of any length"
        );
    }
}

fn parts(event: &AgentEvent) -> (Vec<&str>, Vec<&str>) {
    match event {
        AgentEvent::Session { id } => (vec![id], vec![]),
        AgentEvent::ToolCall { id, name, .. } => (vec![id, name], vec![]),
        AgentEvent::ToolResult { id, output, .. } => (vec![id], vec![output]),
        AgentEvent::Text { text }
        | AgentEvent::Reasoning { text }
        | AgentEvent::Question { text }
        | AgentEvent::Error { text } => (vec![], vec![text]),
        AgentEvent::Retry { reason, .. } => (vec![], vec![reason]),
        AgentEvent::Finished { summary } => (vec![], vec![summary]),
        AgentEvent::TurnStarted { .. } | AgentEvent::Usage { .. } => (vec![], vec![]),
    }
}
