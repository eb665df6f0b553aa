//! Certificates and keys, and the TLS configuration that follows from them.
//!
//! TLS 1.2 and 1.3 with ring, stateless session tickets (no table of sessions), one ticket a handshake, no early data.
//! A client that names a domain gets that domain's certificate; one that names none, or another, gets the first.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring as provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::sys::files::Opener;

/// A chain of certificates is a few thousand bytes; what stands behind so many is not read.
const PEM_BYTES: u64 = 1 << 20;

/// What a listener needs to speak TLS. Cheap to clone; conversations keep the one they were born with.
pub type Tls = Arc<ServerConfig>;

/// A certificate chain, its key, and the domain it is for (`None`: for whoever names no other).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM: the server's certificate, then the intermediate ones.
    pub cert: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// The domain that a client names to get it.
    pub domain: Option<String>,
}

#[derive(Debug)]
struct Chosen {
    first: Arc<CertifiedKey>,
    named: Vec<(String, Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for Chosen {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name();
        let found = self.named.iter().find(|(name, _)| wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case(name)));
        Some(found.map_or(&self.first, |(_, key)| key).clone())
    }
}

/// Reads the files; `None` when there are none. Refuses with one sentence that names the file.
pub fn load(files: &[Files], open: &Opener<'_>) -> Result<Option<Tls>, String> {
    let mut keys = Vec::new();
    for file in files {
        keys.push((file.domain.clone(), Arc::new(pair(&file.cert, &file.key, open)?)));
    }
    let Some((_, first)) = keys.iter().find(|(domain, _)| domain.is_none()).or(keys.first()) else {
        return Ok(None);
    };
    let first = first.clone();
    let named = keys.into_iter().filter_map(|(domain, key)| Some((domain?, key))).collect();
    let provider = provider::default_provider();
    let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
    let mut config = builder
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Chosen { first, named }));
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = provider::Ticketer::new().map_err(|error| format!("TLS tickets cannot be made: {error}"))?;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(Some(Arc::new(config)))
}

fn pair(cert: &Path, key: &Path, open: &Opener<'_>) -> Result<CertifiedKey, String> {
    let trouble = |path: &Path, what: &str| format!("{}: {what}", path.display());
    let read = |path: &Path, error: rustls_pki_types::pem::Error| {
        trouble(
            path,
            &format!("cannot be read as PEM: {error}; give a file made by your certificate authority's client"),
        )
    };
    let text = |path: &Path| {
        let mut text = Vec::new();
        let all = open(path).and_then(|file| file.take(PEM_BYTES).read_to_end(&mut text));
        all.map_err(|error| trouble(path, &format!("cannot be read: {error}; name a PEM file this user can read")))?;
        Ok::<_, String>(text)
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text(cert)?).collect();
    let chain = chain.map_err(|error| read(cert, error))?;
    if chain.is_empty() {
        return Err(trouble(cert, "holds no certificate; tls_cert wants the PEM file with the full chain"));
    }
    let secret = PrivateKeyDer::from_pem_slice(&text(key)?).map_err(|error| read(key, error))?;
    let certified = CertifiedKey::from_der(chain, secret, &provider::default_provider());
    certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            trouble(key, &format!("is not the key of {}; give the pair that was made together", cert.display()))
        }
        error => trouble(cert, &format!("cannot be used: {error}")),
    })
}
