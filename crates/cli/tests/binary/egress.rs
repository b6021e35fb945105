//! What a policy lets out of sandboxes, and nothing else, from `skep.toml` to a server of the host.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use testkit::Repo;
use testkit::models::{Dialect, Job, Script, Step};

use crate::world::{DEADLINE, PROMPT, World};

/// A server at an address that `NO_PROXY` does not name. It answers with the path, and says what it
/// was asked.
struct Server {
    address: SocketAddr,
    asked: Receiver<String>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (says, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let Some(path) = answer(stream) else { continue };
                if says.send(path).is_err() {
                    return;
                }
            }
        });
        Self { address, asked }
    }

    fn all(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

fn answer(mut stream: TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let body = format!("{path}\n");
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
    write!(stream, "{head} {}\r\n\r\n{body}", body.len()).ok()?;
    Some(path)
}

fn world(policy: &str, config: &str, command: &str) -> World {
    let repo = Repo::new();
    repo.file("answer.txt", "41\n")
        .file(".gitignore", "made\n")
        .file("skep.toml", policy);
    repo.commit("A policy");
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(command))
            .step(Step::say("Done.")),
    );
    let world = World::new(Dialect::Chat, repo, script);
    configure(&world, config);
    world
}

fn configure(world: &World, config: &str) {
    let directory = world.home.config().join("skep");
    fs::create_dir_all(&directory).unwrap();
    // As an editor does it: the file is whole at each moment.
    fs::write(directory.join("new"), config).unwrap();
    fs::rename(directory.join("new"), directory.join("config.toml")).unwrap();
}

/// A configuration that has the server's address, and names it with this port.
fn named(port: impl std::fmt::Display) -> String {
    format!(
        "[egress]\naddresses = [\"127.0.0.2\"]\n\
         [[egress.within]]\nhost = \"127.0.0.2\"\nports = [{port}]\n"
    )
}

#[test]
fn agent_setup_and_checks_reach_what_is_granted_to_each_and_nothing_else() {
    let (server, other) = (Server::new(), Server::new());
    let (at, shut) = (server.address, other.address);
    let port = at.port();
    let rule = |who: &str, path: &str| {
        format!(
            "[[egress.allow]]\nfor = [\"{who}\"]\nhost = \"127.0.0.2\"\nports = [{port}]\n\
             paths = [\"/{path}\"]\n"
        )
    };
    let policy = format!(
        "[setup]\ncommand = \"curl -sSf http://{at}/setup > made && ! curl -sf http://{at}/agent\"\n\
         [[check]]\nname = \"reached\"\n\
         command = \"curl -sSf http://{at}/checks && ! curl -sf http://{at}/setup && grep -qx /setup made\"\n\
         {}{}{}",
        rule("setup", "setup"),
        rule("checks", "checks"),
        rule("agent", "agent"),
    );
    let agent = format!(
        "curl -sS http://{at}/agent > answer.txt; curl -sS http://{shut}/ >> answer.txt; \
         curl -sS -X POST http://{at}/setup >> answer.txt; curl -sS --noproxy '*' -m 5 http://{at}/agent; true"
    );
    let world = world(&policy, &named(port), &agent);
    let told = world.run();
    assert!(told.verdicts("reached").iter().all(|it| it == "passed"));
    let answer = world.integrated("answer.txt");
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!(lines[0], "/agent", "{answer}");
    for refused in &lines[1..] {
        assert!(refused.contains("no rule allows it"), "{answer}");
    }
    assert_eq!(lines.len(), 3, "{answer}");
    assert!(other.all().is_empty());
    let mut asked = server.all();
    asked.sort();
    asked.dedup();
    assert_eq!(asked, ["/agent", "/checks", "/setup"]);
    // Every decision is an event, and can be listed.
    let decided: Vec<_> = told.all("egress").collect();
    for part in ["agent", "setup", "checks"] {
        for allowed in [true, false] {
            assert!(
                decided
                    .iter()
                    .any(|it| it["part"] == part && it["allowed"] == allowed),
                "{part} {allowed}: {decided:#?}"
            );
        }
    }
    let request = told.request();
    let listed = world.skep(&["egress", "explain", &request]).expect_code(0);
    assert!(
        listed.stdout.contains("egress of setup: GET 127.0.0.2"),
        "{}",
        listed.stdout
    );
    assert!(
        listed.stdout.contains("refused: no rule allows it"),
        "{}",
        listed.stdout
    );
    let json = world
        .skep(&["egress", "explain", &request, "--json"])
        .expect_code(0);
    let listed = json.json_lines().remove(0);
    assert_eq!(listed["decisions"].as_array().unwrap().len(), decided.len());
}

#[test]
fn the_setup_of_a_persons_sandbox_reaches_what_is_granted_to_setups_and_the_person_does_not() {
    let server = Server::new();
    let at = server.address;
    let port = at.port();
    let policy = format!(
        "[setup]\ncommand = \"curl -sSf http://{at}/setup > made\"\n\
         [[egress.allow]]\nfor = [\"setup\", \"agent\"]\nhost = \"127.0.0.2\"\nports = [{port}]\n"
    );
    let world = world(&policy, &named(port), "echo 42 > answer.txt");
    let script = format!("cat made; env | grep -i _proxy; curl -sS -m 5 http://{at}/person");
    let ran = world.skep(&["shell", "--", "sh", "-c", &script]);
    assert_eq!(ran.stdout, "/setup\n", "{}", ran.stderr);
    // What it left is an agent's, too, and the other way round.
    let told = world.run();
    let cached: Vec<bool> = told.all("set_up").map(|it| it["cached"] == true).collect();
    assert!(
        !cached.is_empty() && cached.iter().all(|it| *it),
        "{cached:?}"
    );
    assert_eq!(server.all(), ["/setup"]);
}

/// Answers in TLS with the path, at an address that its certificate names.
const SECURE: &str = "
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (self.path + '\\n').encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.HTTPServer(('127.0.0.2', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
";

#[test]
fn paths_decide_inside_tls_for_programs_that_know_nothing_of_it() {
    let place = tempfile::tempdir().unwrap();
    let (cert, key) = (place.path().join("cert.pem"), place.path().join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=a server of a test"])
        .args([
            "-addext",
            "subjectAltName=IP:127.0.0.2",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .args([
            OsStr::new("-out"),
            cert.as_os_str(),
            OsStr::new("-keyout"),
            key.as_os_str(),
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut serving = Command::new("python3")
        .args([
            OsStr::new("-c"),
            OsStr::new(SECURE),
            cert.as_os_str(),
            key.as_os_str(),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let out = serving.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut port).unwrap();
    let port = port.trim();
    let policy = format!(
        "[[egress.allow]]\nfor = [\"agent\"]\nhost = \"127.0.0.2\"\nports = [{port}]\npaths = [\"/open/*\"]\n"
    );
    let agent = format!(
        "curl -sS https://127.0.0.2:{port}/open/a > answer.txt; \
         curl -sS https://127.0.0.2:{port}/shut >> answer.txt; \
         python3 -c \"import urllib.request as u; print(u.urlopen('https://127.0.0.2:{port}/open/b').read().decode().strip())\" >> answer.txt 2>&1; true"
    );
    let world = world(&policy, &named(port), &agent).env("SSL_CERT_FILE", &cert);
    let told = world.run();
    serving.kill().unwrap();
    serving.wait().unwrap();
    let answer = world.integrated("answer.txt");
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!((lines[0], lines[2]), ("/open/a", "/open/b"), "{answer}");
    assert!(lines[1].contains("no rule allows it"), "{answer}");
    let paths: Vec<_> = told
        .all("egress")
        .filter_map(|it| it["path"].as_str())
        .collect();
    assert!(
        paths.contains(&"/open/a") && paths.contains(&"/shut"),
        "{paths:?}"
    );
}

#[test]
fn a_configuration_that_forbids_works_at_once_for_an_agent_that_runs() {
    let server = Server::new();
    let at = server.address;
    let policy = format!(
        "[[egress.allow]]\nfor = [\"agent\"]\nhost = \"127.0.0.2\"\nports = [{}]\n",
        at.port()
    );
    let agent = format!("while curl -sSf http://{at}/again; do :; done; echo 42 > answer.txt");
    let world = world(&policy, &named(at.port()), &agent);
    let running = world.start(&["run", "--plan", "none", "--json", PROMPT]);
    assert_eq!(server.asked.recv_timeout(DEADLINE).unwrap(), "/again");
    configure(
        &world,
        &format!(
            "{}[[egress.deny]]\nhost = \"127.0.0.0/8\"\n",
            named(at.port())
        ),
    );
    running.finish(DEADLINE).expect_code(0);
    assert_eq!(world.integrated("answer.txt"), "42\n");
}

#[test]
fn without_a_policy_there_is_no_proxy_and_a_user_can_refuse_what_repositories_ask_for() {
    let server = Server::new();
    let at = server.address;
    let policy = format!(
        "[[egress.allow]]\nfor = [\"agent\"]\nhost = \"127.0.0.2\"\nports = [{}]\n",
        at.port()
    );
    let agent = format!(
        "env | grep -ci _proxy > answer.txt; curl -sS -m 5 http://{at}/ >> answer.txt; true"
    );
    for (policy, config) in [
        ("", named(at.port())),
        (
            policy.as_str(),
            named(at.port()).replace("[egress]", "[egress]\nasked = false"),
        ),
    ] {
        let world = world(policy, &config, &agent);
        world.run();
        assert_eq!(world.integrated("answer.txt"), "0\n");
        assert!(server.all().is_empty());
    }
}

#[test]
fn what_would_happen_is_explained_by_its_rule_without_a_network() {
    let world = world(
        "[[egress.allow]]\nfor = [\"agent\"]\nhost = \"*.example.com\"\n\
         [[egress.allow]]\nfor = [\"setup\"]\npreset = \"team\"\n",
        "[[egress.deny]]\nhost = \"shut.example.com\"\n\
         [egress.presets.team]\nhosts = [\"packages.example.org\"]\n",
        "true",
    );
    let explain = |words: &[&str], code| {
        let words = [&["egress", "explain"], words].concat();
        let ran = world.skep(&words).expect_code(code);
        format!("{}{}", ran.stdout, ran.stderr)
    };
    let said = explain(&["https://api.example.com/x"], 0);
    assert!(
        said.contains("the rule `allow *.example.com (skep.toml)` allows it"),
        "{said}"
    );
    let said = explain(&["https://shut.example.com/"], 6);
    assert!(
        said.contains("`deny shut.example.com (configuration)` refuses it"),
        "{said}"
    );
    let said = explain(&["https://api.example.com/", "--for", "checks"], 6);
    assert!(said.contains("no rule allows it"), "{said}");
    let said = explain(&["packages.example.org:443", "--for", "setup"], 0);
    assert!(said.contains("preset team"), "{said}");
    let said = explain(&["http://10.0.0.1/"], 6);
    assert!(said.contains("no rule allows it"), "{said}");
    explain(&["https://127.1/"], 2);
    let said = explain(&["https://api.example.com/x"], 0);
    assert!(said.contains("only at public addresses"), "{said}");
    let json = world.skep(&["egress", "explain", "https://api.example.com/x", "--json"]);
    let json = json.expect_code(0).json_lines().remove(0);
    assert_eq!(json["allowed"], true);
    assert_eq!(json["rule"], "allow *.example.com (skep.toml)");
}

#[test]
fn what_a_repository_asks_for_reaches_no_private_address_that_only_it_names() {
    let server = Server::new();
    let at = server.address;
    let policy = format!(
        "[[egress.allow]]\nfor = [\"agent\"]\nhost = \"127.0.0.2\"\nports = [{}]\n",
        at.port()
    );
    let agent = format!("curl -sS http://{at}/ > answer.txt; true");
    // The address may be connected to, for something else.
    let config = named(9).replace("within", "allow") + "for = [\"agent\"]\n";
    let world = world(&policy, &config, &agent);
    world.run();
    let answer = world.integrated("answer.txt");
    let why = format!("names 127.0.0.2 with port {} nowhere", at.port());
    assert!(
        answer.contains(&why) && answer.contains("`[[egress.within]]`"),
        "{answer}"
    );
    assert!(server.all().is_empty());
    let url = format!("http://{at}/");
    let said = world
        .skep(&["egress", "explain", &url])
        .expect_code(6)
        .stdout;
    let why = format!(
        "your configuration does not name 127.0.0.2 with port {}",
        at.port()
    );
    assert!(
        said.contains(&why) && said.contains("hint: name 127.0.0.2"),
        "{said}"
    );
    configure(&world, &named(at.port()));
    let json = world
        .skep(&["egress", "explain", &url, "--json"])
        .expect_code(0);
    assert_eq!(json.json_lines().remove(0)["private"], true);
}

#[test]
fn a_policy_or_a_configuration_with_a_rule_that_makes_no_sense_is_refused_before_anything_starts() {
    let world = world(
        "",
        "[[egress.within]]\nhost = \"https://a.example\"\n",
        "true",
    );
    let ran = world.skep(&["run", PROMPT]).expect_code(2);
    assert!(
        ran.stderr
            .contains("`egress.within`, rule 1: `https://a.example` is no host"),
        "{}",
        ran.stderr
    );
    configure(&world, "");
    world
        .repo
        .file("skep.toml", "[[egress.allow]]\nhost = \"a.example\"\n");
    world.repo.commit("A rule for nobody");
    let ran = world.skep(&["run", PROMPT]).expect_code(2);
    assert!(ran.stderr.contains("`for` says who may"), "{}", ran.stderr);
}
