//! `skep limit`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings},
    view::text,
};
use ledger::{Limit, Limited};
use server::Node;
use std::path::Path;

/// Show or change how many jobs may be under way at once
///
/// Limits hold for every process that works with the same data. Without a flag they are shown.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep limit\n  skep limit --provider anthropic 4\n  skep limit --agent claude-code 2\n  skep limit --repository . 3\n  skep limit --provider anthropic none"
)]
pub(crate) struct Args {
    /// Of the jobs whose model is of this provider
    #[arg(long, value_name = "NAME", group = "of", requires = "most")]
    provider: Option<String>,
    /// Of the jobs of this agent
    #[arg(long, value_name = "NAME", group = "of", requires = "most")]
    agent: Option<String>,
    /// Of the jobs of the repository in this directory
    #[arg(long, value_name = "DIR", group = "of", requires = "most")]
    repository: Option<String>,
    /// How many; `none` takes the limit away
    #[arg(value_name = "N", requires = "of", value_parser = most)]
    most: Option<Most>,
}

#[derive(Debug, Clone, Copy)]
struct Most(Option<u32>);

fn most(text: &str) -> Result<Most, String> {
    match text {
        "none" => Ok(Most(None)),
        number => number
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .map(|number| Most(Some(number)))
            .ok_or_else(|| "write a number from 1 on, or `none`".into()),
    }
}

#[derive(serde::Serialize)]
struct Object {
    limits: Vec<Row>,
}

#[derive(serde::Serialize)]
struct Row {
    of: &'static str,
    name: String,
    most: u32,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let place = args.repository.as_deref().map(Path::new);
    let place = place.map(|it| context.named_directory(it)).transpose()?;
    let ledger = context.ledger().await?;
    let of = match (args.provider, args.agent, place) {
        (Some(name), _, _) => Some(Limited::Provider(name)),
        (_, Some(name), _) => Some(Limited::Agent(name)),
        (_, _, Some(place)) => {
            let settings = Settings::read(context, Flags::default())?;
            let node = Node::open(settings.options).await?;
            let repository = node.repository(&place).await;
            node.close().await;
            Some(Limited::Repository(repository?))
        }
        (None, None, None) => None,
    };
    if let (Some(of), Some(Most(most))) = (of, args.most) {
        ledger.set_limit(of, most).await?;
    }
    let mut rows = Vec::new();
    for Limit { of, most } in ledger.limits().await? {
        let (of, name) = match of {
            Limited::Provider(name) => ("provider", name),
            Limited::Agent(name) => ("agent", name),
            Limited::Repository(id) => ("repository", ledger.repository_path(id).await?),
        };
        rows.push(Row { of, name, most });
    }
    ledger.close().await;
    if context.output.is_json() {
        context.output.object(&Object { limits: rows })?;
    } else {
        context.output.say(&render(&rows))?;
    }
    Ok(Exit::Done)
}

fn render(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "There are no limits but each request's own. `skep limit --provider NAME N` sets \
                one.\n"
            .into();
    }
    let mut out = String::new();
    for row in rows {
        out.push_str(&format!(
            "{}  {}  at most {}\n",
            text::pad(row.of, 10),
            text::line(&row.name),
            row.most
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_listed_and_none_says_how_to_set_one() {
        assert!(render(&[]).contains("skep limit --provider"));
        let rows = [Row {
            of: "agent",
            name: "claude-code".into(),
            most: 2,
        }];
        assert_eq!(render(&rows), "agent       claude-code  at most 2\n");
        assert!(most("0").is_err() && most("many").is_err());
        assert!(matches!(most("none"), Ok(Most(None))));
    }
}
