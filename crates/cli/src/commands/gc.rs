//! `skep gc`.

use super::ledger::Line;
use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    signals::Signals,
    view::{
        format,
        paint::{LOOK, paint},
        result,
        table::{self, Cell},
        text,
    },
};
use domain::SandboxId;
use server::standing::{self, Tally};
use server::{Collect, Collection, Space, Step, Usage};
use std::{
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Give back the disk space that nothing needs
///
/// Workspaces that nobody owns, stopped sandboxes that are past their time, and what killed processes left,
/// containers too, are deleted. Bases (checked-out
/// commits that workspaces share) go where they, with workspaces and mirrors, take more than
/// `[store]` in the configuration allows: the longest unused first, and never one that is in use or
/// that another lies over. Kept packages of registries go before them. Copies of repositories given
/// by URLs go when nothing was fetched into them for 30 days, unless they hold integrated work or a
/// request works on them. What is gone is made again when it is needed. It may run beside
/// everything else.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep gc --dry-run\n  skep gc\n  skep gc --all\n\nOld requests are another matter: `skep ledger prune`."
)]
pub(crate) struct Args {
    /// Remove every base that nobody uses, every kept package of a registry, and copies of URLs that
    /// were not used for a day
    #[arg(long)]
    all: bool,
    /// Only say what takes how much, and what would be removed
    #[arg(long)]
    dry_run: bool,
}

#[derive(serde::Serialize)]
struct Object<'a> {
    dry_run: bool,
    freed: u64,
    workspaces: &'a [String],
    sandboxes: SandboxesObject,
    bases: &'a [String],
    layers: u64,
    containers: &'a [String],
    engines: &'a [String],
    fetched: &'a [String],
    unfinished: u64,
    leftovers: u64,
    packages: u64,
    failed: Vec<FailedObject<'a>>,
    before: UsageObject<'a>,
}

#[derive(serde::Serialize)]
struct SandboxesObject {
    running: usize,
    /// Those that stay.
    stopped: Vec<SandboxId>,
    /// Those that go.
    past: Vec<SandboxId>,
}

#[derive(serde::Serialize)]
struct FailedObject<'a> {
    name: &'a str,
    why: &'a str,
}

#[derive(serde::Serialize)]
struct UsageObject<'a> {
    bytes: u64,
    max: u64,
    free: u64,
    must_stay_free: u64,
    bases: Vec<BaseObject<'a>>,
    workspaces: Vec<Sized<'a>>,
    mirrors: Vec<Sized<'a>>,
    layers: u64,
    fetched: Vec<FetchedObject<'a>>,
    trash: u64,
    packages: u64,
}

#[derive(serde::Serialize)]
struct BaseObject<'a> {
    name: &'a str,
    bytes: u64,
    over: Option<&'a str>,
    used_by: Option<&'a str>,
    last_use: u64,
}

#[derive(serde::Serialize)]
struct FetchedObject<'a> {
    name: &'a str,
    bytes: u64,
    url: Option<&'a str>,
    last_use: u64,
    stays: Option<&'a str>,
}

#[derive(serde::Serialize)]
struct Sized<'a> {
    name: &'a str,
    bytes: u64,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    let (config, _) = context.config()?;
    let data = context.data(&config)?;
    let ledger = context.ledger().await?;
    let line = Line::new(context.output);
    let stop = Arc::new(AtomicBool::new(false));
    let how = Collect {
        bounds: config.store.bounds(),
        all: args.all,
        dry_run: args.dry_run,
    };
    let mut signals = Signals::listen()?;
    let tally = standing::tally(&data).map_err(server::Error::from)?;
    if !args.dry_run {
        standing::sweep(&data).map_err(server::Error::from)?;
    }
    let collecting = server::collect(
        &ledger,
        &data,
        how,
        Arc::clone(&stop),
        move |step| match step {
            Step::Measuring => line.begin("measuring"),
            Step::Deleting(done, total) => line.say("deleting", done, total),
        },
    );
    let mut collecting = std::pin::pin!(collecting);
    // What was begun is ended in order: it stops between two files.
    let (collected, quit) = tokio::select! {
        collected = &mut collecting => (collected, None),
        exit = signals.next() => {
            stop.store(true, Ordering::Relaxed);
            (collecting.await, Some(exit))
        }
    };
    line.clear();
    ledger.close().await;
    if let (Some(exit), true) = (quit, collected.is_err()) {
        return Err(Error::Quit(exit));
    }
    let collected = collected.map_err(server::Error::from)?;
    if context.output.is_json() {
        context
            .output
            .object(&object(&collected, tally, args.dry_run))?;
    } else {
        let text = render(&collected, &tally, args.dry_run, context.output.width());
        context.output.say(&text)?;
    }
    Ok(if collected.failed.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn object(collected: &Collection, tally: Tally, dry_run: bool) -> Object<'_> {
    let usage = &collected.before;
    let space = &usage.space;
    Object {
        dry_run,
        freed: collected.freed,
        workspaces: &collected.workspaces,
        sandboxes: SandboxesObject {
            running: tally.running.len(),
            stopped: tally.stopped,
            past: tally.past,
        },
        bases: &collected.bases,
        layers: collected.layers,
        containers: &collected.containers,
        engines: &collected.engines,
        fetched: &collected.fetched,
        unfinished: collected.unfinished,
        leftovers: collected.leftovers.entries,
        packages: collected.packages,
        failed: collected
            .failed
            .iter()
            .map(|(name, why)| FailedObject { name, why })
            .collect(),
        before: UsageObject {
            bytes: usage.bytes(),
            max: usage.max,
            free: usage.free,
            must_stay_free: usage.must_stay_free,
            bases: space
                .bases
                .iter()
                .map(|base| BaseObject {
                    name: &base.key,
                    bytes: base.bytes,
                    over: base.parent.as_deref(),
                    used_by: base.used_by.as_deref(),
                    last_use: micros(base.last_use),
                })
                .collect(),
            workspaces: space
                .workspaces
                .iter()
                .map(|workspace| Sized {
                    name: &workspace.id,
                    bytes: workspace.bytes,
                })
                .collect(),
            mirrors: usage
                .mirrors
                .iter()
                .map(|(name, bytes)| Sized {
                    name,
                    bytes: *bytes,
                })
                .collect(),
            layers: shared(space),
            fetched: usage
                .fetched
                .iter()
                .map(|copy| FetchedObject {
                    name: &copy.name,
                    bytes: copy.bytes,
                    url: copy.url.as_deref(),
                    last_use: micros(copy.last_use),
                    stays: copy.stays,
                })
                .collect(),
            trash: space.trash.bytes,
            packages: usage.packages,
        },
    }
}

/// What layers that workspaces share take, in bytes.
fn shared(space: &Space) -> u64 {
    let layers = space.layers.iter().map(|layer| layer.bytes);
    layers.fold(0, u64::saturating_add)
}

/// Microseconds since 1970.
fn micros(time: SystemTime) -> u64 {
    let age = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
}

fn render(collected: &Collection, tally: &Tally, dry_run: bool, width: usize) -> String {
    let mut out = String::new();
    if dry_run {
        out.push_str(&taken(&collected.before, width));
        out.push('\n');
    }
    let parts = parts(collected, tally);
    let freed = format::bytes(collected.freed);
    out.push_str(&match (dry_run, parts.is_empty(), collected.freed) {
        (true, true, 0) => "Nothing would be removed.\n".to_owned(),
        (false, true, 0) => "There is nothing to give back.\n".to_owned(),
        (true, true, _) => format!("{freed} would be given back, from the trash.\n"),
        (false, true, _) => format!("Gave back {freed}, from the trash.\n"),
        (true, false, _) => format!("{freed} would be given back: {}.\n", parts.join(", ")),
        (false, false, _) => format!("Gave back {freed}: {}.\n", parts.join(", ")),
    });
    if !tally.stopped.is_empty() {
        let of = &collected.before.space.workspaces;
        let kept = of.iter().filter(|it| {
            let is_its = |id: &SandboxId| id.to_string() == it.id;
            tally.stopped.iter().any(is_its)
        });
        let bytes = kept.map(|it| it.bytes).fold(0, u64::saturating_add);
        let (number, keep) = match tally.stopped.len() {
            1 => ("1 stopped sandbox".to_owned(), "keeps"),
            number => (format!("{number} stopped sandboxes"), "keep"),
        };
        out.push_str(&format!(
            "{number} {keep} {}: `skep sandbox list` shows until when.\n",
            format::bytes(bytes)
        ));
    }
    for (name, why) in &collected.failed {
        out.push_str(&format!(
            "{} {} could not be deleted: {}\n",
            paint(LOOK, "note:"),
            text::line(name),
            text::line(why)
        ));
    }
    for engine in &collected.engines {
        let (word, is) = (
            paint(LOOK, "note:"),
            if dry_run { "would not be" } else { "is not" },
        );
        let engine = text::line(engine);
        out.push_str(&format!(
            "{word} the engine `{engine}` was not there for a week, and {is} asked any more what killed processes left in it. If it comes back, whoever uses it next removes that.\n"
        ));
    }
    let contained = !collected.containers.is_empty() || !collected.engines.is_empty();
    if dry_run && (collected.freed > 0 || contained) {
        out.push('\n');
        out.push_str(&result::commands(&[("skep gc".into(), "remove it")]));
    }
    out
}

/// What goes, in words.
fn parts(collected: &Collection, tally: &Tally) -> Vec<String> {
    let number = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let counted = [
        (collected.workspaces.len(), "workspace", "that nobody owns"),
        (tally.past.len(), "stopped sandbox", "past their time"),
        (
            collected.containers.len(),
            "container",
            "of killed processes",
        ),
        (collected.bases.len(), "base", "that nobody uses"),
        (number(collected.layers), "layer", "that no fork needs"),
        (collected.fetched.len(), "copy", "of long unused URLs"),
        (
            number(collected.unfinished),
            "half-made directory",
            "of killed processes",
        ),
        (
            number(collected.leftovers.entries),
            "temporary file",
            "of killed processes",
        ),
    ]
    .into_iter()
    .filter(|(count, ..)| *count > 0)
    .map(|(count, noun, which)| {
        // Two of the nouns have another plural.
        let counted = match (count, noun.strip_suffix('y')) {
            (1, _) => format::count(count, noun),
            (_, Some(stem)) => format!("{count} {stem}ies"),
            (_, None) if noun.ends_with('x') => format!("{count} {noun}es"),
            (_, None) => format::count(count, noun),
        };
        format!("{counted} {which}")
    });
    let packages = (collected.packages > 0).then(|| {
        let bytes = format::bytes(collected.packages);
        format!("{bytes} of packages of registries")
    });
    counted.chain(packages).collect()
}

/// What takes how much.
fn taken(usage: &Usage, width: usize) -> String {
    let space = &usage.space;
    let row = |what: &str, size: u64, note: String| {
        vec![
            Cell::from(what),
            Cell::number(format::bytes(size)),
            Cell::from(note),
        ]
    };
    let mut rows = Vec::new();
    for base in &space.bases {
        let note = match (&base.used_by, &base.parent) {
            (Some(user), _) => format!("in use by {user}"),
            (None, Some(_)) => "unused, a layer over another base".to_owned(),
            (None, None) => "unused".to_owned(),
        };
        rows.push(row(&format!("base {}", base.key), base.bytes, note));
    }
    for workspace in &space.workspaces {
        let name = format!("workspace {}", workspace.id);
        rows.push(row(&name, workspace.bytes, String::new()));
    }
    for (name, bytes) in &usage.mirrors {
        rows.push(row(&format!("mirror {name}"), *bytes, String::new()));
    }
    for copy in &usage.fetched {
        let name = format!("copy {}", copy.name);
        let note = copy.stays.unwrap_or("of a URL");
        rows.push(row(&name, copy.bytes, note.to_owned()));
    }
    if !space.layers.is_empty() {
        let note = format::count(space.layers.len(), "layer");
        rows.push(row("shared by forks", shared(space), note));
    }
    if usage.packages > 0 {
        let note = "of registries, kept for all sandboxes".to_owned();
        rows.push(row("packages", usage.packages, note));
    }
    if space.trash.entries > 0 {
        let note = "to be deleted".to_owned();
        rows.push(row("trash", space.trash.bytes, note));
    }
    let most = format!("of {} at most", format::bytes(usage.max));
    rows.push(row("in all", usage.bytes(), most));
    let mut text = table::render(&rows, 0, width);
    // On a line of its own: beside long names it would be cut.
    text.push_str(&format!(
        "{} of the disk are free, of which {} must stay so.\n",
        format::bytes(usage.free),
        format::bytes(usage.must_stay_free)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;
    use server::{BaseInfo, Fetched, LayerInfo, Leftovers, TrashInfo, WorkspaceInfo};

    fn collection() -> Collection {
        let base = |key: &str, parent: Option<&str>, used_by: Option<&str>| BaseInfo {
            key: key.to_owned(),
            bytes: 300 << 20,
            parent: parent.map(str::to_owned),
            used_by: used_by.map(str::to_owned),
            last_use: UNIX_EPOCH,
        };
        Collection {
            before: Usage {
                space: Space {
                    bases: vec![
                        base("p-1-aaaa", None, Some("workspace a-1")),
                        base("p-1-bbbb", Some("p-1-aaaa"), None),
                        base("p-1-cccc", None, None),
                    ],
                    workspaces: vec![WorkspaceInfo {
                        id: "a-1".into(),
                        bytes: 70_000,
                    }],
                    layers: vec![LayerInfo {
                        name: "layer.1".into(),
                        bytes: 3 << 20,
                        users: Some(Vec::new()),
                    }],
                    trash: TrashInfo {
                        entries: 2,
                        bytes: 5 << 20,
                    },
                },
                mirrors: vec![("p-1".into(), 90 << 20)],
                fetched: vec![Fetched {
                    name: "lib-1234".into(),
                    url: Some("https://example.org/lib.git".into()),
                    bytes: 20 << 20,
                    last_use: UNIX_EPOCH,
                    stays: Some("holds integrated work"),
                }],
                packages: 50 << 20,
                max: 80 << 30,
                must_stay_free: 8 << 30,
                free: 40 << 30,
            },
            workspaces: vec!["a-2".into(), "a-\u{1b}[31m3".into()],
            unfinished: 2,
            containers: vec!["0123456789ab".into()],
            engines: vec!["/run/old-\u{1b}[31m.sock".into()],
            bases: vec!["p-1-bbbb".into()],
            layers: 1,
            fetched: vec!["lib-5678".into(), "old-1".into()],
            leftovers: Leftovers {
                entries: 1,
                bytes: 4_096,
            },
            packages: 3 << 20,
            freed: 700 << 20,
            failed: vec![("a-2.1".into(), "cannot delete \u{1b}[2Jx".into())],
        }
    }

    #[test]
    fn what_takes_how_much_and_what_goes_is_said() {
        let all = collection();
        let trash = Collection {
            workspaces: Vec::new(),
            unfinished: 0,
            containers: Vec::new(),
            engines: Vec::new(),
            bases: Vec::new(),
            layers: 0,
            fetched: Vec::new(),
            leftovers: Leftovers::default(),
            packages: 0,
            failed: Vec::new(),
            ..all.clone()
        };
        let nothing = Collection {
            freed: 0,
            ..trash.clone()
        };
        let texts = [
            render(&all, &Tally::default(), true, 100),
            render(&all, &Tally::default(), false, 100),
            render(&trash, &Tally::default(), false, 100),
            render(&nothing, &Tally::default(), false, 100),
        ];
        insta::assert_snapshot!(plain(&texts.join("---\n")));
    }

    #[test]
    fn as_an_object_it_has_every_number() {
        let collected = collection();
        insta::assert_json_snapshot!(object(&collected, Tally::default(), true));
    }
}
