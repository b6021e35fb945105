//! The groups of figures.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::{
    figures::{Failed, figure, ms},
    peers::{Peer, bare_command},
    stage::{Made, Stage, pss_kib, run},
};

/// How often each is measured.
const ROUNDS: usize = 200;
/// Rounds before that, which are not counted.
const WARM: usize = 10;
/// Sandboxes that are alive at once, doing nothing.
const CROWD: usize = 200;
/// Lives that are led at the same time.
const ABREAST: usize = 4;
/// How often, and how long each time, they are counted.
const COUNTS: usize = 5;
const COUNTED_FOR: Duration = Duration::from_secs(2);

/// Up, a command, gone: with a workspace, without one, and bubblewrap, in turn.
pub(crate) async fn cycle(stage: &mut Stage) -> Result<(), Failed> {
    let bwrap = Peer::bwrap(&stage.plain());
    let (mut ready, mut whole) = (Vec::new(), Vec::new());
    let (mut bare, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..WARM + ROUNDS {
        let began = Instant::now();
        let made = stage.open().await?;
        ready.push(ms(began.elapsed()));
        run(&*made.sandbox).await?;
        made.close().await?;
        whole.push(ms(began.elapsed()));
        stage.clean()?;

        let began = Instant::now();
        let sandbox = stage.open_bare().await?;
        run(&*sandbox).await?;
        sandbox.destroy().await?;
        bare.push(ms(began.elapsed()));

        if let Some(bwrap) = &bwrap {
            let began = Instant::now();
            bwrap.run()?;
            peer.push(ms(began.elapsed()));
        }
    }
    figure("sandbox_cycle_p50_ms", "ms", warm(&whole))?;
    figure("sandbox_bare_p50_ms", "ms", warm(&bare))?;
    figure("sandbox_ready_p50_ms", "ms", warm(&ready))?;
    if !peer.is_empty() {
        figure("bwrap_p50_ms", "ms", warm(&peer))?;
        // Of neighbours, so that a slow moment of the machine is in both.
        let ratio = |ours: &[f64]| -> Vec<f64> {
            let pairs = warm(ours).iter().zip(warm(&peer));
            pairs.map(|(ours, theirs)| ours / theirs).collect()
        };
        figure("sandbox_bare_ratio", "x", &ratio(&bare))?;
        figure("sandbox_cycle_ratio", "x", &ratio(&whole))?;
    }
    Ok(())
}

/// A command in a running sandbox and one outside of any, in turn.
pub(crate) async fn exec(stage: &mut Stage) -> Result<(), Failed> {
    let made = stage.open().await?;
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for _ in 0..WARM + ROUNDS {
        let began = Instant::now();
        run(&*made.sandbox).await?;
        inside.push(ms(began.elapsed()));

        let began = Instant::now();
        bare_command()?;
        outside.push(ms(began.elapsed()));
    }
    made.close().await?;
    stage.clean()?;
    figure("exec_p50_ms", "ms", warm(&inside))?;
    figure("spawn_p50_ms", "ms", warm(&outside))
}

/// Whole lives in a second, several at a time.
pub(crate) async fn rate(stage: &mut Stage) -> Result<(), Failed> {
    let mut samples = Vec::new();
    for _ in 0..COUNTS {
        let began = Instant::now();
        let mut lives = JoinSet::new();
        for _ in 0..ABREAST {
            let stage = stage.clone();
            lives.spawn(async move {
                let mut count = 0;
                while began.elapsed() < COUNTED_FOR {
                    stage.cycle().await?;
                    count += 1;
                }
                Ok::<usize, Failed>(count)
            });
        }
        let mut count = 0;
        while let Some(lived) = lives.join_next().await {
            count += lived??;
        }
        samples.push(count as f64 / began.elapsed().as_secs_f64());
        stage.clean()?;
    }
    figure("cycles_per_s", "1/s", &samples)
}

/// What idle sandboxes take of the memory: of all processes that are kept for them, and what this
/// process grew by.
pub(crate) async fn idle(stage: &mut Stage) -> Result<(), Failed> {
    // What the first ones cost is not each one's.
    stage.cycle().await?;
    let before = own_kib()?;
    let mut crowd: Vec<Made> = Vec::new();
    for _ in 0..CROWD {
        let made = stage.open().await?;
        // It has done something: what is written then stays.
        run(&*made.sandbox).await?;
        crowd.push(made);
    }
    let grown = own_kib()?.saturating_sub(before);
    let mut kept = 0;
    for made in &crowd {
        let first = made.sandbox.diagnose().await.first_process;
        let pid = first.ok_or("a sandbox has no first process")?.to_string();
        let Some(kib) = pss_kib(&pid) else {
            eprintln!("the memory of sealed processes is shown to root only: no `idle_kb`");
            crowd.clear();
            return stage.clean();
        };
        kept += kib;
    }
    let each = |kib: u64| kib as f64 / CROWD as f64;
    figure("idle_kb", "KiB", &[each(kept + grown)])?;
    figure("idle_own_kb", "KiB", &[each(grown)])?;
    for made in crowd {
        made.close().await?;
    }
    stage.clean()
}

fn own_kib() -> Result<u64, Failed> {
    pss_kib("self").ok_or_else(|| "this process's own memory cannot be read".into())
}

/// The samples without those of the first rounds.
fn warm(samples: &[f64]) -> &[f64] {
    samples.get(WARM..).unwrap_or_default()
}
