//! Numbers as people read them.

use domain::{Amount, Micros, Timestamp};
use std::time::Duration;

/// A count of tokens: `940`, `12.3k`, `1.2M`.
pub(crate) fn tokens(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => decimal(count, 1_000, "k"),
        _ => decimal(count, 1_000_000, "M"),
    }
}

/// A number with one decimal, unless that is a zero.
fn decimal(count: u64, unit: u64, letter: &str) -> String {
    match count % unit / (unit / 10) {
        0 => format!("{}{letter}", count / unit),
        tenth => format!("{}.{tenth}{letter}", count / unit),
    }
}

/// Money that was spent. Where a price was not known, that is said, and nothing is made up.
pub(crate) fn money(spent: Micros, priced: bool) -> String {
    match (priced, spent.0) {
        (true, _) => spent.to_string(),
        (false, 0) => "price unknown".into(),
        (false, _) => format!("{spent} + price unknown"),
    }
}

/// What was spent, in one line.
pub(crate) fn spent(amount: Amount, priced: bool) -> String {
    format!(
        "{} tokens, {}",
        tokens(amount.tokens),
        money(amount.money, priced)
    )
}

/// A budget: only the measures that limit something.
pub(crate) fn budget(amount: Amount) -> String {
    let mut parts = Vec::new();
    if amount.tokens < Amount::UNBOUNDED {
        parts.push(format!("{} tokens", tokens(amount.tokens)));
    }
    if amount.money.0 < Amount::UNBOUNDED {
        parts.push(amount.money.to_string());
    }
    if parts.is_empty() {
        return "no limit".into();
    }
    parts.join(", ")
}

/// A span of time: `0.4s`, `12s`, `1m05s`, `2h03m`.
pub(crate) fn span(span: Duration) -> String {
    let (seconds, tenths) = (span.as_secs(), span.subsec_millis() / 100);
    match seconds {
        0..10 => format!("{seconds}.{tenths}s"),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// How long a check took: to the hundredth of a second where that says something.
pub(crate) fn milliseconds(millis: u64) -> String {
    if millis < 10_000 {
        format!("{}.{:02}s", millis / 1_000, millis % 1_000 / 10)
    } else {
        span(Duration::from_millis(millis))
    }
}

/// How long ago something was.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(then).as_secs();
    match seconds {
        0..10 => "just now".into(),
        10..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..86_400 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// A moment in the time zone of the person.
pub(crate) fn moment(at: Timestamp, zone: &jiff::tz::TimeZone) -> String {
    jiff::Timestamp::from_microsecond(at.0)
        .map(|at| {
            at.to_zoned(zone.clone())
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string()
        })
        .unwrap_or_else(|_| "at an unknown time".into())
}

/// That something waits for a time to come.
pub(crate) fn waits_until(at: Timestamp, now: Timestamp, zone: &jiff::tz::TimeZone) -> String {
    format!(
        "waits until {}, another {}",
        moment(at, zone),
        span(at.since(now))
    )
}

/// The time of day, to the second.
pub(crate) fn time_of_day(at: Timestamp, zone: &jiff::tz::TimeZone) -> String {
    jiff::Timestamp::from_microsecond(at.0)
        .map(|at| at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string())
        .unwrap_or_default()
}

/// The first characters of the name of a commit, enough to tell it apart.
pub(crate) fn short(object: &str) -> &str {
    object.get(..10).unwrap_or(object)
}

/// A number with its noun: `1 file`, `3 files`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// A size in bytes.
pub(crate) fn bytes(size: u64) -> String {
    match size {
        0..1_024 => format!("{size} B"),
        1_024..1_048_576 => format!("{} KB", size / 1_024),
        1_048_576..1_073_741_824 => format!("{} MB", size / 1_048_576),
        _ => format!("{} GB", size / 1_073_741_824),
    }
}

/// Now, as the ledger counts time.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        assert_eq!(tokens(940), "940");
        assert_eq!(tokens(12_345), "12.3k");
        assert_eq!(tokens(1_250_000), "1.2M");
        assert_eq!(span(Duration::from_millis(450)), "0.4s");
        assert_eq!(span(Duration::from_secs(65)), "1m05s");
        assert_eq!(span(Duration::from_secs(7_380)), "2h03m");
        assert_eq!(milliseconds(214), "0.21s");
        assert_eq!(milliseconds(61_000), "1m01s");
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(bytes(5_000_000), "4 MB");
    }

    #[test]
    fn money_of_unknown_price_is_never_shown_as_nothing() {
        assert_eq!(money(Micros(0), true), "$0.00");
        assert_eq!(money(Micros(0), false), "price unknown");
        assert_eq!(money(Micros(2_000_000), false), "$2.00 + price unknown");
    }

    #[test]
    fn a_budget_shows_only_what_limits() {
        let budget_of = |tokens, money| {
            budget(Amount {
                tokens,
                money: Micros(money),
                ..Amount::unbounded()
            })
        };
        assert_eq!(budget_of(200_000, 2_000_000), "200k tokens, $2.00");
        assert_eq!(budget_of(Amount::UNBOUNDED, 500_000), "$0.50");
        assert_eq!(budget(Amount::unbounded()), "no limit");
    }

    #[test]
    fn moments_are_shown_in_the_zone_of_the_person() {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(moment(Timestamp(0), &zone), "1970-01-01 02:00:00");
        assert_eq!(ago(Timestamp(0), Timestamp(90_000_000)), "1m ago");
    }
}
