//! `skep egress explain`.

use crate::{
    context::Context,
    exit::Exit,
    report::Error,
    settings::{Flags, Settings},
    view::{
        egress,
        paint::{BAD, GOOD, TYPE, paint},
        text,
    },
};
use domain::{
    AttemptId, RequestId,
    egress::{Asked, Asks, Decision, Host, Part, Request, Rules, Users, Verdict, decide, kind},
    event::Body,
};
use ledger::{Found, Ledger};
use server::Node;
use std::path::PathBuf;

/// How many events are read at once.
const PAGE: usize = 1_000;

/// Say what would happen to a request of a sandbox and by which rule, or list what was decided
///
/// For an address, the repository's `skep.toml` at `HEAD` and your configuration are looked at, and
/// no network. It ends with 0 where the request may be made and with 6 where it may not. For a request
/// or an attempt, every decision is listed, with the bytes that passed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  skep egress explain https://api.example.com/v1 --for agent\n  skep egress explain http://packages.example.com/x --for setup --method POST\n  skep egress explain packages.example.com:8443 --json\n  skep egress explain r-7k2"
)]
pub(crate) struct Args {
    /// An address (`https://HOST/PATH`, `HOST:PORT`), or a request or an attempt by its id or the
    /// beginning of it
    #[arg(value_name = "URL|ID")]
    what: String,
    /// Who asks
    #[arg(long = "for", value_name = "WHO", value_enum, default_value_t = Who::Agent)]
    who: Who,
    /// The method of the request
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The repository
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,
}

/// Who asks.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Who {
    /// An agent and its commands
    Agent,
    /// The setup
    Setup,
    /// The checks
    Checks,
}

impl From<Who> for Part {
    fn from(who: Who) -> Self {
        match who {
            Who::Agent => Self::Agent,
            Who::Setup => Self::Setup,
            Who::Checks => Self::Checks,
        }
    }
}

#[derive(serde::Serialize)]
struct Object<'a> {
    url: &'a str,
    r#for: Part,
    host: String,
    port: u16,
    method: Option<&'a str>,
    path: Option<&'a str>,
    allowed: bool,
    inspected: bool,
    rule: Option<&'a str>,
    reason: &'a str,
    remedy: Option<&'a str>,
    private: bool,
    unknown_presets: &'a [String],
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Exit, Error> {
    if args.what.contains([':', '.']) {
        would(&args, context).await
    } else {
        did(&args.what, context).await
    }
}

/// An address, as a program inside would ask for it.
struct Target<'a> {
    host: Host,
    port: u16,
    /// Whether in a tunnel.
    tunnel: bool,
    /// The path with its query; none where it is not known.
    path: Option<&'a str>,
}

fn target(text: &str) -> Option<Target<'_>> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let usual = match scheme {
        None | Some("https" | "wss") => 443,
        Some("http" | "ws") => 80,
        Some(_) => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path.split('#').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, usual),
    };
    Some(Target {
        host: Host::parse(host)?,
        port,
        tunnel: usual == 443,
        path: scheme.map(|_| if path.starts_with('/') { path } else { "/" }),
    })
}

fn asks<'a>(method: &'a str, path: &'a str) -> Asks<'a> {
    Asks {
        method,
        target: path,
        upgrade: false,
    }
}

/// What is decided, and whether Skep looks into TLS for it.
fn decided(rules: &Rules, part: Part, target: &Target<'_>, method: &str) -> (Decision, bool) {
    let ask = |asked| {
        let request = Request {
            part,
            host: &target.host,
            port: target.port,
            asked,
        };
        decide(rules, &request)
    };
    let asks = |path| asks(method, path);
    if !target.tunnel {
        return (ask(Some(asks(target.path.unwrap_or("/")))), false);
    }
    let tunnel = ask(None);
    match (tunnel.verdict, target.path) {
        (Verdict::Inspected, Some(path)) => (ask(Some(asks(path))), true),
        (verdict, _) => (tunnel, verdict == Verdict::Inspected),
    }
}

/// Why an allowed host could not be connected to, where that is known without a network, and what a
/// person can do about it.
fn closed(rules: &Rules, users: &Users, request: &Request<'_>) -> Option<(String, String)> {
    let host = request.host;
    let address = match host {
        Host::Address(address) => *address,
        Host::Name(name) => users.pinned(name)?,
    };
    if rules.may_connect(request, address) {
        return None;
    }
    let what = kind(address).as_str();
    let name = format!(
        "name {host} with `ports = [{}]` in `[[egress.within]]` or `[[egress.allow]]` of your \
         configuration",
        request.port
    );
    Some(if rules.has_address(host, address) {
        let why = format!(
            "{address} is {what}, and your configuration does not name {host} with port {}",
            request.port
        );
        (why, name)
    } else {
        let why = format!("{address} is {what}, and `egress.addresses` does not have it");
        (why, format!("add it there, and {name}"))
    })
}

async fn would(args: &Args, context: &Context) -> Result<Exit, Error> {
    let target = target(&args.what).ok_or_else(|| {
        Error::Usage(format!(
            "`{}` is no address: write `https://HOST/PATH`, `http://HOST/PATH` or `HOST:PORT`",
            text::line(&args.what)
        ))
    })?;
    let part = Part::from(args.who);
    let settings = Settings::read(context, Flags::default())?;
    let configured = settings.options.egress.clone();
    let node = Node::open(settings.options).await?;
    let repo = context.named_directory(&args.repo)?;
    let policy = node.policy(&repo).await;
    node.close().await;
    let asked: Asked = policy?.egress;
    let users = configured.users().map_err(Error::Usage)?;
    let rules = gateway::rules(&asked, &users, &*configured)
        .map_err(|error| Error::Usage(error.to_string()))?;
    let (decision, inspected) = decided(&rules, part, &target, &args.method);
    let is_seen = inspected || !target.tunnel;
    let request = Request {
        part,
        host: &target.host,
        port: target.port,
        asked: is_seen.then(|| asks(&args.method, target.path.unwrap_or("/"))),
    };
    let closed = closed(&rules, &users, &request);
    let closed = closed.filter(|_| decision.verdict != Verdict::Refused);
    let allowed = decision.verdict != Verdict::Refused && closed.is_none();
    let remedy = match &closed {
        Some((_, remedy)) => Some(remedy.clone()),
        None if allowed => None,
        None => Some(decision.remedy(part, &target.host)),
    };
    let reason = closed.map_or_else(|| decision.reason(), |(why, _)| why);
    let object = Object {
        url: &args.what,
        r#for: part,
        host: target.host.to_string(),
        port: target.port,
        method: is_seen.then_some(args.method.as_str()),
        path: target.path.filter(|_| is_seen),
        allowed,
        inspected,
        rule: decision.rule.as_deref(),
        reason: &reason,
        remedy: remedy.as_deref(),
        private: allowed && rules.is_named(&request),
        unknown_presets: rules.unknown_presets(),
    };
    if context.output.is_json() {
        context.output.object(&object)?;
    } else {
        context.output.say(&render(&object))?;
    }
    Ok(if allowed { Exit::Done } else { Exit::Refused })
}

fn render(object: &Object<'_>) -> String {
    let verdict = if object.allowed {
        paint(GOOD, "allowed")
    } else {
        paint(BAD, "refused")
    };
    let what = match object.method {
        Some(method) => format!("{} {}", text::line(method), text::line(object.url)),
        None => text::line(object.url),
    };
    let mut out = format!("{what} for the {}: {verdict}\n", object.r#for);
    out.push_str(&format!("  {}\n", text::line(object.reason)));
    if object.inspected {
        out.push_str("  its TLS is looked into, with a certificate of the sandbox's own\n");
    }
    if object.allowed && !object.private {
        out.push_str(
            "  only at public addresses: your configuration does not name this host and port\n",
        );
    }
    for preset in object.unknown_presets {
        out.push_str(&format!(
            "  the preset `{}` has no hosts on this machine\n",
            text::line(preset)
        ));
    }
    if let Some(remedy) = object.remedy {
        out.push_str(&format!(
            "    {} {}\n",
            paint(TYPE, "hint:"),
            text::line(remedy)
        ));
    }
    out
}

#[derive(serde::Serialize)]
struct Listed {
    id: String,
    decisions: Vec<Body>,
}

async fn did(id: &str, context: &Context) -> Result<Exit, Error> {
    let ledger = context.ledger().await?;
    let found = ledger.find(id).await?;
    let (request, attempt) = match found {
        Found::Request(id) => (id, None),
        Found::Attempt(id) => {
            let job = ledger.attempt(id).await?.job;
            (ledger.job(job).await?.request, Some(id))
        }
        other => {
            let wanted = "an address, a request or an attempt";
            return Err(super::super::wrong_kind(other, "egress explain", wanted));
        }
    };
    let decisions = decisions(&ledger, request, attempt).await?;
    ledger.close().await;
    let listed = Listed {
        id: found.to_string(),
        decisions,
    };
    if context.output.is_json() {
        context.output.object(&listed)?;
    } else if listed.decisions.is_empty() {
        let words = format!("Nothing asked to leave the sandboxes of {}.\n", listed.id);
        context.output.say(&words)?;
    } else {
        let lines = listed.decisions.iter().map(|body| {
            let words = text::line(&egress::words(body));
            let refused = matches!(body, Body::Egress { allowed: false, .. });
            let words = if refused { paint(BAD, &words) } else { words };
            format!("{words}\n")
        });
        context.output.say(&lines.collect::<String>())?;
    }
    Ok(Exit::Done)
}

/// Every decision of a request, or of one attempt of it, oldest first.
async fn decisions(
    ledger: &Ledger,
    request: RequestId,
    wanted: Option<AttemptId>,
) -> Result<Vec<Body>, Error> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let page = ledger.request_events(request, after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        after = last.sequence;
        found.extend(page.into_iter().map(|event| event.body).filter(|body| {
            matches!(body, Body::Egress { attempt, .. }
                if wanted.is_none_or(|wanted| wanted == *attempt))
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::paint::plain;
    use domain::egress::{Presets, Rule};

    #[test]
    fn addresses_are_read_as_programs_ask_for_them() {
        let read = |text| {
            let target = target(text)?;
            Some((
                target.host.to_string(),
                target.port,
                target.path.map(str::to_owned),
            ))
        };
        let some = |host: &str, port, path: Option<&str>| {
            Some((host.to_owned(), port, path.map(str::to_owned)))
        };
        assert_eq!(
            read("https://A.test/x?y#z"),
            some("a.test", 443, Some("/x?y"))
        );
        assert_eq!(read("http://a.test:81"), some("a.test", 81, Some("/")));
        assert_eq!(read("a.test"), some("a.test", 443, None));
        assert_eq!(read("a.test:22"), some("a.test", 22, None));
        assert_eq!(read("https://[::1]:9/"), some("[::1]", 9, Some("/")));
        for bad in [
            "ftp://a.test",
            "https://me@a.test/",
            "https://127.1/",
            "https:///x",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_would_happen_is_said_with_its_rule_and_the_remedy() {
        let asked = Asked {
            allow: vec![Rule {
                parts: vec![Part::Agent],
                host: Some("api.test".into()),
                methods: vec!["GET".into()],
                ..Rule::default()
            }],
            deny: Vec::new(),
        };
        let rules = Rules::new(&asked, &Users::default(), &Presets::new()).unwrap();
        let said = |url: &str, method: &str| {
            let target = target(url).unwrap();
            let (decision, inspected) = decided(&rules, Part::Agent, &target, method);
            let allowed = decision.verdict != Verdict::Refused;
            let remedy = decision.remedy(Part::Agent, &target.host);
            plain(&render(&Object {
                url,
                r#for: Part::Agent,
                host: target.host.to_string(),
                port: target.port,
                method: Some(method),
                path: target.path,
                allowed,
                inspected,
                rule: decision.rule.as_deref(),
                reason: &decision.reason(),
                remedy: (!allowed).then_some(remedy.as_str()),
                private: false,
                unknown_presets: &[],
            }))
        };
        assert_eq!(
            said("https://api.test/x", "GET"),
            "GET https://api.test/x for the agent: allowed\n  \
             the rule `allow api.test GET (skep.toml)` allows it\n  \
             its TLS is looked into, with a certificate of the sandbox's own\n  \
             only at public addresses: your configuration does not name this host and port\n"
        );
        assert_eq!(
            said("https://api.test/x", "POST"),
            "POST https://api.test/x for the agent: refused\n  no rule allows it\n  \
             its TLS is looked into, with a certificate of the sandbox's own\n    \
             hint: allow it with `[[egress.allow]]`, `for = [\"agent\"]`, `host = \"api.test\"` in \
             skep.toml or in your configuration\n"
        );
    }
}
