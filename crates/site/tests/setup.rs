//! The setup runs once for all that it serves, and what it leaves is never another commit's.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod scene;

use scene::{Place, says};
use site::{Collect, Error, SetUp, Site, Wanted};
use skep_site as site;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use workspace::Layering;

/// Leaves another number each time that it runs.
const NUMBER: &str = "mkdir -p deps && od -An -N8 -tx8 /dev/urandom > deps/number";

impl Place {
    async fn new() -> Self {
        let files = [
            (".gitignore", "deps\n"),
            ("Cargo.lock", "version = 4\n"),
            ("source", "one\n"),
        ];
        Self::over(&files, scene::sealed).await
    }

    fn wanted(&self, id: &str, command: &str, inputs: Option<&[&str]>) -> Wanted {
        let mut wanted = self.set_up_by(id, command);
        let setup = wanted.setup.as_mut().unwrap();
        setup.inputs = inputs.map(|globs| globs.iter().map(ToString::to_string).collect());
        wanted
    }

    async fn site(&self, id: &str, command: &str, inputs: Option<&[&str]>) -> Site {
        self.open(self.wanted(id, command, inputs)).await
    }

    fn kept(&self) -> usize {
        let names = self.names("bases").into_iter();
        names.filter(|name| name.starts_with("setup-")).count()
    }
}

fn set_up(site: &Site) -> &SetUp {
    site.set_up().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setup_runs_once_for_all_who_ask_at_the_same_time_and_is_no_change_of_theirs() {
    let place = Place::new().await;
    let command = format!("{NUMBER}; echo 7 > ~/of-home; echo 7 > /tmp/of-tmp; echo two > source");
    let asking = (0..8).map(|number| {
        let (sites, mirror) = (place.sites.clone(), place.mirror.clone());
        let wanted = place.wanted(&format!("s-{number}"), &command, None);
        tokio::spawn(async move { sites.site(&mirror, wanted).await.unwrap() })
    });
    let mut sites = Vec::new();
    for asked in asking.collect::<Vec<_>>() {
        sites.push(asked.await.unwrap());
    }
    let ran = sites.iter().filter(|site| !set_up(site).cached).count();
    assert_eq!(ran, 1, "one ran it");
    let number = says(&sites[0], "cat deps/number").await;
    for (index, site) in sites.iter().enumerate() {
        let seen = says(site, "cat deps/number source ~/of-home; ls /tmp").await;
        assert_eq!(seen, format!("{number}two\n7\n"), "{index}");
        // What one writes, no other sees.
        says(
            site,
            &format!("echo {index} > deps/number; echo {index} > ~/of-home"),
        )
        .await;
        let extracted = site.extract().await.unwrap();
        let base = place.mirror.tree_of(place.head()).unwrap();
        assert_eq!(extracted.tree, base, "what it wrote is no change");
    }
    for site in sites {
        site.close().await.unwrap();
    }
    let again = place.site("again", &command, None).await;
    assert!(set_up(&again).cached);
    assert_eq!(
        says(&again, "cat deps/number ~/of-home").await,
        format!("{number}7\n")
    );
    again.close().await.unwrap();
    place.sites.close(false).await;
    place.assert_no_workspace_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_commit_is_set_up_anew_unless_the_policy_says_what_the_setup_reads() {
    let place = Place::new().await;
    let number = async |id: &str, inputs| {
        let site = place.site(id, NUMBER, inputs).await;
        let number = says(&site, "cat deps/number; git status --short").await;
        site.close().await.unwrap();
        number
    };
    let (whole, named) = (number("a", None).await, number("b", Some(&[])).await);
    assert_ne!(whole, named);
    place.repo.file("source", "two\n");
    place.repo.commit("Another source");
    assert_ne!(
        number("c", None).await,
        whole,
        "it may have read the source"
    );
    assert_eq!(
        number("d", Some(&[])).await,
        named,
        "it cannot have read it"
    );
    assert_ne!(number("e", Some(&["sour*"])).await, named);
    place.repo.file("Cargo.lock", "version = 5\n");
    place.repo.commit("Another lock file");
    assert_ne!(number("f", Some(&[])).await, named);
    assert_ne!(number("g", Some(&[])).await, whole);
    place.sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_of_the_machine_is_set_up_with_anew() {
    let place = Place::new().await;
    let programs = tempfile::tempdir().unwrap();
    let install = |says: &str| {
        let new = programs.path().join("new");
        fs::write(&new, format!("#!/bin/sh\necho {says}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, programs.path().join("compiler")).unwrap();
    };
    install("old");
    let made = async |id: &str| {
        // What a later process does.
        let sites = scene::sealed_with(place.data.path(), programs.path());
        let wanted = place.wanted(id, "mkdir deps && compiler > deps/by", Some(&[]));
        let site = sites.site(&place.mirror, wanted).await.unwrap();
        let made = (set_up(&site).cached, says(&site, "cat deps/by").await);
        site.close().await.unwrap();
        sites.close(false).await;
        made
    };
    assert_eq!(made("a").await, (false, "old\n".to_owned()));
    assert_eq!(made("b").await, (true, "old\n".to_owned()));
    install("new");
    assert_eq!(made("c").await, (false, "new\n".to_owned()));
    place.sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setup_with_inputs_sees_nothing_else_and_is_told_so_when_it_fails() {
    let place = Place::new().await;
    place.repo.file("deep/package.json", "{}\n");
    place.repo.commit("A manifest");
    let site = place
        .site("a", "mkdir deps && find . -type f > deps/seen", Some(&[]))
        .await;
    let seen = says(&site, "sort deps/seen; cat source").await;
    assert_eq!(
        seen,
        "./Cargo.lock\n./deep/package.json\n./deps/seen\none\n"
    );
    site.close().await.unwrap();
    let wanted = place.wanted("b", "cat source", Some(&[]));
    let Err(error) = place.sites.site(&place.mirror, wanted).await else {
        panic!("there is no source");
    };
    assert!(
        error
            .to_string()
            .contains("it saw only what `setup.inputs` names"),
        "{error}"
    );
    place.sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_setup_makes_never_hides_a_file_of_another_commit() {
    let place = Place::new().await;
    let command = format!("{NUMBER}; mkdir -p out/made; echo setup > out/made/file; rm Cargo.lock");
    let first = place.site("a", &command, Some(&[])).await;
    assert_eq!(set_up(&first).misfit, None);
    assert_eq!(
        says(&first, "cat out/made/file; ls").await,
        "setup\ndeps\nout\nsource\n"
    );
    place.repo.file("out/made/other", "other\n");
    place.repo.commit("Beside what it makes");
    let second = place.site("b", &command, Some(&[])).await;
    assert!(set_up(&second).cached, "{:?}", set_up(&second));
    assert_eq!(says(&second, "cat out/made/*").await, "setup\nother\n");
    place.repo.file("out/made/file", "tracked\n");
    place.repo.commit("What it makes");
    let third = place.site("c", &command, Some(&[])).await;
    assert_eq!(set_up(&third).misfit.as_deref(), Some("out/made/file"));
    assert!(!set_up(&third).cached, "it ran over the whole commit");
    assert_eq!(
        says(&third, "cat out/made/file; git diff out | tail -1").await,
        "setup\n+setup\n"
    );
    for site in [first, second, third] {
        site.close().await.unwrap();
    }
    let away = "rm -rf deep && mkdir deep && echo new > deep/new";
    place.repo.file("deep/package.json", "{}\n");
    place.repo.file("deep/source", "source\n");
    place.repo.commit("A directory");
    let site = place.site("d", away, Some(&[])).await;
    assert_eq!(set_up(&site).misfit.as_deref(), Some("deep"));
    assert_eq!(says(&site, "ls deep").await, "new\n");
    site.close().await.unwrap();
    place.sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setup_that_fails_is_told_to_all_who_wait_and_tried_again_by_the_next() {
    let place = Place::new().await;
    let command = "od -An -N8 -tx8 /dev/urandom; exit 3";
    let asked = (0..4).map(|number| {
        let (sites, mirror) = (place.sites.clone(), place.mirror.clone());
        let wanted = place.wanted(&format!("s-{number}"), command, None);
        async move { sites.site(&mirror, wanted).await }
    });
    // Polled one after the other, so that all of them wait before the first has failed.
    let output = |asked: Result<Site, Error>| match asked {
        Err(Error::Setup { output, how, .. }) => {
            assert!(how.contains('3'), "{how}");
            output
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it fails"),
    };
    let mut set = tokio::task::JoinSet::new();
    for one in asked {
        set.spawn(one);
    }
    let mut outputs: Vec<String> = set.join_all().await.into_iter().map(output).collect();
    outputs.sort();
    outputs.dedup();
    assert!(outputs.len() < 4, "those who waited were told: {outputs:?}");
    let wanted = place.wanted("later", command, None);
    let later = output(place.sites.site(&place.mirror, wanted).await);
    assert!(!outputs.contains(&later), "a failure is not kept");
    assert_eq!(place.kept(), 0);
    place.sites.close(false).await;
    place.assert_no_workspace_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_wait_for_a_failing_setup_are_told_instead_of_running_it_each() {
    let place = Place::new().await;
    place
        .site("base", "true", None)
        .await
        .close()
        .await
        .unwrap();
    // As long as it takes, all who come meanwhile have asked before the next one begins.
    let command = "sleep 0.5; od -An -N8 -tx8 /dev/urandom; exit 3";
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..5 {
        // What one process knows of its own waiters, these do not know of each other.
        let (sites, _) = scene::sealed(place.data.path(), &place.repo);
        let mirror = place.mirror.clone();
        let wanted = place.wanted(&format!("s-{number}"), command, None);
        asking.spawn(async move {
            let asked = sites.site(&mirror, wanted).await.map(drop);
            sites.close(false).await;
            match asked {
                Err(Error::Setup { output, .. }) => output,
                other => panic!("{other:?}"),
            }
        });
    }
    let mut outputs = asking.join_all().await;
    outputs.sort();
    outputs.dedup();
    assert!(outputs.len() <= 2, "it ran {} times", outputs.len());
    let (sites, _) = scene::sealed(place.data.path(), &place.repo);
    let wanted = place.wanted("later", command, None);
    match sites.site(&place.mirror, wanted).await.map(drop) {
        Err(Error::Setup { output, .. }) => assert!(!outputs.contains(&output), "it is not kept"),
        other => panic!("{other:?}"),
    }
    sites.close(false).await;
    assert_eq!(place.kept(), 1, "that of the first setup");
    place.sites.close(false).await;
    place.assert_no_workspace_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_no_file_matches_are_named_and_hinder_nothing() {
    let place = Place::new().await;
    let inputs = ["sour*", "patches/**", "Cargo.lock", "nowhere/"];
    let site = place.site("a", NUMBER, Some(&inputs)).await;
    assert_eq!(set_up(&site).unmatched, ["patches/**", "nowhere/"]);
    site.close().await.unwrap();
    let again = place.site("b", NUMBER, Some(&inputs)).await;
    assert!(set_up(&again).cached);
    assert_eq!(set_up(&again).unmatched, ["patches/**", "nowhere/"]);
    again.close().await.unwrap();
    place.sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setup_that_is_given_up_leaves_nothing_and_the_next_one_runs() {
    let place = Place::new().await;
    let wanted = place.wanted("a", "touch began; exec sleep 1000", None);
    let (sites, mirror) = (place.sites.clone(), place.mirror.clone());
    let task = tokio::spawn(async move { sites.site(&mirror, wanted).await.map(drop) });
    let began = || {
        let all = walk(&place.data.path().join("workspaces"));
        all.iter().any(|path| path.ends_with("began"))
    };
    let running = async {
        while !began() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), running).await;
    waited.expect("the setup runs");
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    place.sites.close(false).await;
    assert_eq!((place.kept(), place.names("workspaces").len()), (0, 0));
    let (sites, _) = scene::sealed(place.data.path(), &place.repo);
    let wanted = place.wanted("a", NUMBER, None);
    let site = sites.site(&place.mirror, wanted).await.unwrap();
    assert!(!set_up(&site).cached);
    site.close().await.unwrap();
    sites.close(true).await;
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_setup_left_is_there_after_a_restart_counted_and_evicted_when_nobody_uses_it() {
    let place = Place::new().await;
    let site = place.site("a", NUMBER, None).await;
    let number = says(&site, "cat deps/number").await;
    site.close().await.unwrap();
    place.sites.close(false).await;
    let layer = |file: &str| {
        let bases = place.data.path().join("bases");
        let mut names = place.names("bases").into_iter();
        let name = names.find(|name| name.starts_with("setup-")).unwrap();
        bases.join(name).join(file)
    };
    assert!(layer("durable").exists(), "it was written to the disk");
    fs::write(layer("boot"), "another").unwrap();
    let (sites, _) = scene::sealed(place.data.path(), &place.repo);
    let site = sites
        .site(&place.mirror, place.wanted("b", NUMBER, None))
        .await
        .unwrap();
    assert!(set_up(&site).cached);
    assert_eq!(says(&site, "cat deps/number").await, number);
    let ledger = ledger::Ledger::open(ledger::Options::new(place.data.path().join("ledger.db")))
        .await
        .unwrap();
    let collect = async || {
        let how = Collect {
            all: true,
            ..Collect::default()
        };
        let stop = Arc::new(AtomicBool::new(false));
        site::collect(&ledger, place.data.path(), how, stop, |_| {})
            .await
            .unwrap()
    };
    let collected = collect().await;
    let space = &collected.before.space;
    let own = space
        .bases
        .iter()
        .find(|base| base.key.starts_with("setup-"))
        .unwrap();
    assert!(
        own.bytes >= 4096 && own.used_by.as_deref() == Some("workspace b"),
        "{own:?}"
    );
    assert_eq!(place.kept(), 1, "it is in use");
    site.close().await.unwrap();
    sites.close(false).await;
    collect().await;
    assert_eq!(place.kept(), 0);
    // Not known to be whole: the machine went down before it was on the disk.
    let (sites, _) = scene::sealed(place.data.path(), &place.repo);
    let site = sites
        .site(&place.mirror, place.wanted("c", NUMBER, None))
        .await
        .unwrap();
    let number = says(&site, "cat deps/number").await;
    site.close().await.unwrap();
    sites.close(false).await;
    fs::remove_file(layer("durable")).unwrap();
    fs::write(layer("boot"), "another").unwrap();
    let (sites, _) = scene::sealed(place.data.path(), &place.repo);
    let site = sites
        .site(&place.mirror, place.wanted("d", NUMBER, None))
        .await
        .unwrap();
    assert!(!set_up(&site).cached);
    assert_ne!(says(&site, "cat deps/number").await, number);
    site.close().await.unwrap();
    sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_see_what_the_agent_saw_with_the_change_above_it() {
    let place = Place::new().await;
    let command = format!("{NUMBER}; echo setup > source");
    let site = place.site("a", &command, None).await;
    let number = says(&site, "cat deps/number").await;
    says(
        &site,
        "echo changed > source; echo new > new; echo mine > deps/number",
    )
    .await;
    let tree = site.extract().await.unwrap().tree;
    site.close().await.unwrap();
    let wanted = Wanted {
        tree: Some(tree),
        ..place.wanted("check", &command, None)
    };
    let check = place.sites.site(&place.mirror, wanted).await.unwrap();
    assert!(set_up(&check).cached);
    let seen = says(&check, "cat deps/number source new").await;
    assert_eq!(seen, format!("{number}changed\nnew\n"));
    check.close().await.unwrap();
    place.sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_taken_along_are_seen_by_the_setup_and_make_another_key() {
    let place = Place::new().await;
    let command = format!("{NUMBER}; cat .env > deps/env; rm .env");
    let seen = async |id: &str, content: &str| {
        let include = vec![site::Included {
            path: ".env".into(),
            executable: false,
            content: content.into(),
        }];
        let wanted = Wanted {
            include: Arc::new(include),
            ..place.wanted(id, &command, Some(&[]))
        };
        let site = place.sites.site(&place.mirror, wanted).await.unwrap();
        let seen = says(&site, "cat deps/env; ls -A | grep env || cat deps/number").await;
        site.close().await.unwrap();
        seen
    };
    let first = seen("a", "1\n").await;
    assert!(first.starts_with("1\n"), "{first}");
    assert_eq!(seen("b", "1\n").await, first);
    let other = seen("c", "2\n").await;
    assert!(
        other.starts_with("2\n") && other[2..] != first[2..],
        "{other}"
    );
    place.sites.close(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_workspaces_are_copies_each_is_set_up_by_itself() {
    let place = Place::new().await;
    let (sites, _) = scene::open_as(place.data.path(), &place.repo, Layering::Copy);
    let mut numbers = Vec::new();
    for id in ["a", "b"] {
        let site = sites
            .site(&place.mirror, place.wanted(id, NUMBER, None))
            .await
            .unwrap();
        assert!(!set_up(&site).cached);
        numbers.push(says(&site, "cat deps/number").await);
        site.close().await.unwrap();
    }
    assert_ne!(numbers[0], numbers[1]);
    assert_eq!(place.kept(), 0);
    sites.close(true).await;
}
