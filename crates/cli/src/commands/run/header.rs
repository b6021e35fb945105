//! What a person sees before the work begins.

use crate::{
    sources,
    view::{
        format,
        paint::{FAINT, LOOK, STRONG, paint},
        text,
    },
};
use domain::Amount;
use sandbox::Kind;
use server::{Node, StatusEntry, Submitted};
use std::path::Path;

/// The most files that are named as not seen.
const MAX_NAMED: usize = 10;

/// What the header says besides what was submitted.
pub(crate) struct About<'a> {
    /// The agent.
    pub(crate) agent: &'a str,
    /// The kind of sandbox.
    pub(crate) sandbox: Kind,
    /// The devices that each gets.
    pub(crate) devices: &'a [String],
    /// Whether namespaces can be made in each.
    pub(crate) nested: bool,
    /// How many jobs run at once.
    pub(crate) parallel: u32,
}

/// What a person sees first: what runs, with what, for how much.
pub(crate) fn header(submitted: &Submitted, about: &About<'_>) -> String {
    let model = submitted.model.as_deref().unwrap_or("no model");
    let mut out = format!(
        "{}  base {}\n  agent {}, {}, sandbox {}, {} at once\n  budget {}{}\n",
        paint(STRONG, submitted.request),
        format::short(&submitted.base),
        text::line(about.agent),
        text::line(model),
        about.sandbox,
        format::count(about.parallel as usize, "job"),
        format::budget(submitted.budget),
        if submitted.priced {
            ""
        } else {
            ", price unknown"
        },
    );
    if !about.devices.is_empty() && about.sandbox.is_sealed() {
        let names: Vec<String> = about.devices.iter().map(|it| text::line(it)).collect();
        out.push_str(&format!("  with the devices {}\n", names.join(", ")));
    }
    if about.nested && about.sandbox.is_sealed() {
        out.push_str("  with namespaces of their own: more of the kernel can be reached\n");
    }
    out.push_str(&sources::told(&submitted.sources));
    let mut note = |words: &str| out.push_str(&format!("{} {words}\n", paint(LOOK, "note:")));
    if let Some(time) = submitted.not_before {
        note(&format!(
            "it {}",
            format::waits_until(time, format::now(), &jiff::tz::TimeZone::system())
        ));
    }
    if !submitted.priced && submitted.budget.money.0 < Amount::UNBOUNDED {
        note(
            "the price of this model is unknown, so the limit in money cannot hold; the one in tokens does",
        );
    }
    if !submitted.checked {
        note("this repository has no checks: changes will be unchecked; `skep init` finds some");
    }
    if !about.sandbox.is_sealed() {
        note("the host is no sandbox: the agent can read and write whatever you can");
    }
    out
}

/// What is not committed, and so not seen by agents.
pub(super) async fn not_seen(node: &Node, directory: &Path) -> Option<String> {
    let files = node.uncommitted(directory).await.ok()?;
    unseen(&files)
}

fn unseen(files: &[StatusEntry]) -> Option<String> {
    if files.is_empty() {
        return None;
    }
    let mut out = format!(
        "agents do not see {} without a commit (`--dirty` takes them along)",
        format::count(files.len(), "file")
    );
    for file in files.iter().take(MAX_NAMED) {
        let path = text::line(&file.path.to_string());
        out.push_str(&format!("\n        {}", paint(FAINT, path)));
    }
    if files.len() > MAX_NAMED {
        let more = format::count(files.len() - MAX_NAMED, "more file");
        out.push_str(&format!(
            "\n        {}",
            paint(FAINT, format!("… and {more}"))
        ));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{paint::plain, sample};
    use domain::{Micros, SessionId};

    fn submitted(priced: bool, checked: bool) -> Submitted {
        Submitted {
            request: sample::REQUEST,
            session: SessionId::from_bits(1),
            base: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".into(),
            model: Some("anthropic/claude-opus-5-5".into()),
            budget: Amount {
                tokens: 2_000_000,
                money: Micros(10_000_000),
                ..Amount::unbounded()
            },
            priced,
            checked,
            sources: Default::default(),
            not_before: None,
        }
    }

    #[test]
    fn the_header_says_what_runs_and_for_how_much() {
        let devices = ["/dev/kvm".to_owned(), "gpu".to_owned()];
        let about = |sandbox| About {
            agent: "builtin",
            sandbox,
            devices: &devices,
            nested: true,
            parallel: 3,
        };
        let sealed = header(&submitted(true, true), &about(Kind::Namespace));
        let open = header(&submitted(false, false), &about(Kind::Host));
        insta::assert_snapshot!("header", plain(&format!("{sealed}\n{open}")));
    }
}
