//! What a kind says that it can do, it does; what it says that it cannot, it refuses.

use skep_sandbox::{Backend, Enforcement, Error, Mount, Spec, Workspace};

use crate::subject::{Subject, directories};

pub(crate) async fn layers_are_a_workspace_or_are_refused(backend: &dyn Backend) {
    let (directory, mut spec) = directories();
    let path = |name: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    std::fs::write(path("lower").join("file"), "below").unwrap();
    let (lowers, upper, work) = (vec![path("lower")], path("upper"), path("work"));
    spec.workspace = Workspace::Overlay {
        lowers,
        upper: upper.clone(),
        work,
        volatile: true,
    };
    let created = backend.create(spec).await;
    if !backend.abilities().layers {
        assert!(matches!(created, Err(Error::Spec { .. })));
        return;
    }
    let subject = Subject {
        directory,
        sandbox: created.unwrap(),
    };
    let says = subject.says("cat file; echo above > file").await;
    assert_eq!(says, "below");
    let read = |name: &str| std::fs::read_to_string(subject.outside(name)).unwrap();
    assert_eq!(
        (read("upper/file"), read("lower/file")),
        ("above\n".into(), "below".into())
    );
    subject.sandbox.destroy().await.unwrap();
    open_up(&subject.directory.path().join("work/work"));
}

/// So that an ordinary user can delete what the kernel left, where it left something.
fn open_up(left: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(left, std::fs::Permissions::from_mode(0o700)).ok();
}

pub(crate) async fn layers_are_changed_between_commands_or_that_is_refused(backend: &dyn Backend) {
    let plain = Subject::new(backend).await;
    let layers = Workspace::Directory("/usr".into());
    let refused = plain.sandbox.switch(vec![layers]).await;
    assert!(
        matches!(refused, Err(Error::CannotSwitch { .. })),
        "a plain directory gives way to nothing: {refused:?}"
    );
    plain.sandbox.destroy().await.unwrap();
    if !backend.abilities().switch {
        return;
    }
    assert!(backend.abilities().layers, "what is switched are layers");
    let (directory, mut spec) = directories();
    let place = directory.path().to_owned();
    let path = |name: &str| {
        let path = place.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    std::fs::write(path("lower").join("file"), "below").unwrap();
    let stack = |lowers: &[&str], upper: &str, work: &str| Workspace::Overlay {
        lowers: lowers.iter().map(|name| path(name)).collect(),
        upper: path(upper),
        work: path(work),
        volatile: true,
    };
    spec.workspace = stack(&["lower"], "one", "work-one");
    let sandbox = backend.create(spec).await.unwrap();
    let next = stack(&["one", "lower"], "two", "work-two");
    let subject = Subject { directory, sandbox };
    subject.says("echo above > file").await;
    subject.sandbox.switch(vec![next]).await.unwrap();
    assert_eq!(subject.says("cat file; echo top > file").await, "above");
    let read = |name: &str| std::fs::read_to_string(subject.outside(name)).unwrap();
    assert_eq!(
        (read("one/file"), read("two/file")),
        ("above\n".into(), "top\n".into())
    );
    subject.sandbox.destroy().await.unwrap();
    for work in ["work-one", "work-two"] {
        for place in ["work", "work/incompat", "work/incompat/volatile"] {
            open_up(&subject.directory.path().join(work).join(place));
        }
    }
}

pub(crate) async fn a_workspace_is_a_directory_of_this_machine_or_its_own(backend: &dyn Backend) {
    let made = backend.create(Spec::new(Workspace::Own)).await;
    if backend.abilities().local_files {
        assert!(matches!(made, Err(Error::Spec { .. })));
        return;
    }
    let own = made.unwrap();
    assert!(own.workspace().is_absolute());
    let (_directory, spec) = directories();
    let refused = backend.create(spec).await;
    assert!(matches!(refused, Err(Error::Spec { .. })));
}

pub(crate) async fn several_workspaces_are_written_or_are_refused(backend: &dyn Backend) {
    let (directory, mut spec) = directories();
    for name in ["one", "two"] {
        let place = directory.path().join(name);
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("file"), name).unwrap();
        spec.also.push((name.into(), Workspace::Directory(place)));
    }
    let created = backend.create(spec).await;
    if !backend.abilities().mounts {
        assert!(matches!(created, Err(Error::Spec { .. })));
        return;
    }
    let sandbox = created.unwrap();
    let subject = Subject { directory, sandbox };
    let script = "cat ../one/file ../two/file; echo new > ../two/file; mv ../one/file ../two/moved";
    assert_eq!(subject.says(script).await, "onetwo");
    let read = |name: &str| std::fs::read_to_string(subject.outside(name)).unwrap();
    assert_eq!(
        (read("two/file"), read("two/moved")),
        ("new\n".into(), "one".into())
    );
    assert!(!subject.outside("one/file").exists());
}

pub(crate) async fn mounts_appear_or_are_refused(backend: &dyn Backend) {
    let (directory, mut spec) = directories();
    let tools = directory.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    std::fs::write(tools.join("tool"), "a tool").unwrap();
    spec.mounts.push(Mount::read_only(&tools, "/opt/tools"));
    let created = backend.create(spec).await;
    if !backend.abilities().mounts {
        assert!(matches!(created, Err(Error::Spec { .. })));
        return;
    }
    let sandbox = created.unwrap();
    let subject = Subject { directory, sandbox };
    assert_eq!(subject.says("cat /opt/tools/tool").await, "a tool");
    assert!(!subject.sh("touch /opt/tools/x").await.exit.success());
}

pub(crate) async fn masks_hide_or_are_refused(backend: &dyn Backend) {
    let (directory, mut spec) = directories();
    spec.masked.push("/usr/bin/env".into());
    let created = backend.create(spec).await;
    if !backend.abilities().masks {
        assert!(matches!(created, Err(Error::Spec { .. })));
        return;
    }
    let sandbox = created.unwrap();
    let subject = Subject { directory, sandbox };
    assert_eq!(subject.says("wc -c < /usr/bin/env").await, "0");
}

pub(crate) async fn limits_are_in_force_or_are_said_not_to_be(backend: &dyn Backend) {
    let subject = Subject::with(backend, |spec, _| {
        spec.limits.memory_bytes = Some(64 << 20);
    })
    .await;
    let in_force = subject.sandbox.diagnose().await.limits_in_force;
    if !backend.abilities().limits {
        assert_eq!(in_force, Enforcement::None);
        return;
    }
    assert_ne!(in_force, Enforcement::None);
    let exit = subject.sh("tail /dev/zero").await.exit;
    assert_eq!(exit.limit, Some(skep_sandbox::Limit::Memory));
    let trouble = subject.sandbox.diagnose().await.trouble();
    assert_eq!(trouble, Some(skep_sandbox::Trouble::OutOfMemory));
}
