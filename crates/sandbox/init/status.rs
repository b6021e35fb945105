//! What `/proc` says of one process, in which a hostile program's name stands.

/// The decimal number at the beginning of `text`, and what follows it.
pub fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at_checked(digits)?;
    if number.is_empty() {
        return None;
    }
    let value = number.iter().fold(0u64, |sum, digit| {
        sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))
    });
    Some((value, rest))
}

/// Where `stat` has the number of threads, counted from the field after the state.
const THREADS_AFTER_STATE: usize = 16;

/// The parent of a process that has not ended yet, by its `stat`: "pid (name) state parent …". The name
/// may hold anything, and what follows it holds no bracket, so the last one counts.
pub fn living_parent(stat: &[u8]) -> Option<i32> {
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = stat.get(close + 2..)?;
    let (state, rest) = (rest.first()?, rest.get(2..)?);
    // A process goes on when only its first thread has ended.
    let threads = rest.split(|byte| *byte == b' ').nth(THREADS_AFTER_STATE);
    let threads = threads.and_then(number).map_or(1, |(count, _)| count);
    if matches!(state, b'Z' | b'X') && threads <= 1 {
        return None;
    }
    number(rest).map(|(parent, _)| parent as i32)
}

/// The sum of the numbers on the lines that begin with one of `keys`. The kernel escapes the end of a
/// line in a name.
pub fn sum(text: &[u8], keys: &[&[u8]]) -> u64 {
    let found = keys.iter().filter_map(|key| find(text, key));
    found.fold(0, u64::saturating_add)
}

/// The number on the first line that begins with `key`.
pub fn find(text: &[u8], key: &[u8]) -> Option<u64> {
    let line = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(key))?;
    let start = line.iter().position(u8::is_ascii_digit)?;
    number(line.get(start..)?).map(|(value, _)| value)
}
