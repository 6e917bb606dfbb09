use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use reqwest::Client;
use rustls::ClientConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;

use super::*;
use crate::serve::testing::{REQUEST, device};
use crate::serve::{Doors, listen};

/// An authority, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key.
struct Signed {
    chain: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    fn sign(&self, usage: ExtendedKeyUsagePurpose) -> Signed {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed { chain: certificate.der().clone(), pem: certificate.pem(), key }
    }

    fn server(&self) -> Signed {
        self.sign(ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// What an application that trusts this authority connects with, with a certificate or without.
    fn settings(&self, own: Option<&Signed>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        match own {
            Some(own) => {
                let key = PrivatePkcs8KeyDer::from(own.key.serialize_der()).into();
                builder.with_client_auth_cert(vec![own.chain.clone()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        }
    }

    fn application(&self, own: Option<&Signed>) -> Client {
        let settings = self.settings(own);
        Client::builder().tls_backend_preconfigured(settings).no_proxy().build().unwrap()
    }
}

/// A device's port with TLS.
struct Port {
    folder: tempfile::TempDir,
    url: String,
}

impl Port {
    /// Opens it with files as `write` leaves them.
    async fn open(client_ca: Option<&Authority>, write: impl FnOnce(&Self)) -> Self {
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let bind = || TcpListener::bind(("127.0.0.1", 0));
        let (plain, listener) = (bind().await.unwrap(), bind().await.unwrap());
        let listen_at = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let url = format!("https://localhost:{}/v2/models/digits/infer", listen_at.port());
        let port = Self { folder, url };
        if let Some(authority) = client_ca {
            fs::write(port.path("clients.pem"), &authority.pem).unwrap();
        }
        write(&port);
        let certificates = Certificates::new(ServeTls {
            listen: listen_at,
            certificate: port.path("cert.pem"),
            key: port.path("key.pem"),
            client_ca: client_ca.map(|_| port.path("clients.pem")),
        });
        let (board, _router) = device(&["vision/digits"]).await;
        let doors = Doors { plain, socket: None, tls: Some((listener, certificates)) };
        tokio::spawn(listen(doors, board));
        port
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn install(&self, signed: &Signed) {
        fs::write(self.path("cert.pem"), &signed.pem).unwrap();
        fs::write(self.path("key.pem"), signed.key.serialize_pem()).unwrap();
    }

    async fn ask(&self, application: &Client) -> Result<u16, reqwest::Error> {
        let asked = application.post(&self.url).body(REQUEST).send().await?;
        Ok(asked.status().as_u16())
    }

    /// What is spoken inside, with one who speaks both.
    async fn protocol(&self, mut settings: ClientConfig) -> Option<Vec<u8>> {
        settings.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        let address = self.url.trim_start_matches("https://").split('/').next().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(settings));
        let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
    }
}

#[tokio::test]
async fn an_application_elsewhere_asks_over_tls_and_only_over_tls() {
    let authority = Authority::new();
    let port = Port::open(None, |port| port.install(&authority.server())).await;

    assert_eq!(port.ask(&authority.application(None)).await.unwrap(), 200);
    // gRPC needs it.
    assert_eq!(port.protocol(authority.settings(None)).await.as_deref(), Some(b"h2".as_slice()));
    assert!(port.ask(&Authority::new().application(None)).await.is_err(), "another authority");
    let plain = Client::builder().no_proxy().build().unwrap();
    let plain = plain.post(port.url.replace("https", "http")).body(REQUEST).send().await;
    assert!(plain.is_err());
}

#[tokio::test]
async fn where_applications_must_show_a_certificate_others_are_turned_away() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let clients = Authority::new();
    let port = Port::open(Some(&clients), |port| port.install(&ours.server())).await;
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let (known, foreign) = (clients.sign(usage.clone()), theirs.sign(usage));

    assert_eq!(port.ask(&ours.application(Some(&known))).await.unwrap(), 200);
    assert!(port.ask(&ours.application(None)).await.is_err());
    assert!(port.ask(&ours.application(Some(&foreign))).await.is_err());
    let server = clients.server();
    assert!(port.ask(&ours.application(Some(&server))).await.is_err(), "not for clients");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_read_again_when_they_change() {
    let authority = Authority::new();
    let port = Port::open(None, |port| {
        port.install(&authority.server());
        fs::write(port.path("key.pem"), "no key").unwrap();
    })
    .await;
    assert!(port.ask(&authority.application(None)).await.is_err());

    let files = ServeTls {
        listen: ([127, 0, 0, 1], 0).into(),
        certificate: port.path("cert.pem"),
        key: port.path("key.pem"),
        client_ca: None,
    };
    let certificates = Certificates::new(files);
    let again = |certificates: &Certificates| {
        certificates.now.lock().unwrap().looked = None;
        certificates.config()
    };
    assert!(again(&certificates).is_none());
    port.install(&authority.server());
    let first = again(&certificates).expect("a certificate and its key");
    assert!(Arc::ptr_eq(&first, &again(&certificates).unwrap()), "nothing has changed");

    fs::write(port.path("cert.pem"), "").unwrap();
    let kept = again(&certificates).expect("the one before");
    assert!(Arc::ptr_eq(&first, &kept));
    port.install(&authority.server());
    assert!(!Arc::ptr_eq(&first, &again(&certificates).unwrap()));
}
