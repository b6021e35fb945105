//! `skep doctor`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings},
    view::{
        paint::{BAD, GOOD, LOOK, STRONG, TYPE, paint},
        result, text,
    },
};
use server::{Finding, Health};

/// Say what works on this machine, and what to do about what does not
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep doctor\n  skep doctor --online\n  skep doctor --json\n\nIt exits with 4 when `skep run` cannot work here."
)]
pub(crate) struct Args {
    /// Call each provider once, for one token, and say what came back
    #[arg(long)]
    online: bool,
}

#[derive(serde::Serialize)]
struct Object<'a> {
    works: bool,
    findings: Vec<FindingObject<'a>>,
}

#[derive(serde::Serialize)]
struct FindingObject<'a> {
    area: &'a str,
    name: &'a str,
    health: &'static str,
    detail: &'a str,
    remedy: Option<&'a str>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let settings = Settings::read(context, Flags::default())?;
    let findings = server::doctor(&settings.options, args.online).await;
    let works = findings
        .iter()
        .all(|finding| finding.health != Health::Broken);
    if context.output.is_json() {
        context.output.object(&Object {
            works,
            findings: findings
                .iter()
                .map(|finding| FindingObject {
                    area: finding.area,
                    name: &finding.name,
                    health: word(finding.health),
                    detail: &finding.detail,
                    remedy: finding.remedy.as_deref(),
                })
                .collect(),
        })?;
    } else {
        context.output.say(&render(&findings))?;
    }
    Ok(if works { Exit::Done } else { Exit::Unavailable })
}

const fn word(health: Health) -> &'static str {
    match health {
        Health::Good => "good",
        Health::Lacking => "lacking",
        Health::Broken => "broken",
    }
}

fn render(findings: &[Finding]) -> String {
    let mut out = String::new();
    let mut area = "";
    let columns = findings
        .iter()
        .map(|finding| text::columns(&finding.name))
        .max()
        .unwrap_or(0)
        .min(28);
    for finding in findings {
        if finding.area != area {
            if !area.is_empty() {
                out.push('\n');
            }
            area = finding.area;
            out.push_str(&format!("{}\n", paint(STRONG, area)));
        }
        let (style, word) = match finding.health {
            Health::Good => (GOOD, "good"),
            Health::Lacking => (LOOK, "without"),
            Health::Broken => (BAD, "broken"),
        };
        let (detail, below) = text::parts(&finding.detail);
        out.push_str(&format!(
            "  {} {}  {detail}\n",
            paint(style, text::pad(word, 7)),
            text::pad(&text::line(&finding.name), columns),
        ));
        for line in below {
            out.push_str(&format!("            {line}\n"));
        }
        if let Some(remedy) = &finding.remedy {
            out.push_str(&format!(
                "          {} {}\n",
                paint(TYPE, "hint:"),
                text::line(remedy)
            ));
        }
    }
    let broken = |area: &str| {
        findings
            .iter()
            .any(|finding| finding.area == area && finding.health == Health::Broken)
    };
    let any = findings
        .iter()
        .any(|finding| finding.health == Health::Broken);
    let only_models = any
        && !findings
            .iter()
            .any(|finding| finding.health == Health::Broken && finding.area != "models");
    out.push('\n');
    if !any {
        out.push_str("`skep run` works here.\n");
    } else if only_models && broken("models") {
        out.push_str("All is there but a model. `skep demo` works without one.\n");
        out.push_str(&result::commands(&[(
            "skep demo".into(),
            "see everything at work",
        )]));
    } else {
        out.push_str("`skep run` cannot work here until what is broken is mended.\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;

    fn finding(area: &'static str, name: &str, health: Health, remedy: Option<&str>) -> Finding {
        Finding {
            area,
            name: name.into(),
            health,
            detail: format!("what was seen of {name}"),
            remedy: remedy.map(str::to_owned),
        }
    }

    #[test]
    fn every_finding_is_shown_with_its_remedy() {
        let mut findings = vec![
            finding("git", "git", Health::Good, None),
            finding(
                "sandbox",
                "user namespaces",
                Health::Broken,
                Some("allow them"),
            ),
            finding(
                "sandbox",
                "landlock",
                Health::Lacking,
                Some("use a newer kernel"),
            ),
            finding("models", "provider", Health::Broken, Some("set a key")),
        ];
        insta::assert_snapshot!("doctor_broken", plain(&render(&findings)));
        findings.remove(1);
        assert!(render(&findings).contains("All is there but a model"));
        findings.remove(2);
        assert!(render(&findings).contains("`skep run` works here"));
    }
}
