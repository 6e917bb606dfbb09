//! TLS by the device's own idea of the time.
//!
//! A device without a clock of its own wakes up in 1970, where no certificate is valid yet. It has to reach its server to learn of
//! anything newer, so then the time of a certificate is not asked: TLS is never a reason to trust an image.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sealift_protocol::id::UnixMillis;

use crate::clock::{Clock, Reading};

/// Checks the server's certificate with everything but, perhaps, its time.
#[derive(Debug)]
pub(crate) struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    clock: Clock,
}

impl Verifier {
    /// Trusts these authorities alone.
    pub(crate) fn new(roots: RootCertStore, clock: Clock) -> Result<Arc<Self>, Error> {
        let built = WebPkiServerVerifier::builder(Arc::new(roots)).build();
        let inner = built.map_err(|error| Error::General(error.to_string()))?;
        Ok(Arc::new(Self { inner, clock }))
    }

    /// The time to check certificates at: that of the clock, or the first moment at which all of them are valid.
    fn time(&self, chain: &[&CertificateDer<'_>]) -> UnixTime {
        let Reading { now, is_trusted } = self.clock.read();
        let begin = |der: &&CertificateDer<'_>| {
            let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
            Some(UnixMillis(certificate.validity().not_before.timestamp().saturating_mul(1_000)))
        };
        let first = || chain.iter().filter_map(begin).fold(now, UnixMillis::max);
        let at = if is_trusted { now } else { first() };
        UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(at.0).unwrap_or(0)))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = [end_entity].into_iter().chain(intermediates).collect();
        let now = self.time(&chain);
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
