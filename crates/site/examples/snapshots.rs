//! Snapshots, the way back and forks of running sites: the measuring half of the group `snapshots` of
//! `cargo xtask bench workspace`, which builds it with optimisation and knows the marks.
//!
//! Each line that it prints is a figure: its name, its unit and its samples. Arguments are the number of
//! turns and of files. What the figures mean is in `docs/benchmarks.md`.
#![allow(clippy::unwrap_used, reason = "what fails ends it")]

#[path = "figures/mod.rs"]
mod figures;

use figures::figure;
use sandbox::Namespace;
use skep_site::{Site, Sites, Wanted, Warm};
use std::time::{Duration, Instant};
use testkit::Repo;

const FORKS: usize = 8;
const ROUNDS: usize = 20;
/// Turns count as long as no call takes longer: neither the command, nor the snapshot, nor the way back.
const MARK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse().unwrap());
    let turns: usize = numbers.next().unwrap_or(250);
    let files: usize = numbers.next().unwrap_or(2_000);
    let repo = Repo::new();
    for number in 0..files {
        repo.file(&format!("d{}/f{number}", number / 100), "content\n");
    }
    repo.commit("A base");
    let data = tempfile::tempdir().unwrap();
    let options = figures::options(data.path(), Namespace::new(), Warm::OFF).unwrap();
    let source = git::Source::discover(repo.path(), options.git.clone()).unwrap();
    let sites = Sites::open(options).unwrap();
    let mirror = sites.mirror("r").await.unwrap();
    let base = source.head().commit;
    mirror.fetch(&source, base).unwrap();
    let wanted = |id: String| Wanted::plain(id, "r", base);
    let site = sites.site(&mirror, wanted("site".into())).await.unwrap();
    snapshots(&site, turns).await;
    let mut forking = Vec::new();
    for round in 0..ROUNDS {
        says(&site, &turn(round)).await;
        let begin = Instant::now();
        let moment = format!("fork-{round}");
        site.snapshot(&moment).await.unwrap();
        let forks = (0..FORKS).map(|number| wanted(format!("{round}-{number}")));
        let forks = forks.map(|wanted| site.fork(Some(&moment), wanted));
        let forks = all(forks).await;
        forking.push(begin.elapsed());
        for fork in forks {
            fork.close().await.unwrap();
        }
    }
    figure("fork8_ms", "ms", &samples(&forking)).unwrap();
    site.close().await.unwrap();
    sites.close(false).await;
}

/// Ten small files, some of them again.
fn turn(number: usize) -> String {
    format!(
        "for i in 0 1 2 3 4 5 6 7 8 9; do echo {number} > d{}/n$i; done; echo {number} >> d0/f0",
        number % 20
    )
}

async fn snapshots(site: &Site, turns: usize) {
    let (mut taken, mut back, mut work) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..turns {
        let begin = Instant::now();
        says(site, &turn(number)).await;
        work.push(begin.elapsed());
        let begin = Instant::now();
        site.snapshot(&format!("turn-{number}")).await.unwrap();
        taken.push(begin.elapsed());
    }
    let slow = |(work, taken): (&Duration, &Duration)| *work > MARK || *taken > MARK;
    let mut most = work.iter().zip(&taken).position(slow).unwrap_or(turns);
    figure("snapshot_p50_ms", "ms", &samples(&taken)).unwrap();
    figure("turn_p50_ms", "ms", &samples(&work)).unwrap();
    let reach = turns.min(ROUNDS);
    for number in (turns - reach..turns).rev() {
        let begin = Instant::now();
        site.undo(Some(&format!("turn-{number}"))).await.unwrap();
        let took = begin.elapsed();
        if took > MARK {
            most = most.min(number);
        }
        back.push(took);
    }
    figure("undo_p50_ms", "ms", &samples(&back)).unwrap();
    let most = u32::try_from(most).unwrap();
    figure("snapshots_max", "turns", &[f64::from(most)]).unwrap();
}

/// Waits for all of them, one beside the other.
async fn all<T>(
    futures: impl Iterator<Item = impl Future<Output = Result<T, skep_site::Error>>>,
) -> Vec<T> {
    let mut waiting: Vec<_> = futures.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(move |context| {
        let mut index = 0;
        while let Some(future) = waiting.get_mut(index) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => {
                    done.push(value.unwrap());
                    drop(waiting.swap_remove(index));
                }
                std::task::Poll::Pending => index += 1,
            }
        }
        if waiting.is_empty() {
            return std::task::Poll::Ready(std::mem::take(&mut done));
        }
        std::task::Poll::Pending
    })
    .await
}

async fn says(site: &Site, script: &str) {
    let ran = site.run(script, PATIENCE).await.unwrap();
    assert!(ran.exit.success(), "{}", ran.tail(500));
}

fn samples(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1e3).collect()
}
