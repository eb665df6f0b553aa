//! Certificates and keys, and the TLS configuration that follows from them.
//!
//! TLS 1.2 and 1.3 with ring, stateless session tickets (no table of sessions), one ticket a handshake, no early data.
//! A client that names a domain gets that domain's certificate; one that names none, or another, gets the first.
//!
//! Where we are the client, [`client`] says whom we believe. [`Secure`] is either side, as the driver takes it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::sys::files::{Opener, open_to_read};

/// A chain of certificates is a few thousand bytes; what stands behind so many is not read.
const PEM_BYTES: u64 = 1 << 20;

/// What a listener needs to speak TLS. Cheap to clone; conversations keep the one they were born with.
pub type Tls = Arc<ServerConfig>;

/// What a client needs to speak TLS. Cheap to clone.
pub type Calling = Arc<ClientConfig>;

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

/// Which side of a TLS connection we are.
#[derive(Debug, Clone)]
pub enum Secure {
    /// The one that was called.
    Server(Tls),
    /// The one that calls: whom we believe, and whom we want to reach.
    Client(Box<(Arc<ClientConfig>, ServerName<'static>)>),
}

impl From<Tls> for Secure {
    fn from(config: Tls) -> Secure {
        Secure::Server(config)
    }
}

impl Secure {
    /// A client's side towards the server of this name: a domain or an address. Refuses what is neither.
    pub fn to(config: Arc<ClientConfig>, name: &str) -> Result<Secure, String> {
        let refused = |_| format!("{name:?} is no name that a certificate can have; give a domain or an address");
        let name = ServerName::try_from(name.to_owned()).map_err(refused)?;
        Ok(Secure::Client(Box::new((config, name))))
    }
}

/// Whom a client believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Whoever answers. For load tests, and for encryption where the other choice would be none at all.
    Anybody,
    /// Whom Mozilla's list of authorities vouches for.
    Roots,
    /// Whom the certificates in this PEM file vouch for.
    File(PathBuf),
}

/// What a client needs to speak TLS. Refuses with one sentence that names the file.
pub fn client(trust: Trust) -> Result<Arc<ClientConfig>, String> {
    client_of(rustls::DEFAULT_VERSIONS, trust)
}

/// The same, for these versions of TLS.
pub(super) fn client_of(
    versions: &[&'static SupportedProtocolVersion],
    trust: Trust,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(provider::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let builder = builder.map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let builder = match trust {
        Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        Trust::Roots => builder.with_root_certificates(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() }),
        Trust::File(path) => builder.with_root_certificates(roots(&path)?),
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// Believes any certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
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

/// The certificates in a file.
fn certificates(path: &Path, open: &Opener<'_>) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(&text(path, open)?).collect::<Result<_, _>>().map_err(|error| not_pem(path, error))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, &open_to_read)? {
        roots
            .add(certificate)
            .map_err(|error| trouble(path, &format!("holds what cannot vouch for others: {error}")))?;
    }
    if roots.is_empty() {
        return Err(trouble(
            path,
            "holds no certificate; give a PEM file with those of the authorities to be believed",
        ));
    }
    Ok(roots)
}

fn trouble(path: &Path, what: &str) -> String {
    format!("{}: {what}", path.display())
}

fn not_pem(path: &Path, error: rustls_pki_types::pem::Error) -> String {
    trouble(path, &format!("cannot be read as PEM: {error}; give a file made by your certificate authority's client"))
}

fn text(path: &Path, open: &Opener<'_>) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let all = open(path).and_then(|file| file.take(PEM_BYTES).read_to_end(&mut text));
    all.map_err(|error| trouble(path, &format!("cannot be read: {error}; name a PEM file this user can read")))?;
    Ok(text)
}

fn pair(cert: &Path, key: &Path, open: &Opener<'_>) -> Result<CertifiedKey, String> {
    let chain = certificates(cert, open)?;
    if chain.is_empty() {
        return Err(trouble(cert, "holds no certificate; tls_cert wants the PEM file with the full chain"));
    }
    let secret = PrivateKeyDer::from_pem_slice(&text(key, open)?).map_err(|error| not_pem(key, error))?;
    let certified = CertifiedKey::from_der(chain, secret, &provider::default_provider());
    certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            trouble(key, &format!("is not the key of {}; give the pair that was made together", cert.display()))
        }
        error => trouble(cert, &format!("cannot be used: {error}")),
    })
}
