//! `skep sandbox inspect`.

use super::{
    data,
    list::{used, word},
};
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    view::{
        format,
        paint::{LOOK, STRONG, paint},
        result::{self, FileStat},
        text,
    },
};
use server::standing::{State, find};

/// How many snapshots are named to a person, the newest.
const NAMED: usize = 8;

/// Show how a sandbox is, its snapshots, and which files were changed in it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  skep sandbox inspect try\n  skep sandbox inspect try --json")]
pub(super) struct Args {
    /// The sandbox, by its id or name or the beginning of one
    id: String,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let held = find(&data(context)?, &args.id).map_err(server::Error::from)?;
    let state = held.state(true).await;
    if context.output.is_json() {
        context.output.object(&state)?;
    } else {
        context
            .output
            .say(&render(&state, context.output.width()))?;
    }
    Ok(Exit::Done)
}

/// The newest snapshots with what each costs.
fn snapshots(kept: &serde_json::Value) -> String {
    let Some(all) = kept.as_array() else {
        return "none can be taken here".into();
    };
    if all.is_empty() {
        return "none".into();
    }
    let skipped = all.len().saturating_sub(NAMED);
    let named = all.iter().skip(skipped).filter_map(|one| {
        let name = one.get("name")?.as_str()?;
        let bytes = one.get("bytes")?.as_u64()?;
        Some(format!("{name} ({})", format::bytes(bytes)))
    });
    let mut words: Vec<String> = named.collect();
    if skipped > 0 {
        words.insert(0, format!("{skipped} older"));
    }
    words.join(", ")
}

/// Each container beside it, in a line of its own.
fn sidecars(found: Option<&serde_json::Value>) -> Vec<String> {
    let all = found.and_then(|it| it.get("sidecars")?.as_array());
    let each = all.into_iter().flatten().filter_map(|one| {
        let (name, image) = (one.get("name")?.as_str()?, one.get("image")?.as_str()?);
        let exit: Option<sandbox::Exit> = serde_json::from_value(one.get("exit")?.clone()).ok()?;
        let state = match exit {
            None if one.get("alive")?.as_bool()? => "runs".to_owned(),
            None => "has ended".to_owned(),
            Some(exit) => format!("has ended: {exit}"),
        };
        Some(format!("{name} ({image}) {state}"))
    });
    each.collect()
}

fn render(state: &State, width: usize) -> String {
    let record = &state.record;
    let zone = jiff::tz::TimeZone::system();
    let mut out = format!(
        "{}  {}\n",
        paint(STRONG, record.id),
        text::line(record.name.as_deref().unwrap_or_default())
    );
    let mut line = |name: &str, value: String| {
        out.push_str(&format!("  {name:<11} {}\n", text::line(&value)));
    };
    line("state", word(state).into());
    line(
        "repository",
        record.repository.to_string_lossy().into_owned(),
    );
    line("commit", record.commit.clone());
    for (word, others) in [("also", &record.also), ("beside it", &record.beside)] {
        for one in others {
            let of = format!("{}: {} at {}", one.name, one.origin, one.commit);
            line(word, of);
        }
    }
    line("kind", record.kind.to_string());
    if let Some(image) = &record.image {
        line("image", image.clone());
    }
    line("created", format::moment(record.created, &zone));
    line("ends", format::moment(record.ends, &zone));
    line("holder", format!("process {}", record.pid));
    for (name, number) in [("memory", "memory_bytes"), ("at most", "peak_memory_bytes")] {
        if let Some(bytes) = used(state, number) {
            line(name, format::bytes(bytes));
        }
    }
    if let Some(millis) = used(state, "cpu_millis") {
        line("processor", format::milliseconds(millis));
    }
    if let Some(count) = used(state, "processes") {
        line("processes", count.to_string());
    }
    if let Some(of) = &record.fork_of {
        line("fork of", format!("{}, at {}", of.id, of.snapshot));
    }
    let found = state.state.as_ref();
    for sidecar in sidecars(found) {
        line("sidecar", sidecar);
    }
    if let Some(kept) = found.and_then(|it| it.get("snapshots")) {
        line("snapshots", snapshots(kept));
    }
    if let Some(why) = found.and_then(|it| it.get("unreadable")?.as_str()) {
        out.push_str(&format!(
            "{} its changes cannot be read: {}\n",
            paint(LOOK, "note:"),
            text::line(why)
        ));
    }
    if let Some(found) = found {
        out.push_str(&result::stat(&changed(found), width));
        let also = found.get("also").and_then(serde_json::Value::as_array);
        for one in also.into_iter().flatten() {
            let name = one.get("name").and_then(serde_json::Value::as_str);
            out.push_str(&result::stat_of(
                name.unwrap_or_default(),
                &changed(one),
                width,
            ));
        }
    }
    out
}

/// The changed files of one repository.
fn changed(of: &serde_json::Value) -> Vec<FileStat> {
    let files = of.get("files").and_then(serde_json::Value::as_array);
    files
        .into_iter()
        .flatten()
        .filter_map(|file| {
            Some(FileStat {
                path: file.get("path")?.as_str()?.to_owned(),
                added: file.get("added")?.as_u64(),
                removed: file.get("removed")?.as_u64(),
            })
        })
        .collect()
}
