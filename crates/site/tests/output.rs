//! What commands leave behind in a site, with the kind `host`, which works everywhere.
#![allow(clippy::unwrap_used)]

mod scene;

use site::Wanted;
use skep_site as site;
use std::{fs, path::PathBuf, time::Duration};
use testkit::Repo;

#[tokio::test(flavor = "multi_thread")]
async fn ignored_output_of_any_size_is_left_out_and_the_hosts_programs_are_found() {
    let repo = Repo::new();
    repo.file(".gitignore", "target/\n*.o\n");
    repo.file("target/kept", "tracked although it is ignored\n");
    repo.git(&["add", "--force", "target/kept"]);
    repo.commit("A base");
    let data = tempfile::tempdir().unwrap();
    let (sites, source) = scene::open(data.path(), &repo);
    let mirror = sites.mirror("r").await.unwrap();
    let base = source.head().commit;
    mirror.fetch(&source, base).unwrap();
    let wanted = Wanted {
        programs: vec![PathBuf::from("/bin/sh")],
        ..Wanted::plain("one", "r", base)
    };
    let site = sites.site(&mirror, wanted).await.unwrap();
    let ran = site
        .run(
            "mkdir -p build/deps && echo deps/ > build/.gitignore && echo new > source && \
             truncate -s 150M huge.o build/deps/huge target/huge && git --version",
            Duration::from_secs(20),
        )
        .await
        .unwrap();
    assert!(ran.exit.success(), "{}", ran.tail(500));
    let many = site.inside().join("build/deps");
    for number in 0..210_000 {
        fs::File::create(many.join(number.to_string())).unwrap();
    }
    let extracted = site.extract().await.unwrap();
    let files = mirror.files(extracted.tree, 100).unwrap();
    let names: Vec<String> = files.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(
        names,
        [".gitignore", "build/.gitignore", "source", "target/kept"]
    );
    assert_eq!(extracted.not_taken, Vec::<String>::new());
    site.close().await.unwrap();
    sites.close(true).await;
}
