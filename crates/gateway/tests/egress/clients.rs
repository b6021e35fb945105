//! Clients of three languages, each in plain, in TLS, and looked into.

use domain::egress::Rule;
use skep_gateway::EgressBounds;

use crate::{
    fixture::{World, allow, text},
    origin::{Authority, Origin},
};

const PYTHON: &str = "
import sys, urllib.request, urllib.error
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url, timeout=10).read().decode())
    except urllib.error.HTTPError as e:
        print(e.code, e.read().decode())
    except urllib.error.URLError as e:
        print('failed:', e.reason)
";

/// Node's own client, with an agent that makes tunnels as packages for it do.
const NODE: &str = "
const http = require('http'), tls = require('tls');
const proxy = new URL(process.env.HTTPS_PROXY);
const show = (r) => r.setEncoding('utf8').on('data', d => process.stdout.write(r.statusCode + ' ' + d));
for (const text of process.argv.slice(1)) {
  const url = new URL(text);
  if (url.protocol === 'http:') {
    http.get({host: proxy.hostname, port: proxy.port, path: text, headers: {host: url.host}}, show);
    continue;
  }
  http.request({host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: url.host})
    .on('connect', (r, socket) => {
      if (r.statusCode !== 200) { console.log(r.statusCode); socket.destroy(); return; }
      const secure = tls.connect({socket, servername: url.hostname});
      http.get({createConnection: () => secure, path: url.pathname, headers: {host: url.host}}, show);
    }).end();
}
";

struct Place {
    world: World,
    trusted: tempfile::NamedTempFile,
    plain: Origin,
    _secure: Origin,
    urls: Vec<String>,
}

async fn place() -> Place {
    let authority = Authority::new();
    let plain = Origin::plain().await;
    let secure = Origin::secure(&authority, &["a.test", "b.test", "c.test"]).await;
    let ports = [plain.port(), secure.port()];
    let world = World::with(
        vec![
            allow("a.test", &ports),
            Rule {
                paths: vec!["/open".into()],
                ..allow("b.test", &ports)
            },
        ],
        Vec::new(),
        EgressBounds::default(),
        Some(authority.roots()),
    );
    let trusted = tempfile::NamedTempFile::new().unwrap();
    let mut all = world.egress.certificates().unwrap();
    all.push_str(&std::fs::read_to_string(authority.path()).unwrap());
    std::fs::write(trusted.path(), all).unwrap();
    let [http, https] = ports;
    let urls = vec![
        format!("http://a.test:{http}/plain"),
        format!("https://a.test:{https}/tunnel"),
        format!("https://b.test:{https}/open"),
        format!("https://b.test:{https}/shut"),
        format!("https://c.test:{https}/none"),
        format!("http://c.test:{http}/none"),
    ];
    Place {
        world,
        trusted,
        plain,
        _secure: secure,
        urls,
    }
}

impl Place {
    async fn say(&self, words: &[&str]) -> String {
        let trusted = self.trusted.path().to_str().unwrap();
        let names = [
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "REQUESTS_CA_BUNDLE",
        ];
        let env = names.map(|name| (name, trusted));
        let urls = self.urls.iter().map(String::as_str);
        let all: Vec<&str> = words.iter().copied().chain(urls).collect();
        text(&self.world.run(&all, &env).await)
    }

    fn check(&self, said: &str) {
        for reached in ["GET /plain", "GET /tunnel", "GET /open"] {
            assert!(said.contains(reached), "{reached}: {said}");
        }
        assert!(
            !said.contains("GET /shut") && !said.contains("GET /none"),
            "{said}"
        );
        assert!(said.matches("403").count() >= 2, "{said}");
        assert_eq!(self.plain.heads().len(), 1);
    }
}

#[tokio::test]
async fn python_reaches_what_is_allowed_and_nothing_else() {
    let place = place().await;
    let said = place.say(&["python3", "-c", PYTHON]).await;
    place.check(&said);
}

#[tokio::test]
async fn node_reaches_what_is_allowed_and_nothing_else() {
    let place = place().await;
    let said = place.say(&["node", "-e", NODE]).await;
    place.check(&said);
}

#[tokio::test]
async fn curl_reaches_what_is_allowed_and_nothing_else() {
    let place = place().await;
    let said = place
        .say(&["curl", "-sS", "-w", "%{http_code} %{http_connect}\\n"])
        .await;
    place.check(&said);
}

#[tokio::test]
async fn http2_passes_within_a_tunnel_and_is_not_offered_where_requests_are_seen() {
    let authority = Authority::new();
    let (leaf, key) = authority.leaf(&["a.test", "b.test"]);
    let file = |label: &str, bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem::encode(&pem::Pem::new(label, bytes))).unwrap();
        file
    };
    let leaf = file("CERTIFICATE", leaf.as_ref());
    let key = file("PRIVATE KEY", &key.serialize_der());
    let server = "
const fs = require('fs');
const s = require('http2').createSecureServer({cert: fs.readFileSync(process.argv[1]), key: fs.readFileSync(process.argv[2]), allowHTTP1: true});
s.on('request', (q, r) => r.end('version ' + q.httpVersion));
s.listen(0, '127.0.0.1', () => console.log(s.address().port));
";
    let mut serving = tokio::process::Command::new("node")
        .args(["-e", server])
        .args([leaf.path(), key.path()])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = tokio::io::BufReader::new(serving.stdout.take().unwrap());
    tokio::io::AsyncBufReadExt::read_line(&mut out, &mut line)
        .await
        .unwrap();
    let port: u16 = line.trim().parse().unwrap();
    let seen_into = Rule {
        methods: vec!["GET".into()],
        ..allow("b.test", &[port])
    };
    let world = World::with(
        vec![allow("a.test", &[port]), seen_into],
        Vec::new(),
        EgressBounds::default(),
        Some(authority.roots()),
    );
    let own = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(own.path(), world.egress.certificates().unwrap()).unwrap();
    for (host, trusted, expected) in [
        ("a.test", authority.path(), "version 2.0"),
        ("b.test", own.path().to_str().unwrap(), "version 1.1"),
    ] {
        let url = format!("https://{host}:{port}/");
        let words = ["curl", "-sS", "--http2", "--cacert", trusted, &url];
        let said = text(&world.run(&words, &[]).await);
        assert_eq!(said, expected, "{host}");
    }
}
