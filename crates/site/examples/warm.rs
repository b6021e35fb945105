//! How long a site takes that was prepared before anybody asked for it, beside one that was not.
//!
//! Each line that it prints is a figure: its name, its unit and its samples.

#[path = "figures/mod.rs"]
mod figures;

use figures::{Failed, figure, ms};
use git::Source;
use skep_site::{Host, Options, Sites, Wanted, Warm};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use testkit::Repo;

/// Files of the repository.
const FILES: usize = 2_000;
/// How often each is measured.
const RUNS: usize = 40;
/// How long a sandbox may take to be ready.
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    let repo = Repo::generated(figures::files(FILES)?);
    let data = tempfile::tempdir()?;
    for (name, warm) in [
        ("site_cold_ms", Warm::OFF),
        ("site_warm_ms", Warm { all: 2, each: 2 }),
    ] {
        let usual = figures::options(data.path(), sandbox::Namespace::new(), warm)?;
        let source = Source::discover(repo.path(), usual.git.clone())?;
        // With the toolchains of whoever measures.
        let sites = Sites::open(Options {
            host: Host {
                home: std::env::var_os("HOME").map_or_else(PathBuf::new, PathBuf::from),
                env: Arc::new(|name| std::env::var_os(name)),
                ..usual.host
            },
            ..usual
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
                samples.push(ms(took));
            }
            site.close().await?;
        }
        sites.close(false).await;
        figure(name, "ms", &samples)?;
    }
    Ok(())
}
