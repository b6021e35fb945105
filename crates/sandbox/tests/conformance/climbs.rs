//! `..` in the path of a copy leads nobody out of the sandbox.

use std::fs;
use std::path::Path;

use skep_sandbox::{Backend, Kind};
use tempfile::TempDir;

use crate::copies::{errno, get, give};
use crate::subject::Subject;

pub(crate) async fn no_way_up_leads_a_copy_to_a_file_of_the_host(backend: &dyn Backend) {
    let subject = Subject::new(backend).await;
    // Beside the workspace, and in a place that is there inside too.
    let shared = TempDir::new_in("/tmp").unwrap();
    let places = [subject.directory.path(), shared.path()];
    for place in places {
        fs::write(place.join("marker"), "of the host").unwrap();
    }
    let up = "../".repeat(40);
    let [beside, shared] = places.map(|it| it.join("marker").display().to_string());
    let ways = [
        "../marker".to_owned(),
        "./no/../../marker".to_owned(),
        "../workspace/../marker".to_owned(),
        format!("{up}{beside}"),
        format!("{up}proc/self/root{beside}"),
        format!("{up}proc/self/cwd/../marker"),
        format!("{up}{shared}"),
    ];
    subject.says("mkdir no").await;
    let to = TempDir::new().unwrap();
    let got = to.path().join("got");
    for way in &ways {
        let outcome = get(&subject, way, &got).await;
        let text = fs::read_to_string(&got).ok();
        match backend.kind() {
            // This one seals nothing: what is there to be found is found.
            Kind::Host => assert_eq!(text.as_deref(), Some("of the host"), "{way}: {outcome:?}"),
            _ => assert_eq!(text, None, "{way}"),
        }
        assert_eq!(
            text.is_none(),
            errno(&outcome) == Some(libc::ENOENT),
            "{way}: {outcome:?}"
        );
        fs::remove_file(&got).ok();
    }
    if backend.kind() == Kind::Host {
        return;
    }
    // Of the sandbox's own is what lies there inside.
    let directory = Path::new(&shared).parent().unwrap().display();
    subject
        .says(&format!(
            "mkdir {directory} && echo of the sandbox > {shared}"
        ))
        .await;
    get(&subject, format!("{up}{shared}"), &got).await.unwrap();
    assert_eq!(fs::read_to_string(&got).unwrap(), "of the sandbox\n");
    get(&subject, "..", &to.path().join("all")).await.unwrap();
    assert!(!to.path().join("all/marker").exists());
    // Nor does one lead what goes in.
    for way in ways {
        let outcome = give(&subject, got.clone(), &way).await;
        assert_eq!(
            errno(&outcome).is_none(),
            way.ends_with(&shared),
            "{way}: {outcome:?}"
        );
    }
    for marker in [beside, shared] {
        assert_eq!(fs::read_to_string(marker).unwrap(), "of the host");
    }
}
