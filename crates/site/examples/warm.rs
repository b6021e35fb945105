//! How long a site takes that was prepared before anybody asked for it, beside one that was not.
//!
//! Each line that it prints is a figure: its name, its unit and its samples.

use git::{Program, Source};
use skep_site::{DiskBounds, Host, Options, Sites, Wanted, Warm};
use std::{
    io::Write,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use testkit::Repo;
use workspace::Layering;

/// Files of the repository; `SKEP_BENCH_FILES` takes another number.
const FILES: usize = 2_000;
/// How often each is measured.
const RUNS: usize = 40;
/// How long a sandbox may take to be ready.
const DEADLINE: Duration = Duration::from_secs(60);

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    let files = std::env::var("SKEP_BENCH_FILES").map_or(Ok(FILES), |text| text.parse())?;
    let repo = Repo::generated(files);
    let data = tempfile::tempdir()?;
    for (name, warm) in [
        ("site_cold_ms", Warm::OFF),
        ("site_warm_ms", Warm { all: 2, each: 2 }),
    ] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let git = Program::find(&path)?;
        let source = Source::discover(repo.path(), git.clone())?;
        let sites = Sites::open(Options {
            directory: data.path().to_owned(),
            backend: Arc::new(sandbox::Namespace::new()),
            layering: Layering::Overlay,
            host: Host {
                path,
                home: std::env::var_os("HOME").map_or_else(PathBuf::new, PathBuf::from),
                env: Arc::new(|name| std::env::var_os(name)),
            },
            limits: sandbox::Limits::default(),
            disk: DiskBounds::default(),
            warm,
            git,
        })?;
        let mirror = sites.mirror("bench").await?;
        let base = repo.head().parse()?;
        mirror.fetch(&source, base)?;
        let mut samples = Vec::new();
        for run in 0..RUNS + 2 {
            // The first two are never ready.
            if warm.all > 0 && run >= 2 {
                let ready = async {
                    while sites.ready() == 0 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(DEADLINE, ready).await?;
            }
            let wanted = Wanted {
                channel: true,
                ..Wanted::plain(format!("{name}-{run}"), "bench", base)
            };
            let began = Instant::now();
            let site = sites.site(&mirror, wanted).await?;
            let took = began.elapsed();
            if run >= 2 {
                if site.was_ready() != (warm.all > 0) {
                    return Err("the other kind of site was opened".into());
                }
                samples.push(took.as_secs_f64() * 1e3);
            }
            site.close().await?;
        }
        sites.close(false).await;
        let samples: Vec<String> = samples.iter().map(|ms| format!("{ms:.2}")).collect();
        writeln!(std::io::stdout(), "figure {name} ms {}", samples.join(" "))?;
    }
    Ok(())
}
