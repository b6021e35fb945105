//! A repository that is given by a URL.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use skep_git::{
    Access, ApplyMode, Bounds, Cancel, Error, IntegrationBranch, NewCommit, Program, Protocol,
    Remote, Source, Token, Want,
};
use testkit::Web;

use crate::repo::{Repo, git_in, program, raw_tree, run, someone, write_executable};

/// The copy of a URL beside the repository.
fn copy(repo: &Repo, url: &str, protocol: Protocol) -> Remote {
    let directory = repo.dir.path().join("copy");
    Remote::open_or_create(&directory, url, protocol, program()).unwrap()
}

fn file_url(repo: &Repo) -> String {
    format!("file://{}", repo.path.display())
}

/// A user with an empty home.
fn nobody(home: &Path) -> Access {
    let home = home.as_os_str().to_owned();
    Access::of_user(move |name| (name == "HOME").then(|| home.clone()))
}

fn fetch(remote: &Remote, want: Want, access: &Access) -> Result<skep_git::Arrived, Error> {
    remote.fetch(&want, access, &mut |_| {})
}

fn named(name: &str) -> Want {
    Want::Named(name.into())
}

#[test]
fn a_url_gives_its_default_branch_and_work_on_it_goes_on_as_on_any_repository() {
    let repo = Repo::started();
    let head = repo.head();
    let remote = copy(&repo, &file_url(&repo), Protocol::File);
    let arrived = fetch(&remote, Want::Head, &Access::default()).unwrap();
    assert_eq!(arrived.commit, head);
    assert_eq!(arrived.reference.as_deref(), Some("refs/heads/main"));
    let source = Source::discover(remote.directory(), program()).unwrap();
    assert_eq!(source.copy_of(), Some(file_url(&repo).as_str()));
    assert_eq!(source.head().commit, head);
    assert_eq!(source.uncommitted().unwrap(), []);
    let mirror = repo.mirror();
    mirror.fetch(&source, head).unwrap();
    assert_eq!(
        mirror.snapshot_uncommitted(&source, &someone()).unwrap(),
        head
    );
    let branch = IntegrationBranch::new(mirror.clone(), "skep/integration");
    let mut writer = mirror.tree_writer(mirror.tree_of(head).unwrap());
    writer
        .put_file("n.txt".into(), false, &mut &b"n"[..], 1)
        .unwrap();
    let landed = mirror
        .commit(&NewCommit {
            tree: writer.finish().unwrap().tree,
            parents: &[head],
            author: &someone(),
            committer: &someone(),
            message: "n".into(),
        })
        .unwrap();
    branch.advance(None, landed).unwrap();
    branch.publish(&source, None, landed, &someone()).unwrap();
    assert_eq!(source.branch("skep/integration").unwrap(), Some(landed));
    assert!(source.is_on_a_branch(landed).unwrap());
    // The repository at the URL has none of it.
    assert_eq!(repo.git(&["branch", "--list", "skep/*"]), "");
    let refused = source.apply(&mirror, head, landed, ApplyMode::Merge, "x", &[]);
    assert!(
        matches!(refused, Err(Error::NoWorkingTree { .. })),
        "{refused:?}"
    );
}

// docs/bad-input.md: A branch, tag, commit or pull request that is not there
#[test]
fn branches_tags_commits_proposals_and_pages_of_trees_are_found() {
    let repo = Repo::started();
    let first = repo.head();
    repo.git(&["tag", "-a", "-m", "one", "v1"]);
    repo.git(&["checkout", "--quiet", "-b", "feature/x"]);
    let second = repo.commit("two");
    repo.git(&["update-ref", "refs/pull/7/head", "HEAD"]);
    repo.git(&["update-ref", "refs/merge-requests/8/head", "HEAD~1"]);
    repo.git(&["checkout", "--quiet", "main"]);
    let remote = copy(&repo, &file_url(&repo), Protocol::File);
    let commit = |want| fetch(&remote, want, &Access::default()).map(|it| it.commit);
    assert_eq!(commit(named("feature/x")).unwrap(), second);
    // Nothing was fetched before it.
    let source = Source::discover(remote.directory(), program()).unwrap();
    assert_eq!(source.head().commit, second);
    assert_eq!(commit(Want::Head).unwrap(), first);
    assert_eq!(source.reopen().unwrap().head().commit, first);
    assert_eq!(commit(named("v1")).unwrap(), first);
    assert_eq!(source.reopen().unwrap().head().commit, first);
    assert_eq!(commit(named("refs/pull/7/head")).unwrap(), second);
    assert_eq!(commit(named("refs/merge-requests/8/head")).unwrap(), first);
    assert_eq!(
        commit(Want::Tree("feature/x/dir/b.txt".into())).unwrap(),
        second
    );
    assert_eq!(commit(Want::Tree("v1".into())).unwrap(), first);
    assert_eq!(commit(Want::Commit(second.to_string())).unwrap(), second);
    for name in ["none", "refs/pull/99/head", "-x"] {
        let error = commit(named(name)).unwrap_err();
        assert!(matches!(error, Error::NotThere { .. }), "{name}: {error}");
    }
}

#[test]
fn a_commit_is_found_by_the_beginning_of_its_name_and_where_it_is_on_no_branch_any_more() {
    let repo = Repo::started();
    let first = repo.head();
    let lost = repo.commit("lost");
    repo.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    let remote = copy(&repo, &file_url(&repo), Protocol::File);
    let commit = |text: &str| fetch(&remote, Want::Commit(text.into()), &Access::default());
    let short = &first.to_string()[..9];
    assert_eq!(commit(short).unwrap().commit, first);
    assert_eq!(
        fetch(&remote, named(short), &Access::default())
            .unwrap()
            .commit,
        first
    );
    assert_eq!(commit(&lost.to_string()).unwrap().commit, lost);
    let error = commit(&"7".repeat(40)).unwrap_err();
    assert!(matches!(error, Error::NotThere { .. }), "{error}");
}

#[test]
fn what_is_new_is_fetched_and_what_is_gone_stays_usable() {
    let repo = Repo::started();
    let remote = copy(&repo, &file_url(&repo), Protocol::File);
    let first = fetch(&remote, Want::Head, &Access::default())
        .unwrap()
        .commit;
    repo.git(&[
        "commit",
        "--quiet",
        "--amend",
        "--allow-empty",
        "-m",
        "rewritten",
    ]);
    let second = fetch(&remote, Want::Head, &Access::default())
        .unwrap()
        .commit;
    assert_eq!(second, repo.head());
    let source = Source::discover(remote.directory(), program()).unwrap();
    assert_eq!(source.head().commit, second);
    assert_eq!(source.resolve(&first.to_string()).unwrap(), first);
    std::fs::remove_dir_all(&repo.path).unwrap();
    let error = fetch(&remote, Want::Head, &Access::default()).unwrap_err();
    assert!(matches!(error, Error::NoRemote { .. }), "{error}");
    assert_eq!(source.reopen().unwrap().head().commit, second);
}

#[test]
fn an_empty_repository_says_so() {
    let repo = Repo::new();
    let remote = copy(&repo, &file_url(&repo), Protocol::File);
    let error = fetch(&remote, Want::Head, &Access::default()).unwrap_err();
    assert!(matches!(error, Error::EmptyRemote { .. }), "{error}");
}

#[test]
fn http_works_and_the_person_is_told_how_it_goes_on() {
    let repo = Repo::started();
    let web = Web::of_git(repo.dir.path(), None);
    let remote = copy(&repo, &format!("{}/user/.git", web.url()), Protocol::Http);
    let mut told = Vec::new();
    let arrived = remote
        .fetch(&Want::Head, &Access::default(), &mut |line| {
            told.push(line.to_owned())
        })
        .unwrap();
    assert_eq!(arrived.commit, repo.head());
    assert!(told.iter().any(|line| line.contains("objects")), "{told:?}");
}

// docs/bad-input.md: A server that wants credentials
#[test]
fn a_server_that_wants_credentials_gets_them_from_the_users_helper_or_a_token_and_keeps_no_trace() {
    let repo = Repo::started();
    let web = Web::of_git(repo.dir.path(), Some(("ann", "s3cret")));
    let url = format!("{}/user/.git", web.url());
    let remote = copy(&repo, &url, Protocol::Http);
    let home = tempfile::tempdir().unwrap();
    let error = fetch(&remote, Want::Head, &nobody(home.path())).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");

    let other = Web::of_git(repo.dir.path(), None);
    let helper = home.path().join("helper");
    write_executable(
        &helper,
        &format!(
            "#!/bin/sh\necho \"$1\" >> '{}'\ncat > /dev/null\n\
             test \"$1\" = get && printf 'username=ann\\npassword=s3cret\\n'\n",
            home.path().join("asked").display()
        ),
    );
    let trap = home.path().join("trap");
    write_executable(&trap, "#!/bin/sh\ntouch \"$HOME/tripped\"\nexit 1\n");
    std::fs::write(
        home.path().join(".gitconfig"),
        format!(
            "[credential \"{url}\"]\n\thelper = {helper}\n[credential \"{other}\"]\n\thelper = {trap}\n\
             [url \"file:///etc/\"]\n\tinsteadOf = {url}\n[core]\n\taskPass = {trap}\n\
             \tgitProxy = {trap}\n\thooksPath = {home}\n[http]\n\tproxy = http://127.0.0.1:1/\n",
            url = web.url(),
            helper = helper.display(),
            other = other.url(),
            trap = trap.display(),
            home = home.path().display(),
        ),
    )
    .unwrap();
    let arrived = fetch(&remote, Want::Head, &nobody(home.path())).unwrap();
    assert_eq!(arrived.commit, repo.head());
    let asked = std::fs::read_to_string(home.path().join("asked")).unwrap();
    assert!(asked.contains("get"), "{asked}");
    assert!(!home.path().join("tripped").exists());

    std::fs::remove_file(home.path().join("asked")).unwrap();
    let token = |secret: &str| {
        nobody(home.path()).with_token(Some(Token {
            username: "ann".into(),
            secret: secret.into(),
        }))
    };
    fetch(&remote, Want::Head, &token("s3cret")).unwrap();
    let error = fetch(&remote, Want::Head, &token("wr0ng")).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert!(!error.to_string().contains("wr0ng"));
    assert!(!format!("{:?}", token("s3cret")).contains("s3cret"));
    // The user's helper comes to hear of no token.
    assert!(!home.path().join("asked").exists());
    for (path, (_, _, _, content)) in crate::repo::everything(remote.directory()) {
        let has = content.windows(6).any(|six| six == b"s3cret");
        assert!(!has, "{}", path.display());
    }
}

#[test]
fn a_token_is_given_to_its_host_alone() {
    let repo = Repo::started();
    let thief = Web::of_git(repo.dir.path(), Some(("x", "y")));
    let to = thief.url();
    let web = Web::start(move |seen, stream| {
        let query = &seen.query;
        write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {to}{}?{query}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            seen.path
        )
    });
    let remote = copy(&repo, &format!("{}/user/.git", web.url()), Protocol::Http);
    let access = Access::default().with_token(Some(Token {
        username: "ann".into(),
        secret: "s3cret".into(),
    }));
    let error = fetch(&remote, Want::Head, &access).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    let seen = thief.seen();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|it| it.header("authorization").is_none()));
}

// docs/bad-input.md: An option, or a transport of another program (`ext::`)
#[test]
fn no_other_protocol_is_spoken_whatever_a_server_says() {
    let repo = Repo::started();
    let place = repo.path.display().to_string();
    let web = Web::start(move |seen, stream| {
        write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: file://{place}{}?{}\r\nContent-Length: 0\r\n\r\n",
            seen.path, seen.query
        )
    });
    let remote = copy(&repo, &format!("{}/user/.git", web.url()), Protocol::Http);
    fetch(&remote, Want::Head, &Access::default()).unwrap_err();
    let directory = repo.dir.path().join("other");
    let marker = repo.dir.path().join("ran");
    for url in [format!("ext::touch% {}", marker.display()), file_url(&repo)] {
        // Nobody who parses URLs makes these of this protocol: git itself refuses them, too.
        let remote = Remote::open_or_create(&directory, &url, Protocol::Https, program()).unwrap();
        fetch(&remote, Want::Head, &Access::default()).unwrap_err();
        std::fs::remove_dir_all(&directory).unwrap();
    }
    assert!(!marker.exists());
}

#[test]
fn ssh_is_the_users_own_and_asks_nothing() {
    let repo = Repo::started();
    let bin = repo.dir.path().join("bin");
    let log = repo.dir.path().join("log");
    write_executable(
        &bin.join("ssh"),
        &format!(
            "#!/bin/sh\necho \"$@\" >> '{}'\nfor last; do :; done\nunset GIT_DIR\nexec sh -c \"$last\"\n",
            log.display()
        ),
    );
    let mut path = OsString::from(&bin);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let git = Program::find(&path).unwrap();
    let url = format!("git@example.invalid:{}", repo.path.display());
    let directory = repo.dir.path().join("copy");
    let remote = Remote::open_or_create(&directory, &url, Protocol::Ssh, git).unwrap();
    let arrived = fetch(&remote, Want::Head, &Access::default()).unwrap();
    assert_eq!(arrived.commit, repo.head());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(
        log.contains("BatchMode=yes") && log.contains("git@example.invalid"),
        "{log}"
    );
}

// docs/bad-input.md: A server that cannot be reached, or answers nonsense
#[test]
fn nobody_there_and_nonsense_are_told_apart_and_end_at_once() {
    let repo = Repo::started();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let remote = copy(&repo, &format!("http://{closed}/r.git"), Protocol::Http);
    let error = fetch(&remote, Want::Head, &Access::default()).unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }) && error.may_pass(),
        "{error}"
    );

    let nonsense: [&[u8]; 5] = [
        b"",
        b"\0\xff\x1b[2Jnonsense",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>sign in</html>",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\nzzzz",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n\
          001e# service=git-upload-pack\n0000ffff",
    ];
    for (index, answer) in nonsense.into_iter().enumerate() {
        let web = Web::start(move |_, stream| stream.write_all(answer));
        let directory = repo.dir.path().join(format!("copy-{index}"));
        let url = format!("{}/r.git", web.url());
        let remote = Remote::open_or_create(&directory, &url, Protocol::Http, program()).unwrap();
        let error = fetch(&remote, Want::Head, &Access::default()).unwrap_err();
        assert!(
            !matches!(error, Error::Silent { .. } | Error::TimedOut { .. }),
            "{error}"
        );
    }
}

/// Writes a head, and then this again and again until the other side is gone.
fn endless(stream: &mut TcpStream, head: &str, piece: &[u8]) -> std::io::Result<()> {
    stream.write_all(head.as_bytes())?;
    loop {
        stream.write_all(piece)?;
    }
}

const ADVERTISED: &str = "HTTP/1.1 200 OK\r\n\
    Content-Type: application/x-git-upload-pack-advertisement\r\nConnection: close\r\n\r\n\
    001e# service=git-upload-pack\n0000";

fn small() -> Bounds {
    Bounds {
        time: Duration::from_secs(60),
        silence: Duration::from_secs(2),
        disk: 20 << 20,
        memory: 256 << 20,
    }
}

// docs/bad-input.md: A server that says nothing
#[test]
fn a_server_that_says_nothing_is_given_up() {
    let repo = Repo::started();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/r.git", silent.local_addr().unwrap());
    let remote = copy(&repo, &url, Protocol::Http).with_bounds(small());
    let error = fetch(&remote, Want::Head, &Access::default()).unwrap_err();
    assert!(
        matches!(error, Error::Silent { .. }) && error.may_pass(),
        "{error}"
    );
}

// docs/bad-input.md: A server that never ends
#[test]
fn a_server_that_never_ends_its_references_takes_no_memory_without_bound() {
    let repo = Repo::started();
    let web = Web::start(|_, stream| {
        let id = "7".repeat(40);
        let lines: String = (0..1000)
            .map(|n| {
                let line = format!("{id} refs/heads/{n:030}\n");
                format!("{:04x}{line}", line.len() + 4)
            })
            .collect();
        endless(stream, ADVERTISED, lines.as_bytes())
    });
    let remote = copy(&repo, &format!("{}/r.git", web.url()), Protocol::Http).with_bounds(small());
    let started = Instant::now();
    fetch(&remote, Want::Head, &Access::default()).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(50));
}

// docs/bad-input.md: A server that never ends
#[test]
fn a_repository_that_is_larger_than_the_bound_leaves_nothing_behind_and_can_be_tried_again() {
    let repo = Repo::started();
    // Nothing that compresses.
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    })
    .take(8 << 20)
    .collect();
    repo.write("noise", &noise);
    repo.commit("noise");
    let remote = copy(&repo, &file_url(&repo), Protocol::File);
    let bounds = Bounds {
        disk: 1 << 20,
        ..small()
    };
    let bounded = remote.clone().with_bounds(bounds);
    fetch(&bounded, Want::Head, &Access::default()).unwrap_err();
    assert!(Source::discover(remote.directory(), program()).is_err());
    assert_eq!(
        fetch(&remote, Want::Head, &Access::default())
            .unwrap()
            .commit,
        repo.head()
    );
    let left = std::fs::read_dir(remote.directory().join("objects/pack")).unwrap();
    assert_eq!(left.count(), 3, "a pack, its index, its order");
}

#[test]
fn a_fetch_ends_when_it_is_cancelled() {
    let repo = Repo::started();
    let (said, heard) = std::sync::mpsc::channel();
    let web = Web::start(move |_, stream| {
        said.send(()).unwrap();
        stream.write_all(ADVERTISED.as_bytes())?;
        // Until the other side is gone.
        stream.read(&mut [0]).map(drop)
    });
    let cancel = Cancel::new();
    let remote =
        copy(&repo, &format!("{}/r.git", web.url()), Protocol::Http).with_cancel(cancel.clone());
    let fetching = std::thread::spawn(move || fetch(&remote, Want::Head, &Access::default()));
    heard.recv().unwrap();
    cancel.cancel();
    let error = fetching.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    drop(web);
}

// docs/bad-input.md: A history that is not sound
#[test]
fn what_is_not_sound_is_not_taken() {
    let repo = Repo::started();
    let blob = repo.git(&["rev-parse", "HEAD:a.txt"]);
    let inner = raw_tree(&repo, &[("100644", b"config", &blob)]);
    let tree = raw_tree(&repo, &[("40000", b".git", &inner)]);
    let commit = repo.git(&["commit-tree", "-m", "bad", &tree]);
    repo.git(&["update-ref", "refs/heads/bad", &commit]);
    let remote = copy(&repo, &file_url(&repo), Protocol::File);
    let error = fetch(&remote, named("bad"), &Access::default()).unwrap_err();
    assert!(matches!(error, Error::Unsound { .. }), "{error}");
    assert!(error.to_string().contains(".git"), "{error}");
    fetch(&remote, Want::Head, &Access::default()).unwrap();
}

#[test]
fn a_bare_repository_that_was_not_made_here_is_no_copy() {
    let repo = Repo::started();
    let bare = repo.dir.path().join("bare");
    run(git_in(
        repo.dir.path(),
        &["clone", "--quiet", "--bare", "user", bare.to_str().unwrap()],
    ));
    std::fs::create_dir(bare.join("skep")).unwrap();
    std::fs::write(bare.join("skep/url"), "https://example.invalid/r\n").unwrap();
    let found = Source::discover(&bare, program());
    assert!(matches!(found, Err(Error::Bare { .. })));
}
