//! A sandbox's egress on loopback, with rules, names and a witness of the test.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use domain::egress::{Asked, Part, Presets, Rule, Rules, Users};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use skep_gateway::{
    Bounds, Egress, EgressBounds, EgressSpec, Gateway, Options, Packages, Policies, Providers,
    Resolver, Seen, Served, Standing, Witness,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What is refused is refused within this, also on a machine that is busy.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);

/// A rule that allows this host for the agent, at any of the test's ports.
pub(crate) fn allow(host: &str, ports: &[u16]) -> Rule {
    Rule {
        parts: vec![Part::Agent],
        host: Some(host.into()),
        ports: ports.to_vec(),
        ..Rule::default()
    }
}

/// What holds, and can be changed while everything runs.
pub(crate) struct Told(Mutex<Result<Standing, String>>);

impl Told {
    pub(crate) fn say(&self, asked: &Asked, users: Users) {
        let rules = Rules::new(asked, &users, &Presets::new()).unwrap();
        *self.0.lock().unwrap() = Ok(Standing {
            rules: Arc::new(rules),
            users: Arc::new(users),
        });
    }

    pub(crate) fn spoil(&self, why: &str) {
        *self.0.lock().unwrap() = Err(why.into());
    }
}

impl Policies for Told {
    fn standing(&self) -> Result<Standing, String> {
        self.0.lock().unwrap().clone()
    }
}

/// Names with the addresses that they have one after the other; the last one stays.
pub(crate) struct Names {
    known: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    asked: watch::Sender<usize>,
    gate: Semaphore,
}

impl Names {
    fn new() -> Self {
        Self {
            known: Mutex::default(),
            asked: watch::channel(0).0,
            gate: Semaphore::new(0),
        }
    }

    /// Waits until something was looked up, and says the answers that wait only when this is done.
    pub(crate) async fn meanwhile(&self, does: impl FnOnce()) {
        let mut asked = self.asked.subscribe();
        let waited = timeout(PATIENCE, asked.wait_for(|asked| *asked > 0)).await;
        waited.expect("nothing is looked up").unwrap();
        does();
        self.gate.add_permits(1);
    }

    pub(crate) fn set(&self, name: &str, answers: &[&[&str]]) {
        let answers = answers
            .iter()
            .map(|all| all.iter().map(|one| one.parse().unwrap()).collect())
            .collect();
        self.known.lock().unwrap().insert(name.into(), answers);
    }

    pub(crate) fn asked(&self) -> usize {
        *self.asked.borrow()
    }
}

#[async_trait]
impl Resolver for Names {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.send_modify(|asked| *asked += 1);
        if name.starts_with("later") {
            self.gate.acquire().await.unwrap().forget();
        }
        if name.starts_with("never") {
            // As a thread that goes on, whoever waits for it.
            return std::future::pending().await;
        }
        let mut known = self.known.lock().unwrap();
        let answers = known
            .get_mut(name)
            .ok_or_else(|| io::Error::other("no such name"))?;
        if answers.len() > 1 {
            return Ok(answers.remove(0));
        }
        Ok(answers[0].clone())
    }
}

/// Keeps what it is told.
pub(crate) struct Kept(watch::Sender<Vec<Seen>>);

#[async_trait]
impl Witness for Kept {
    async fn saw(&self, decisions: Vec<Seen>) {
        self.0.send_modify(|all| all.extend(decisions));
    }
}

/// A sandbox's egress.
pub(crate) struct World {
    pub(crate) told: Arc<Told>,
    pub(crate) names: Arc<Names>,
    kept: Arc<Kept>,
    pub(crate) egress: Egress,
    pub(crate) address: SocketAddr,
    served: Option<Served>,
}

impl World {
    pub(crate) fn new(allow: Vec<Rule>) -> Self {
        Self::with(allow, Vec::new(), EgressBounds::default(), None)
    }

    /// Loopback addresses of IPv4 may be connected to; `*.test` is there.
    pub(crate) fn with(
        allow: Vec<Rule>,
        deny: Vec<Rule>,
        bounds: EgressBounds,
        roots: Option<RootCertStore>,
    ) -> Self {
        let asked = Asked { allow, deny };
        let users = naming(&asked);
        Self::made(&asked, users, bounds, roots, None)
    }

    /// One of many that share what is kept of registries.
    pub(crate) fn made(
        asked: &Asked,
        users: Users,
        bounds: EgressBounds,
        roots: Option<RootCertStore>,
        packages: Option<Arc<Packages>>,
    ) -> Self {
        let told = Arc::new(Told(Mutex::new(Err("nothing was said".into()))));
        told.say(asked, users);
        let names = Arc::new(Names::new());
        for name in ["a.test", "b.test", "c.test", "later.test"] {
            names.set(name, &[&["127.0.0.1"]]);
        }
        let kept = Arc::new(Kept(watch::channel(Vec::new()).0));
        let tls = roots.map(|roots| {
            let mut config =
                ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(config)
        });
        let gateway = Gateway::new(Options {
            providers: Providers::default(),
            bounds: Bounds::default(),
        })
        .unwrap();
        let egress = gateway.egress(EgressSpec {
            part: Part::Agent,
            policies: told.clone(),
            resolver: names.clone(),
            witness: kept.clone(),
            bounds,
            tls,
            packages,
            cancel: CancellationToken::new(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let served = egress.serve(listener).unwrap();
        Self {
            told,
            names,
            kept,
            egress,
            address: served.address(),
            served: Some(served),
        }
    }

    /// Waits until what was told meets this.
    pub(crate) async fn until(&self, mut met: impl FnMut(&[Seen]) -> bool) -> Vec<Seen> {
        let mut receiver = self.kept.0.subscribe();
        let waited = receiver.wait_for(|all| met(all));
        let waited = timeout(PATIENCE, waited)
            .await
            .map(|all| all.unwrap().clone());
        waited.unwrap_or_else(|_| panic!("it was not told: {:#?}", self.kept.0.borrow()))
    }

    /// Ends it, and says all that was told.
    pub(crate) async fn close(mut self) -> Vec<Seen> {
        self.served.take().unwrap().close().await;
        self.kept.0.borrow().clone()
    }

    /// A connection of a program inside.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends these bytes, and reads until the other side ends.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut all = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
        read.expect("it has no end").ok();
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Asks for a tunnel; the head of the answer.
    pub(crate) async fn tunnel(&self, to: &str) -> (TcpStream, String) {
        let mut stream = self.connect().await;
        let ask = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let head = head(&mut stream).await;
        (stream, head)
    }

    /// Runs a program with the variables that a sandbox has.
    pub(crate) async fn run(&self, words: &[&str], env: &[(&str, &str)]) -> Output {
        let proxy = format!("http://{}", self.address);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env(name, &proxy);
        }
        command.env("NO_PROXY", "127.0.0.1,localhost");
        command.env_remove("no_proxy");
        command.envs(env.iter().copied());
        let output = timeout(PATIENCE, command.kill_on_drop(true).output()).await;
        output.expect("the client hangs").unwrap()
    }
}

/// A configuration that names what is asked for, so that it may be on loopback.
pub(crate) fn naming(asked: &Asked) -> Users {
    let named = |rule: &Rule| Rule {
        host: rule.host.clone(),
        ports: rule.ports.clone(),
        upgrade: true,
        ..Rule::default()
    };
    Users {
        within: asked.allow.iter().map(named).collect(),
        addresses: vec!["127.0.0.0/8".parse().unwrap()],
        ..Users::default()
    }
}

/// Reads up to the empty line, and no further.
pub(crate) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(PATIENCE, reading).await.expect("no answer");
    String::from_utf8(head).unwrap()
}

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
