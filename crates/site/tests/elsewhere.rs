//! A kind of sandbox whose files nobody reaches but by the trait, as they are on another machine: a whole
//! site works in it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use git::TreeId;
use sandbox::{
    Abilities, Backend, Carry, Channel, Command, Connection, Diagnosis, Error, Finding, Kind,
    Namespace, Process, Sandbox, Spec, Stats, Strike, Tmp,
};
use scene::{Place, says};
use site::{Site, StoreBounds, Wanted};
use skep_site as site;
use std::{ffi::OsString, path::Path, sync::Arc};
use tempfile::TempDir;
use workspace::Layering;

/// It has a directory of its own for each sandbox, and tells nobody where.
struct Distant(Namespace);

struct DistantSandbox {
    inner: Box<dyn Sandbox>,
    _files: TempDir,
}

#[async_trait::async_trait]
impl Backend for Distant {
    fn kind(&self) -> Kind {
        self.0.kind()
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            limits: true,
            ..Abilities::default()
        }
    }

    async fn probe(&self, place: &Path) -> Vec<Finding> {
        self.0.probe(place).await
    }

    async fn create(&self, mut spec: Spec) -> Result<Box<dyn Sandbox>, Error> {
        let own = matches!(spec.workspace, sandbox::Workspace::Own);
        let nothing = spec.home.is_none()
            && spec.mounts.is_empty()
            && spec.also.is_empty()
            && spec.extras.is_none();
        if !own || !nothing || !matches!(spec.tmp, Tmp::Memory { .. }) {
            return Err(Error::Spec {
                what: "nothing of this machine is there".into(),
            });
        }
        let files = TempDir::new().unwrap();
        spec.workspace = sandbox::Workspace::Directory(files.path().to_owned());
        let inner = self.0.create(spec).await?;
        Ok(Box::new(DistantSandbox {
            inner,
            _files: files,
        }))
    }
}

#[async_trait::async_trait]
impl Sandbox for DistantSandbox {
    fn kind(&self) -> Kind {
        self.inner.kind()
    }

    fn workspace(&self) -> &Path {
        self.inner.workspace()
    }

    fn home(&self) -> &Path {
        self.inner.home()
    }

    fn base_env(&self) -> Vec<(OsString, OsString)> {
        self.inner.base_env()
    }

    fn take_channel(&self) -> Option<Channel> {
        self.inner.take_channel()
    }

    async fn exec(&self, command: Command) -> Result<Process, Error> {
        self.inner.exec(command).await
    }

    async fn connect(&self, port: u16) -> Result<Connection, Error> {
        self.inner.connect(port).await
    }

    async fn carry(&self, carry: Carry) -> Result<Process, Error> {
        self.inner.carry(carry).await
    }

    fn strike(&self) -> Arc<dyn Strike> {
        self.inner.strike()
    }

    async fn diagnose(&self) -> Diagnosis {
        self.inner.diagnose().await
    }

    async fn stats(&self) -> Stats {
        self.inner.stats().await
    }

    async fn destroy(self: Box<Self>) -> Result<(), Error> {
        self.inner.destroy().await
    }
}

const FILES: [(&str, &str); 8] = [
    (".gitignore", "*.log\nbuild\n"),
    ("a/one", "one\n"),
    ("a/b/two", "two\n"),
    ("a/b/c/three", "three\n"),
    ("docs/text", "text\n"),
    ("docs/more", "more\n"),
    ("run.sh", "#!/bin/sh\n"),
    ("top", "top\n"),
];

async fn distant() -> Place {
    over(Arc::new(Distant(Namespace::new()))).await
}

/// In sandboxes of this kind.
async fn over(backend: Arc<dyn Backend>) -> Place {
    Place::over(&FILES, |data, repo| {
        scene::of(data, repo, backend, Layering::Copy, StoreBounds::default())
    })
    .await
}

async fn open(place: &Place, id: &str) -> Site {
    place.open(Wanted::plain(id, "r", place.head())).await
}

/// What a script leaves in a site, read as a stream, and as a directory of this machine.
async fn both(far: &Place, near: &Place, script: &str) -> (TreeId, TreeId) {
    let (there, here) = (open(far, "w").await, open(near, "w").await);
    for site in [&there, &here] {
        says(site, script).await;
    }
    let trees = (
        there.extract().await.unwrap(),
        here.extract().await.unwrap(),
    );
    assert_eq!(trees.0.not_taken, trees.1.not_taken, "{script}");
    there.close().await.unwrap();
    here.close().await.unwrap();
    (trees.0.tree, trees.1.tree)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_site_works_without_a_file_on_this_machine() {
    let place = distant().await;
    let site = open(&place, "w").await;
    assert_eq!(
        says(&site, "cat a/b/two; git status --short").await,
        "two\n"
    );
    let base = place.mirror.tree_of(place.head()).unwrap();
    assert_eq!(site.extract().await.unwrap().tree, base, "nothing was done");
    says(
        &site,
        "echo changed > a/one; rm -r docs; mkdir new; echo new > new/file; chmod +x top; \
         ln -s ../top new/link; echo no > x.log; mkdir -p build/deep; echo no > build/deep/x; \
         head -c 1500000 /dev/urandom > large; mkdir shut; echo x > shut/in; chmod 000 shut/in shut; \
         echo evil > .git/index; mkfifo pipe; mkdir -p new/.git; echo x > new/.git/config",
    )
    .await;
    let extracted = site.extract().await.unwrap();
    let mut not_taken = extracted.not_taken.clone();
    not_taken.sort();
    assert_eq!(not_taken.len(), 2, "{not_taken:?}");
    assert!(not_taken[0].starts_with("new/.git: ") && not_taken[1].starts_with("pipe: "));
    let entry = |path: &str| place.mirror.entry_in(extracted.tree, path.into()).unwrap();
    let read = |path: &str| {
        let entry = entry(path).unwrap();
        place.mirror.read_blob(entry.id, 10_000_000).unwrap()
    };
    assert_eq!(read("a/one"), b"changed\n");
    assert_eq!(
        (read("new/file"), read("shut/in")),
        (b"new\n".into(), b"x\n".into())
    );
    assert_eq!(read("new/link"), b"../top");
    assert_eq!(read("large").len(), 1_500_000);
    assert_eq!(entry("top").unwrap().kind, git::FileKind::Executable);
    for gone in ["docs", "x.log", "build", "pipe"] {
        assert!(entry(gone).is_none(), "{gone}");
    }
    // It goes on, and what was shut is as it was.
    assert_eq!(says(&site, "stat -c %a shut").await, "0\n");
    says(
        &site,
        "chmod 700 shut; rm -r shut new; git checkout -q . 2>&1 || true",
    )
    .await;
    says(&site, "rm -rf large pipe; truncate -s 200M large").await;
    let limit = site.extract().await.unwrap_err();
    assert_eq!(limit.failure().reason, domain::Reason::LimitReached);
    site.close().await.unwrap();
    place.sites.close(false).await;
    place.assert_no_workspace_is_left();
}

/// Operations that a seed decides, on few names so that they meet.
fn operations(mut seed: u64) -> String {
    const NAMES: [&str; 8] = [
        "a",
        "a/b",
        "a/b/two",
        "docs",
        "top",
        "new",
        "odd \n name",
        "docs/x.log",
    ];
    let mut next = |most: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % most
    };
    let mut script = String::new();
    for step in 0..25 {
        let (name, other) = (NAMES[next(8)], NAMES[next(8)]);
        let line = match next(9) {
            0 => format!("echo {step} > '{name}'"),
            1 => format!("rm -rf '{name}'"),
            2 => format!("mkdir -p '{name}'"),
            3 => format!("ln -sfn '{other}' '{name}'"),
            4 => format!("mv '{name}' '{other}'"),
            5 => format!("chmod +x '{name}'; chmod -x '{other}'"),
            6 => format!("cp -r '{name}' '{other}.copy'"),
            7 => format!("echo '{other}' >> .gitignore"),
            _ => format!("rm -rf '{name}'; mkdir -p '{name}'; echo {step} > '{name}/in'"),
        };
        script.push_str(&format!("{{ {line}; }} 2>/dev/null\n"));
    }
    script + "true\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn any_sequence_of_operations_comes_out_of_a_stream_as_out_of_a_directory() {
    let (far, near) = (distant().await, over(Arc::new(Namespace::new())).await);
    for seed in 1..=12 {
        let script = operations(seed);
        let (streamed, read) = both(&far, &near, &script).await;
        assert_eq!(streamed, read, "seed {seed}:\n{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_files_of_this_machine_is_refused_where_there_are_none() {
    let place = distant().await;
    let wanted = place.set_up_by("w", "true");
    let refused = place.sites.site(&place.mirror, wanted).await.err().unwrap();
    let text = domain::failure::chain(&refused);
    assert!(text.contains("its files are not on this machine"), "{text}");
    place.sites.close(false).await;
    place.assert_no_workspace_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn dotfiles_are_refused_where_the_home_is_not_on_this_machine() {
    let place = distant().await;
    let site = open(&place, "w").await;
    let dots = TempDir::new().unwrap();
    std::fs::write(dots.path().join(".vimrc"), "x").unwrap();
    let read = site::Dotfiles::read(dots.path(), Path::new("/no/home")).unwrap();
    let refused = site.put_dotfiles(read).await.unwrap_err();
    assert!(
        matches!(&refused, site::Error::Sandbox(Error::Spec { what }) if what.contains("dotfiles")),
        "{refused}"
    );
    site.close().await.unwrap();
}
