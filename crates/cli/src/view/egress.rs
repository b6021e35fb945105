//! What left a sandbox, or was refused, in words.

use super::format;
use domain::event::Body;

/// An event of egress; nothing for any other.
pub(crate) fn words(body: &Body) -> String {
    let Body::Egress {
        part,
        host,
        port,
        method,
        path,
        rule,
        allowed,
        reason,
        count,
        up,
        down,
        cached,
        ..
    } = body
    else {
        return String::new();
    };
    let what = match (method, path) {
        (Some(method), path) => {
            format!(
                "{method} {host}:{port}{}",
                path.as_deref().unwrap_or_default()
            )
        }
        (None, _) if *port == 0 => host.clone(),
        (None, _) => format!("{host}:{port}"),
    };
    let verdict = match (allowed, reason, rule) {
        (true, None, Some(rule)) => format!("by `{rule}`"),
        (true, None, None) => "allowed".into(),
        (true, Some(reason), _) => format!("ended: {reason}"),
        (false, Some(reason), _) => format!("refused: {reason}"),
        (false, None, _) => "refused".into(),
    };
    let mut numbers = Vec::new();
    if *cached == Some(true) {
        numbers.push("from what is kept".to_owned());
    }
    if *count > 1 {
        numbers.push(format!("{count} times"));
    }
    if *up > 0 || *down > 0 {
        numbers.push(format!(
            "{} out, {} in",
            format::bytes(*up),
            format::bytes(*down)
        ));
    }
    let numbers = if numbers.is_empty() {
        String::new()
    } else {
        format!(" ({})", numbers.join(", "))
    };
    format!("egress of {part}: {what} {verdict}{numbers}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{AttemptId, egress::Part};

    #[test]
    fn a_line_says_what_by_which_rule_and_how_much() {
        let mut body = Body::Egress {
            attempt: AttemptId::from_bits(1),
            part: Part::Setup,
            host: "packages.example.com".into(),
            port: 443,
            method: None,
            path: None,
            rule: Some("allow *.example.com (skep.toml)".into()),
            allowed: true,
            reason: None,
            count: 3,
            up: 900,
            down: 5_000_000,
            cached: None,
        };
        assert_eq!(
            words(&body),
            "egress of setup: packages.example.com:443 by `allow *.example.com (skep.toml)` \
             (3 times, 900 B out, 4 MB in)"
        );
        if let Body::Egress {
            method,
            path,
            allowed,
            reason,
            rule,
            count,
            up,
            down,
            ..
        } = &mut body
        {
            (*method, *path) = (Some("GET".into()), Some("/x".into()));
            (*allowed, *rule) = (false, None);
            *reason = Some("no rule allows it".into());
            (*count, *up, *down) = (1, 0, 0);
        }
        assert_eq!(
            words(&body),
            "egress of setup: GET packages.example.com:443/x refused: no rule allows it"
        );
        if let Body::Egress {
            allowed,
            rule,
            reason,
            down,
            cached,
            ..
        } = &mut body
        {
            (*allowed, *reason, *down) = (true, None, 5_000_000);
            *rule = Some("allow packages.example.com, preset npm (skep.toml)".into());
            *cached = Some(true);
        }
        assert_eq!(
            words(&body),
            "egress of setup: GET packages.example.com:443/x by `allow packages.example.com, preset \
             npm (skep.toml)` (from what is kept, 0 B out, 4 MB in)"
        );
    }
}
