//! Websockets, by a client that knows of proxies: the one that comes with npm.

use std::process::Stdio;

use domain::egress::Rule;
use skep_gateway::EgressBounds;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    fixture::{World, allow, text},
    origin::Authority,
};

/// Gives each message back, in TLS.
const SERVER: &str = "
const fs = require('fs'), https = require('https'), crypto = require('crypto');
const s = https.createServer({cert: fs.readFileSync(process.argv[1]), key: fs.readFileSync(process.argv[2])});
s.on('upgrade', (q, socket) => {
  const accept = crypto.createHash('sha1').update(q.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: ' + accept + '\\r\\n\\r\\n');
  socket.on('data', d => {
    if ((d[0] & 15) !== 1) { socket.end(); return; }
    const length = d[1] & 127, mask = d.subarray(2, 6);
    const said = d.subarray(6, 6 + length).map((byte, at) => byte ^ mask[at % 4]);
    socket.write(Buffer.concat([Buffer.from([0x81, length]), said]));
  });
});
s.listen(0, '127.0.0.1', () => console.log(s.address().port));
";

const CLIENT: &str = "
const fs = require('fs'), cp = require('child_process');
const root = cp.execFileSync('npm', ['root', '-g']).toString().trim();
const {WebSocket, ProxyAgent} = require(root + '/npm/node_modules/undici');
const ca = fs.readFileSync(process.env.SSL_CERT_FILE).toString();
const dispatcher = new ProxyAgent({uri: process.env.HTTPS_PROXY, requestTls: {ca}});
const ws = new WebSocket(process.argv[1], {dispatcher});
ws.onopen = () => ws.send('hello');
ws.onmessage = e => { console.log('got', e.data); process.exit(0); };
ws.onerror = () => { console.log('failed'); process.exit(0); };
";

async fn server(authority: &Authority) -> (Child, u16, [tempfile::NamedTempFile; 2]) {
    let (leaf, key) = authority.leaf(&["a.test", "b.test", "c.test"]);
    let file = |label: &str, bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem::encode(&pem::Pem::new(label, bytes))).unwrap();
        file
    };
    let files = [
        file("CERTIFICATE", leaf.as_ref()),
        file("PRIVATE KEY", &key.serialize_der()),
    ];
    let mut serving = Command::new("node")
        .args(["-e", SERVER])
        .args([files[0].path(), files[1].path()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(serving.stdout.take().unwrap());
    out.read_line(&mut line).await.unwrap();
    (serving, line.trim().parse().unwrap(), files)
}

#[tokio::test]
async fn a_websocket_opens_in_a_tunnel_and_where_requests_are_seen_only_by_rule() {
    let authority = Authority::new();
    let (_serving, port, _files) = server(&authority).await;
    let seen_into = |host: &str, upgrade| Rule {
        methods: vec!["GET".into()],
        upgrade,
        ..allow(host, &[port])
    };
    let world = World::with(
        vec![
            allow("a.test", &[port]),
            seen_into("b.test", true),
            seen_into("c.test", false),
        ],
        Vec::new(),
        EgressBounds::default(),
        Some(authority.roots()),
    );
    let trusted = tempfile::NamedTempFile::new().unwrap();
    let mut all = world.egress.certificates().unwrap();
    all.push_str(&std::fs::read_to_string(authority.path()).unwrap());
    std::fs::write(trusted.path(), all).unwrap();
    let env = [("SSL_CERT_FILE", trusted.path().to_str().unwrap())];
    for (host, expected) in [
        ("a.test", "got hello"),
        ("b.test", "got hello"),
        ("c.test", "failed"),
    ] {
        let url = format!("wss://{host}:{port}/");
        let said = text(&world.run(&["node", "-e", CLIENT, &url], &env).await);
        assert!(said.contains(expected), "{host}: {said}");
    }
    let seen = world.close().await;
    let why = seen
        .iter()
        .find(|seen| seen.host == "c.test" && !seen.allowed);
    assert!(why.unwrap().reason.as_ref().unwrap().contains("`upgrade`"));
    assert!(
        seen.iter()
            .any(|seen| seen.host == "b.test" && seen.down > 0)
    );
}
