use super::*;
use proptest::prelude::*;

fn remote(text: &str) -> Remote {
    match text.parse::<Origin>() {
        Ok(Origin::Remote(remote)) => remote,
        other => panic!("{text}: {other:?}"),
    }
}

fn error(text: &str) -> Error {
    match text.parse::<Origin>() {
        Err(error) => error,
        other => panic!("{text}: {other:?}"),
    }
}

fn named(name: &str) -> Part {
    Part::Named(name.into())
}

#[test]
fn what_git_fetches_from_is_taken_as_it_is_with_what_is_meant_of_it() {
    let id = "0123456789abcdef0123456789abcdef01234567";
    for (text, url, scheme, part) in [
        (
            "https://h.org/o/r.git",
            "https://h.org/o/r.git",
            Scheme::Https,
            Part::Head,
        ),
        (
            "HTTPS://H.org/o/r",
            "https://h.org/o/r",
            Scheme::Https,
            Part::Head,
        ),
        (
            "https://h.org:8443/o/r#a/b",
            "https://h.org:8443/o/r",
            Scheme::Https,
            named("a/b"),
        ),
        (
            &format!("https://h.org/o/r.git@{id}"),
            "https://h.org/o/r.git",
            Scheme::Https,
            Part::Commit(id.into()),
        ),
        (
            "ssh://git@h.org:22/o/r.git#v1.0",
            "ssh://git@h.org:22/o/r.git",
            Scheme::Ssh,
            named("v1.0"),
        ),
        (
            "git@h.org:o/r.git",
            "git@h.org:o/r.git",
            Scheme::Ssh,
            Part::Head,
        ),
        (
            "git@h.org:o/r.git@abcdef1",
            "git@h.org:o/r.git",
            Scheme::Ssh,
            Part::Commit("abcdef1".into()),
        ),
        ("h:r", "h:r", Scheme::Ssh, Part::Head),
        (
            "file:///srv/r.git#main",
            "file:///srv/r.git",
            Scheme::File,
            named("main"),
        ),
        (
            "http://127.0.0.1:80/r.git",
            "http://127.0.0.1:80/r.git",
            Scheme::Http,
            Part::Head,
        ),
        (
            "http://[::1]:80/r.git",
            "http://[::1]:80/r.git",
            Scheme::Http,
            Part::Head,
        ),
        (
            "https://h/a/b/c/d/r.git",
            "https://h/a/b/c/d/r.git",
            Scheme::Https,
            Part::Head,
        ),
        (
            "https://h/o/My%20Project",
            "https://h/o/My%20Project",
            Scheme::Https,
            Part::Head,
        ),
    ] {
        let found = remote(text);
        assert_eq!(
            (found.url(), found.scheme(), found.part()),
            (url, scheme, &part),
            "{text}"
        );
    }
}

#[test]
fn pages_of_the_three_forges_name_a_repository_and_what_they_show() {
    let gitlab = "https://gitlab.org/a/b/c/r.git";
    let github = "https://github.com/o/r.git";
    let forgejo = "https://codeberg.org/o/r.git";
    for (text, url, part) in [
        (
            "https://github.com/o/r/tree/a/b",
            github,
            Part::Tree("a/b".into()),
        ),
        (
            "https://github.com/o/r/blob/main/src/x.rs?plain=1#L3",
            github,
            Part::Tree("main/src/x.rs".into()),
        ),
        (
            "https://github.com/o/r/commit/ABCDEF1",
            github,
            Part::Commit("abcdef1".into()),
        ),
        (
            "https://github.com/o/r/pull/7/files",
            github,
            named("refs/pull/7/head"),
        ),
        (
            "https://github.com/o/r/releases/tag/v1",
            github,
            named("refs/tags/v1"),
        ),
        (
            "https://gitlab.org/a/b/c/r/-/tree/x%2Fy",
            gitlab,
            Part::Tree("x/y".into()),
        ),
        (
            "https://gitlab.org/a/b/c/r/-/commit/abcdef12",
            gitlab,
            Part::Commit("abcdef12".into()),
        ),
        (
            "https://gitlab.org/a/b/c/r/-/merge_requests/9/diffs?tab=1",
            gitlab,
            named("refs/merge-requests/9/head"),
        ),
        (
            "https://gitlab.org/a/b/c/r/-/tags/v1",
            gitlab,
            named("refs/tags/v1"),
        ),
        (
            "https://codeberg.org/o/r/src/branch/a/b",
            forgejo,
            Part::Tree("a/b".into()),
        ),
        (
            "https://codeberg.org/o/r/src/commit/abcdef12",
            forgejo,
            Part::Commit("abcdef12".into()),
        ),
        (
            "https://codeberg.org/o/r/pulls/3#issuecomment-1",
            forgejo,
            named("refs/pull/3/head"),
        ),
    ] {
        let found = remote(text);
        assert_eq!((found.url(), found.part()), (url, &part), "{text}");
        assert_eq!(found.issue(), None, "{text}");
    }
}

#[test]
fn an_issue_has_the_address_of_its_text_at_its_forge() {
    for (text, forge, api, address) in [
        (
            "https://github.com/o/r/issues/5",
            Some(Forge::GitHub),
            None,
            "https://api.github.com/repos/o/r/issues/5",
        ),
        (
            "https://gitlab.org/a/b/r/-/issues/5",
            Some(Forge::GitLab),
            None,
            "https://gitlab.org/api/v4/projects/a%2Fb%2Fr/issues/5",
        ),
        (
            "https://gitlab.org/a/b/r/-/work_items/5",
            Some(Forge::GitLab),
            None,
            "https://gitlab.org/api/v4/projects/a%2Fb%2Fr/issues/5",
        ),
        (
            "https://codeberg.org/o/r/issues/5#x",
            Some(Forge::Forgejo),
            None,
            "https://codeberg.org/api/v1/repos/o/r/issues/5",
        ),
        (
            "http://localhost:3000/o/r/issues/5",
            None,
            Some("http://localhost:1/api/"),
            "http://localhost:1/api/repos/o/r/issues/5",
        ),
    ] {
        let found = remote(text);
        let issue = found.issue().unwrap();
        assert_eq!(issue.forge, forge, "{text}");
        assert_eq!(issue.address(forge.unwrap_or(Forge::GitHub), api), address);
        assert_eq!(found.part(), &Part::Head);
    }
}

// docs/bad-input.md: An option, or a transport of another program (`ext::`)
#[test]
fn what_would_start_a_program_or_be_an_option_is_refused() {
    for text in [
        "ext::sh -c x",
        "ext::sh://x",
        "fd::17",
        "transport::git@h:x",
    ] {
        assert_eq!(error(text), Error::Helper, "{text}");
    }
    for text in ["--upload-pack=touch x", "-oProxyCommand=x", "h:-x"] {
        assert_eq!(error(text), Error::Option, "{text}");
    }
    for text in [
        "ssh://-oProxyCommand=x/r",
        "-h:r",
        "ssh://a b/r",
        "ssh://-u@h/r",
    ] {
        assert!(text.parse::<Origin>().is_err(), "{text}");
    }
    for text in ["git://h/r", "ftp://h/r", "javascript://h/r"] {
        assert!(matches!(error(text), Error::Scheme { .. }), "{text}");
    }
    for text in [
        "https://h/o/r\n",
        "https://h/o/r%0a",
        "https://h/o r",
        "https://h/o/r%",
        "a\0b",
        "\u{1b}[2J",
    ] {
        assert_eq!(error(text), Error::Control, "{text:?}");
    }
    for text in [
        "https://h/r#-x",
        "https://h/r#a..b",
        "https://h/r#a b",
        "https://h/r#",
        "https://h/r#a.lock",
        "https://h/r#@{u}",
    ] {
        assert!(text.parse::<Origin>().is_err(), "{text}");
    }
    assert_eq!(error("http://h.org/o/r"), Error::Plain);
    assert_eq!(error("http://127.0.0.1.evil.org/o/r"), Error::Plain);
    assert_eq!(error("https://h.org"), Error::NoPath);
    assert_eq!(error("https:///o/r"), Error::Host);
    assert_eq!(error("https://h:99999/o/r"), Error::Host);
    assert_eq!(error("file://elsewhere/r"), Error::Host);
    assert_eq!(error("https://github.com/o/r/issues"), Error::Page);
    assert_eq!(error("https://github.com/o/r/pull/7.diff"), Error::Page);
    assert_eq!(
        error("https://github.com/o/../issues/5"),
        Error::Page,
        "no other address of the forge"
    );
    assert_eq!(error("https://h/r.git@abcdef1#x"), Error::Twice);
}

// docs/bad-input.md: Credentials in a URL, or a query
#[test]
fn credentials_are_refused_without_being_repeated() {
    for text in [
        "https://ann:s3cret@h.org/o/r",
        "https://s3cret@h.org/o/r",
        "https://@h.org/o/r",
        "ssh://ann:s3cret@h.org/o/r",
        "https://h.org/o/r?private_token=s3cret",
        "https://a:s3cret@h.org@evil.org/o/r",
    ] {
        let error = error(text);
        assert!(
            matches!(error, Error::Credentials | Error::Query),
            "{text}: {error:?}"
        );
        assert!(!error.to_string().contains("s3cret"));
    }
}

#[test]
fn a_path_is_a_path() {
    for text in [
        ".",
        "..",
        "/srv/r",
        "r",
        "./a:b",
        "a/b:c",
        "~/x",
        "/a#b",
        "/a@abcdef1",
    ] {
        assert_eq!(text.parse(), Ok(Origin::Path(text.into())), "{text}");
    }
}

#[test]
fn a_further_repository_has_the_name_that_it_is_given_or_its_own() {
    let name = |text| super::named(text).map(|(name, _)| name);
    assert_eq!(name("https://h/o/lib.git").as_deref(), Ok("lib"));
    assert_eq!(name("git@h:lib.git#v1").as_deref(), Ok("lib"));
    assert_eq!(name("../lib").as_deref(), Ok("lib"));
    assert_eq!(name("x=https://h/o/lib.git#v1").as_deref(), Ok("x"));
    assert_eq!(name("x.y=/srv/lib").as_deref(), Ok("x.y"));
    assert_eq!(name("https://h/a=b/lib").as_deref(), Ok("lib"));
    assert_eq!(name("./a=b/lib").as_deref(), Ok("lib"));
    assert_eq!(name("/a=b/lib").as_deref(), Ok("lib"));
    for text in [
        "..",
        "/",
        "repo=/x",
        "/srv/repo",
        "a b=/x",
        "=x",
        "../.x",
        "a/b=/x",
        "a/b=https://h/o/lib.git",
    ] {
        assert_eq!(name(text), Err(Error::Name), "{text}");
    }
}

#[test]
fn a_reference_is_given_once() {
    let origin: Origin = "https://h/o/r".parse().unwrap();
    let Origin::Remote(found) = origin.at("v1").unwrap() else {
        panic!("not remote");
    };
    assert_eq!(found.part(), &named("v1"));
    assert_eq!(Origin::Remote(found).at("v2"), Err(Error::Twice));
}

/// Texts that are nearly URLs.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("https://"),
        Just("http://"),
        Just("ssh://"),
        Just("file://"),
        Just("ext::"),
        Just("git@"),
        Just("host.org"),
        Just("[::1]"),
        Just("127.0.0.1"),
        Just(":"),
        Just(":22"),
        Just("/"),
        Just("/-/"),
        Just("o"),
        Just("r.git"),
        Just("issues"),
        Just("pull"),
        Just("7"),
        Just("tree"),
        Just("commit"),
        Just("abcdef1"),
        Just("merge_requests"),
        Just("#"),
        Just("@"),
        Just("?"),
        Just("%2f"),
        Just("%0a"),
        Just("-"),
        Just(".."),
        Just("pw"),
        Just("src"),
        Just("branch"),
        Just("é"),
        Just("\n"),
        Just("main"),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

fn promise(text: &str) {
    let Ok(Origin::Remote(found)) = text.parse::<Origin>() else {
        return;
    };
    let shown = found.to_string();
    assert!(!shown.contains(char::is_control) && !shown.contains(char::is_whitespace));
    // As git looks for the name of a helper.
    let behind = found
        .url()
        .trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    assert!(!shown.starts_with('-') && !behind.starts_with("::"));
    assert!(!found.url().contains('#'), "{shown}");
    if found.scheme() != Scheme::Ssh {
        assert!(!found.url().contains('?'), "{shown}");
        let rest = found.url().split_once("://").unwrap().1;
        assert!(!rest.split('/').next().unwrap().contains('@'), "{shown}");
    }
    let again = remote(&shown);
    assert_eq!(again.url(), found.url());
    match found.part() {
        Part::Tree(name) => assert_eq!(again.part(), &named(name)),
        part => assert_eq!(again.part(), part),
    }
}

proptest! {
    #[test]
    fn what_is_taken_is_safe_to_show_and_parses_to_the_same_again(text in nearly()) {
        promise(&text);
    }

    #[test]
    fn no_text_is_too_odd(text in any::<String>()) {
        promise(&text);
        drop(super::named(&text));
    }
}

#[test]
fn a_page_below_groups_that_are_named_like_pages_is_refused() {
    let text = "https://gitlab.org/a/b/tree/main/r/-/tree/x";
    assert!(matches!(text.parse::<Origin>(), Err(Error::Page)));
    let text = "https://gitlab.org/a/b/c/r/-/tree/x";
    assert!(text.parse::<Origin>().is_ok());
}
