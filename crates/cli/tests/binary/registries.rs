//! The programs of package registries, as they are, in a sandbox whose policy names their presets.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use testkit::Repo;
use testkit::models::{Dialect, Job, Script, Step};

use crate::world::{PROMPT, World};

const HOSTS: [&str; 6] = [
    "cargo.test",
    "npm.test",
    "pypi.test",
    "go.test",
    "maven.test",
    "apt.test",
];

/// One small package in each of six registries, in TLS. Its first line is its port; each further one
/// is the host and the path of a request.
const REGISTRIES: &str = r##"
import base64, hashlib, http.server, io, json, ssl, sys, tarfile, zipfile

def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as made:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o644
            made.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()

def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as made:
        for name, text in files.items():
            made.writestr(name, text)
    return out.getvalue()

crate = tar({
    'tiny-1.0.0/Cargo.toml': '[package]\nname = "tiny"\nversion = "1.0.0"\nedition = "2021"\n',
    'tiny-1.0.0/src/lib.rs': '',
})
package = tar({'package/package.json': '{"name": "tiny", "version": "1.0.0"}', 'package/index.js': ''})
wheel = zipped({
    'tiny.py': '',
    'tiny-1.0.0.dist-info/METADATA': 'Metadata-Version: 2.1\nName: tiny\nVersion: 1.0.0\n',
    'tiny-1.0.0.dist-info/WHEEL': 'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    'tiny-1.0.0.dist-info/RECORD': '',
})
module = 'module example.test/tiny\n'
modules = zipped({'example.test/tiny@v1.0.0/go.mod': module, 'example.test/tiny@v1.0.0/x.go': 'package tiny\n'})
parent = '<project><modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>tiny</artifactId><version>1.0.0</version><packaging>pom</packaging></project>'
debian = b'what apt keeps as it came'
packages = '\n'.join(['Package: tiny', 'Version: 1.0.0', 'Architecture: all', 'Maintainer: a test <test@example.test>',
    'Filename: pool/tiny_1.0.0_all.deb', f'Size: {len(debian)}', 'SHA256: ' + hashlib.sha256(debian).hexdigest(), 'Description: tiny', ''])
release = f'Suite: tiny\nSHA256:\n {hashlib.sha256(packages.encode()).hexdigest()} {len(packages)} Packages\n'

def pages(port):
    at = lambda host: f'https://{host}.test:{port}'
    integrity = 'sha512-' + base64.b64encode(hashlib.sha512(package).digest()).decode()
    version = {'name': 'tiny', 'version': '1.0.0',
               'dist': {'tarball': at('npm') + '/tiny/-/tiny-1.0.0.tgz', 'integrity': integrity}}
    return {
        'cargo.test': {
            '/index/config.json': json.dumps({'dl': at('cargo') + '/api/v1/crates'}),
            '/index/ti/ny/tiny': json.dumps({'name': 'tiny', 'vers': '1.0.0', 'deps': [], 'features': {},
                'yanked': False, 'cksum': hashlib.sha256(crate).hexdigest()}) + '\n',
            '/api/v1/crates/tiny/1.0.0/download': crate,
        },
        'npm.test': {
            '/tiny': json.dumps({'name': 'tiny', 'dist-tags': {'latest': '1.0.0'}, 'versions': {'1.0.0': version}}),
            '/tiny/-/tiny-1.0.0.tgz': package,
        },
        'pypi.test': {
            '/simple/tiny/': '<a href="/packages/tiny-1.0.0-py3-none-any.whl#sha256=' + hashlib.sha256(wheel).hexdigest() + '">tiny-1.0.0-py3-none-any.whl</a>',
            '/packages/tiny-1.0.0-py3-none-any.whl': wheel,
        },
        'go.test': {
            '/example.test/tiny/@v/list': 'v1.0.0\n',
            '/example.test/tiny/@v/v1.0.0.info': '{"Version": "v1.0.0", "Time": "2020-01-01T00:00:00Z"}',
            '/example.test/tiny/@v/v1.0.0.mod': module,
            '/example.test/tiny/@v/v1.0.0.zip': modules,
        },
        'maven.test': {
            '/test/tiny/1.0.0/tiny-1.0.0.pom': parent,
            '/test/tiny/1.0.0/tiny-1.0.0.pom.sha1': hashlib.sha1(parent.encode()).hexdigest(),
        },
        'apt.test': {
            '/./Release': release,
            '/./Packages': packages,
            '/pool/tiny_1.0.0_all.deb': debian,
        },
    }

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        host = self.headers['Host'].split(':')[0]
        print(host, self.path, flush=True)
        body = all_pages[host].get(self.path)
        self.send_response(200 if body is not None else 404)
        body = body or b''
        body = body if isinstance(body, bytes) else body.encode()
        if self.path.startswith('/simple/'): self.send_header('Content-Type', 'text/html')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass

server = http.server.ThreadingHTTPServer(('127.0.0.2', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
all_pages = pages(server.server_address[1])
print(server.server_address[1], flush=True)
server.serve_forever()
"##;

struct Registries {
    process: Child,
    out: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl Registries {
    fn new(cert: &Path, key: &Path) -> Self {
        let mut process = Command::new("python3")
            .args(["-c", REGISTRIES])
            .args([cert, key])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let mut port = String::new();
        out.read_line(&mut port).unwrap();
        Self {
            process,
            out,
            port: port.trim().parse().unwrap(),
        }
    }

    /// Ends it; what it was asked, a host and a path each.
    fn asked(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.out.lines().map_while(Result::ok).collect()
    }
}

fn certificate(cert: &Path, key: &Path) {
    let names = HOSTS.map(|host| format!("DNS:{host}")).join(",");
    let names = format!("subjectAltName={names}");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-subj", "/CN=a server of a test", "-addext", &names])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args([OsStr::new("-out"), cert.as_os_str()])
        .args([OsStr::new("-keyout"), key.as_os_str()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// What an agent types to get the package of each, in a place of its own each time.
const FETCH: &str = r#"
for time in 1 2; do
at=/tmp/$time; mkdir -p $at/c/src $at/n $at/g; touch $at/c/src/lib.rs
printf '[package]\nname = "user"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\ntiny = { version = "1", registry = "local" }\n' > $at/c/Cargo.toml
(cd $at/c && CARGO_HOME=$at/ch CARGO_REGISTRIES_LOCAL_INDEX=sparse+https://cargo.test:PORT/index/ cargo fetch && ls $at/ch/registry/src/*/tiny-1.0.0/Cargo.toml) > $at/log 2>&1 && echo cargo $time >> $out || cat $at/log >> $out
(cd $at/n && npm install --registry https://npm.test:PORT/ --cache $at/nc --no-audit --no-fund --no-update-notifier tiny && node -e 'require("tiny")') > $at/log 2>&1 && echo npm $time >> $out || cat $at/log >> $out
(python3 -m pip download --disable-pip-version-check --no-cache-dir --index-url https://pypi.test:PORT/simple --no-deps -d $at/p tiny && ls $at/p/*.whl) > $at/log 2>&1 && echo pip $time >> $out || cat $at/log >> $out
(cd $at/g && go mod init user && GOFLAGS=-modcacherw GOSUMDB=off GOPROXY=https://go.test:PORT GOMODCACHE=$at/gm GOCACHE=$at/gc go mod download example.test/tiny@v1.0.0 && ls $at/gm/example.test/tiny@v1.0.0/x.go) > $at/log 2>&1 && echo go $time >> $out || cat $at/log >> $out
mkdir -p $at/m && printf '<project><modelVersion>4.0.0</modelVersion><parent><groupId>test</groupId><artifactId>tiny</artifactId><version>1.0.0</version><relativePath/></parent><artifactId>user</artifactId><packaging>pom</packaging><repositories><repository><id>local</id><url>https://maven.test:PORT</url></repository></repositories></project>' > $at/m/pom.xml
(cd $at/m && mvn -B -Dmaven.repo.local=$at/mr validate && ls $at/mr/test/tiny/1.0.0/tiny-1.0.0.pom) > $at/log 2>&1 && echo maven $time >> $out || cat $at/log >> $out
mkdir -p $at/a/etc $at/a/state/lists/partial $at/a/cache/archives/partial && touch $at/a/status && echo 'deb [trusted=yes] https://apt.test:PORT ./' > $at/a/etc/sources.list
(cd $at/a && set -- -o Dir::Etc=$at/a/etc -o Dir::State=$at/a/state -o Dir::State::status=$at/a/status -o Dir::Cache=$at/a/cache && apt-get "$@" update && apt-get "$@" download tiny && ls tiny_1.0.0_all.deb) > $at/log 2>&1 && echo apt $time >> $out || cat $at/log >> $out
done; true
"#;

#[test]
fn cargo_npm_pip_go_maven_and_apt_get_their_packages_by_their_presets_and_once_for_all() {
    let place = tempfile::tempdir().unwrap();
    let (cert, key) = (place.path().join("cert.pem"), place.path().join("key.pem"));
    certificate(&cert, &key);
    let registries = Registries::new(&cert, &key);
    let port = registries.port.to_string();
    let mut policy = String::new();
    let mut config = String::from("[egress]\naddresses = [\"127.0.0.2\"]\n[egress.hosts]\n");
    for host in HOSTS {
        config.push_str(&format!("\"{host}\" = \"127.0.0.2\"\n"));
    }
    for host in HOSTS {
        let preset = host.trim_end_matches(".test");
        policy.push_str(&format!(
            "[[egress.allow]]\nfor = [\"agent\"]\npreset = \"{preset}\"\n"
        ));
        config.push_str(&format!(
            "[egress.presets.{preset}]\nhosts = [\"{host}:{port}\"]\n"
        ));
    }
    let repo = Repo::new();
    repo.file("answer.txt", "41\n").file("skep.toml", &policy);
    repo.commit("A policy");
    let fetch = format!(
        "out=$PWD/answer.txt; : > $out{}",
        FETCH.replace("PORT", &port)
    );
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(&fetch))
            .step(Step::say("Done.")),
    );
    let world = World::new(Dialect::Chat, repo, script).env("SSL_CERT_FILE", &cert);
    let directory = world.home.config().join("skep");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("config.toml"), config).unwrap();
    let told = world.run();
    let answer = world.integrated("answer.txt");
    let wanted = "cargo 1\nnpm 1\npip 1\ngo 1\nmaven 1\napt 1\ncargo 2\nnpm 2\npip 2\ngo 2\nmaven 2\napt 2\n";
    assert_eq!(answer, wanted);
    let asked = registries.asked();
    for (host, path) in [
        ("cargo.test", "/api/v1/crates/tiny/1.0.0/download"),
        ("npm.test", "/tiny/-/tiny-1.0.0.tgz"),
        ("pypi.test", "/packages/tiny-1.0.0-py3-none-any.whl"),
        ("go.test", "/example.test/tiny/@v/v1.0.0.zip"),
        ("maven.test", "/test/tiny/1.0.0/tiny-1.0.0.pom"),
        ("apt.test", "/pool/tiny_1.0.0_all.deb"),
    ] {
        let line = format!("{host} {path}");
        let times = asked.iter().filter(|asked| **asked == line).count();
        assert_eq!(times, 1, "{line}: {asked:#?}");
        let given = told
            .all("egress")
            .any(|it| it["host"] == host && it["path"] == path && it["cached"] == true);
        assert!(given, "{line}");
    }
    // What is kept is counted, and goes when somebody says so.
    let gc = world.skep(&["gc", "--dry-run", "--json"]).expect_code(0);
    let kept = gc.json_lines().remove(0)["before"]["packages"].as_u64();
    assert!(kept > Some(1_000), "{kept:?}");
    let gc = world.skep(&["gc", "--all", "--json"]).expect_code(0);
    assert_eq!(gc.json_lines().remove(0)["packages"].as_u64(), kept);
}

#[test]
fn a_setup_gets_packages_by_a_preset_which_serve_all_that_its_rules_are_the_same_for() {
    let place = tempfile::tempdir().unwrap();
    let (cert, key) = (place.path().join("cert.pem"), place.path().join("key.pem"));
    certificate(&cert, &key);
    let registries = Registries::new(&cert, &key);
    let port = registries.port;
    let fetch = format!(
        "npm install --registry https://npm.test:{port}/ --cache /tmp/cache --no-audit --no-fund \
         --no-update-notifier --prefix made tiny"
    );
    let policy = format!(
        "[setup]\ninputs = []\n\
         command = \"{fetch} && od -An -N8 -tx8 /dev/urandom > made/number\"\n\
         [[egress.allow]]\nfor = [\"setup\"]\npreset = \"npm\"\n"
    );
    let repo = Repo::new();
    repo.file("answer.txt", "41\n").file(".gitignore", "made\n");
    repo.file("skep.toml", policy).commit("A policy");
    let uses = "node -e \"require('./made/node_modules/tiny')\" && echo 42 > answer.txt";
    // What was granted to the setup is nobody else's.
    let agent = format!("rm -rf /tmp/cache; {fetch} || {{ {uses}; }}");
    let script = Script::new().job(
        Job::on(PROMPT)
            .with_tools()
            .step(Step::shell(&agent))
            .step(Step::say("Done.")),
    );
    let world = World::new(Dialect::Chat, repo, script).env("SSL_CERT_FILE", &cert);
    let directory = world.home.config().join("skep");
    fs::create_dir_all(&directory).unwrap();
    let configure = |more: &str| {
        let config = format!(
            "[egress]\naddresses = [\"127.0.0.2\"]\n[egress.hosts]\n\"npm.test\" = \"127.0.0.2\"\n\
             [egress.presets.npm]\nhosts = [\"npm.test:{port}\"{more}]\n"
        );
        fs::write(directory.join("config.toml"), config).unwrap();
    };
    configure("");
    world.run();
    assert_eq!(world.integrated("answer.txt"), "42\n");
    let number = || {
        let ran = world.skep(&["shell", "--", "cat", "made/number"]);
        ran.expect_code(0).stdout
    };
    let first = number();
    assert_eq!(number(), first, "one served both");
    configure(", \"other.test\"");
    let other = number();
    assert_ne!(other, first, "what it may reach is another now");
    configure("");
    assert_eq!(number(), first, "its rules are as they were");
    let asked = registries.asked();
    let package = "npm.test /tiny/-/tiny-1.0.0.tgz";
    let times = asked.iter().filter(|asked| *asked == package).count();
    assert_eq!(times, 1, "{asked:#?}");
    let lists = asked.iter().filter(|asked| *asked == "npm.test /tiny");
    assert_eq!(lists.count(), 2, "one for each setup: {asked:#?}");
}
