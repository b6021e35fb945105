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
use server::standing::{State, Status, find};

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

/// Whether it runs; of one that does not, since when, and why.
fn stands(state: &State, zone: &jiff::tz::TimeZone) -> String {
    match (state.standing.status, state.standing.why) {
        (Status::Stopped, Some(why)) => {
            let since = format::moment(state.standing.since, zone);
            format!("stopped since {since} ({why})")
        }
        _ => word(state).into(),
    }
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

/// How a container beside the sandbox's is, as far as a person wants to know it.
#[derive(serde::Deserialize)]
struct Sidecar {
    name: String,
    image: String,
    alive: bool,
    health: Health,
    exit: Option<sandbox::Exit>,
    remedy: Option<String>,
    limits_in_force: String,
    #[serde(default)]
    out_of_memory_kills: Option<u64>,
    #[serde(default)]
    output: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Health {
    ready: bool,
    since: u64,
}

impl Sidecar {
    fn all(found: Option<&serde_json::Value>) -> Vec<Self> {
        let all = found.and_then(|it| it.get("sidecars")?.as_array());
        let read = |one: &serde_json::Value| serde_json::from_value(one.clone()).ok();
        all.into_iter().flatten().filter_map(read).collect()
    }

    /// In one line, what it is and how it is.
    fn state(&self, zone: &jiff::tz::TimeZone) -> String {
        let since = i64::try_from(self.health.since).unwrap_or(i64::MAX);
        let since = format::moment(domain::Timestamp(since), zone);
        let how = match (self.exit, self.alive, self.health.ready) {
            (Some(exit), ..) => format!("has ended: {exit}"),
            (None, false, _) => "has ended".to_owned(),
            (None, true, true) => "runs, ready".to_owned(),
            (None, true, false) => "runs, not ready".to_owned(),
        };
        let mut said = format!("{} ({}) {how} since {since}", self.name, self.image);
        if let (true, Some(count @ 1..)) = (self.alive, self.out_of_memory_kills) {
            said.push_str(&format!("; {count} of its processes killed for memory"));
        }
        if self.limits_in_force == "none" {
            said.push_str("; its limits are not in force");
        }
        said
    }

    /// What belongs to that: of one that is not as it should be, what to do and what it printed last.
    fn below(&self) -> Vec<String> {
        if self.alive && self.health.ready {
            return Vec::new();
        }
        let hint = self.remedy.iter().map(|remedy| format!("hint: {remedy}"));
        hint.chain(self.output.iter().cloned()).collect()
    }
}

/// How it ended, of one in which nothing runs any more.
#[derive(serde::Deserialize)]
struct End {
    exit: Option<sandbox::Exit>,
    remedy: String,
}

impl End {
    fn of(found: Option<&serde_json::Value>) -> Option<Self> {
        serde_json::from_value(found?.get("ended")?.clone()).ok()
    }

    /// How its first process ended, and what to do.
    fn lines(&self) -> [String; 2] {
        let how = match self.exit {
            Some(exit) => format!("its first process: {exit}"),
            None => "nobody knows how".to_owned(),
        };
        [how, format!("hint: {}", self.remedy)]
    }
}

/// The command that ended, or did not start, last.
#[derive(serde::Deserialize)]
struct Last {
    exit: Option<sandbox::Exit>,
    trouble: Option<String>,
    remedy: Option<String>,
}

impl Last {
    fn of(found: Option<&serde_json::Value>) -> Option<Self> {
        serde_json::from_value(found?.get("last")?.clone()).ok()
    }

    /// How it failed and what to do, where something explains that.
    fn lines(&self) -> Vec<String> {
        let Some(trouble) = &self.trouble else {
            return Vec::new();
        };
        let how = match self.exit {
            Some(exit) => exit.to_string(),
            None => format!("not started, {}", trouble.replace('_', " ")),
        };
        let hint = self.remedy.iter().map(|remedy| format!("hint: {remedy}"));
        [how].into_iter().chain(hint).collect()
    }
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
    line("state", stands(state, &zone));
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
    let given = &record.given;
    for name in &given.secrets {
        line("secret", format!("{}/{name}", sandbox::extras::SECRETS));
    }
    if given.nested {
        line("nested", "namespaces can be made in it".into());
    }
    for device in &given.devices {
        line("device", device.to_string_lossy().into_owned());
    }
    if let Some(put) = &given.dotfiles {
        let script = put.script.as_ref();
        let ran = script.map(|it| format!(", {}: {}", it.name, it.exit));
        line(
            "dotfiles",
            format!("{}{}", put.from, ran.unwrap_or_default()),
        );
    }
    line("created", format::moment(record.created, &zone));
    line("ends", format::moment(record.ends, &zone));
    if state.standing.status != Status::Stopped {
        line("holder", format!("process {}", record.pid));
    }
    let sizes = [
        ("memory", "memory_bytes"),
        ("at most", "peak_memory_bytes"),
        ("on disk", "disk_bytes"),
    ];
    for (name, number) in sizes {
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
    let ended = End::of(found).map(|end| end.lines());
    for (index, one) in ended.into_iter().flatten().enumerate() {
        line(if index == 0 { "ended" } else { "" }, one);
    }
    let failed = Last::of(found).map_or_else(Vec::new, |last| last.lines());
    for (index, one) in failed.into_iter().enumerate() {
        line(if index == 0 { "last failed" } else { "" }, one);
    }
    for sidecar in Sidecar::all(found) {
        line("sidecar", sidecar.state(&zone));
        for below in sidecar.below() {
            line("", below);
        }
    }
    if let Some(kept) = found.and_then(|it| it.get("snapshots")) {
        line("snapshots", snapshots(kept));
    }
    if let Some(why) = found.and_then(|it| it.get("full")?.as_str()) {
        out.push_str(&format!(
            "{} nothing is started in it any more: {}\n",
            paint(LOOK, "note:"),
            text::line(why)
        ));
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
            if let Some(why) = one.get("unreadable").and_then(serde_json::Value::as_str) {
                out.push_str(&format!(
                    "{} the changes in {} cannot be read: {}\n",
                    paint(LOOK, "note:"),
                    text::line(name.unwrap_or_default()),
                    text::line(why)
                ));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_command_that_failed_last_is_shown_where_something_explains_it() {
        let lines = |last: serde_json::Value| {
            let found = json!({ "last": last });
            Last::of(Some(&found)).unwrap().lines()
        };
        let mut last = json!({
            "exit": { "code": 1, "signal": null, "timed_out": false, "limit": null },
            "output": ["x"], "trouble": null, "remedy": null, "refused": [],
        });
        assert_eq!(lines(last.clone()), Vec::<String>::new());
        last["exit"]["refused"] = json!({ "name": "", "number": 4711, "arguments": [0, 0] });
        last["trouble"] = json!("refused_call");
        last["remedy"] = json!("run it outside");
        let shown = ["exit code 1, `call 4711` refused", "hint: run it outside"];
        assert_eq!(lines(last.clone()), shown);
        last["exit"] = json!(null);
        last["trouble"] = json!("program_not_found");
        assert_eq!(lines(last)[0], "not started, program not found");
    }

    #[test]
    fn how_a_sandbox_ended_is_shown_with_what_to_do_and_of_one_that_lives_nothing_is() {
        let lines = |ended: serde_json::Value| {
            let found = json!({ "ended": ended });
            End::of(Some(&found)).map(|end| end.lines())
        };
        assert_eq!(lines(json!(null)), None);
        let killed = sandbox::Exit {
            code: None,
            signal: Some(9),
            timed_out: false,
            limit: Some(sandbox::Limit::Memory),
            refused: None,
        };
        let mut ended = json!({ "exit": killed, "trouble": "out_of_memory", "remedy": "use less" });
        let shown = [
            "its first process: ended by signal 9, limit of memory reached",
            "hint: use less",
        ];
        assert_eq!(lines(ended.clone()).unwrap(), shown);
        ended["exit"] = json!(null);
        assert_eq!(lines(ended).unwrap()[0], "nobody knows how");
    }

    #[test]
    fn a_sidecar_is_shown_with_its_health_and_one_that_has_ended_with_why_and_its_last_lines() {
        let one = |more: serde_json::Value| {
            let mut one = json!({
                "name": "db", "image": "x", "container": "1", "alive": true,
                "health": { "ready": true, "since": 0 }, "exit": null, "trouble": null,
                "remedy": null, "limits_in_force": "cgroup_v2", "memory_bytes": 1,
                "out_of_memory_kills": 0, "output": ["serving"],
            });
            let fields = more.as_object().unwrap().clone();
            one.as_object_mut().unwrap().extend(fields);
            let found = json!({ "sidecars": [one] });
            let sidecar = Sidecar::all(Some(&found)).remove(0);
            let state = sidecar.state(&jiff::tz::TimeZone::UTC);
            (state, sidecar.below())
        };
        let since = "since 1970-01-01 00:00:00";
        let (state, below) = one(json!({}));
        assert_eq!(state, format!("db (x) runs, ready {since}"));
        assert_eq!(below, Vec::<String>::new());
        let (state, below) = one(json!({
            "health": { "ready": false, "since": 0 }, "limits_in_force": "none",
            "out_of_memory_kills": 2,
        }));
        let more = "2 of its processes killed for memory; its limits are not in force";
        assert_eq!(state, format!("db (x) runs, not ready {since}; {more}"));
        assert_eq!(below, ["serving"]);
        let exit = json!({ "code": null, "signal": 9, "timed_out": false, "limit": "memory" });
        let (state, below) = one(json!({
            "alive": false, "health": { "ready": false, "since": 0 }, "exit": exit,
            "remedy": "raise its `memory`", "out_of_memory_kills": 1,
        }));
        assert!(
            state.contains("signal 9") && state.contains("memory"),
            "{state}"
        );
        assert_eq!(below, ["hint: raise its `memory`", "serving"]);
    }
}
