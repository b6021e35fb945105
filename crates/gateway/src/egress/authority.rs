//! The throw-away authority of one sandbox: its key is in memory only, and nobody outside of the
//! sandbox trusts it.

use domain::egress::Host;
use pem::Pem;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The most hosts whose certificates are kept.
const HOSTS: usize = 200;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    hosts: Mutex<HashMap<Host, Arc<ServerConfig>>>,
}

impl Authority {
    pub(super) fn new() -> Result<Self, BoxError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "Skep, for this sandbox only");
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
            hosts: Mutex::default(),
        })
    }

    /// The system's roots and its own, as programs read them.
    pub(super) fn bundle(&self) -> String {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::debug!(%error, "a certificate of the system cannot be read");
        }
        let all = found.certs.into_iter().chain([self.certificate.clone()]);
        all.map(|one| pem::encode(&Pem::new("CERTIFICATE", one.as_ref())))
            .collect()
    }

    /// What a server of this host would show.
    pub(super) fn server(&self, host: &Host) -> Result<Arc<ServerConfig>, BoxError> {
        let lock = || self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(host) {
            return Ok(Arc::clone(known));
        }
        let key = KeyPair::generate()?;
        let name = match host {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        };
        let mut params = CertificateParams::new(vec![name])?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let subject = &mut params.distinguished_name;
        subject.push(DnType::CommonName, "Skep");
        let leaf = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let mut hosts = lock();
        if hosts.len() >= HOSTS {
            hosts.clear();
        }
        hosts.insert(host.clone(), Arc::clone(&config));
        Ok(config)
    }
}
