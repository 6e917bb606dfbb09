//! The certificate's renewal: when it is due, and what changes with it.

use sealift_protocol::id::UnixMillis;

use super::{Input, Supervisor};
use crate::identity::Identity;
use crate::key;
use crate::origin::OriginError;
use crate::renewal::{self, RenewError};
use crate::trust;
use crate::verify::{spread_permille, with_cause};

/// Expired for so long that the server does not renew it.
const LAPSED: &str = "device.certificate-lapsed";

/// Whether the server's refusal means that it takes nothing but a renewal.
pub(super) fn is_asked_for(error: &OriginError) -> bool {
    matches!(error.code(), Some("device.certificate-expired" | "device.certificate-early"))
}

impl Supervisor {
    /// Begins a renewal, if it is time.
    pub(super) fn renew_if_due(&mut self, steady: UnixMillis) {
        if !self.renewal.begin(self.clock.now(), steady) {
            return;
        }
        let (store, identity) = (self.setup.store.clone(), self.certificate.clone());
        let (origin, inputs) = (self.origin.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let renewed = renewal::renew(&store, &identity, &origin).await;
            // The supervisor may have gone meanwhile; what is on disk is whole.
            drop(inputs.send(Input::Renewed(renewed.map(Box::new))).await);
        });
    }

    /// Goes on with the new certificate, or tries again later. Whatever the server says, the device keeps what it has: the reason may
    /// be a clock.
    pub(super) fn on_renewed(&mut self, renewed: Result<Box<Identity>, RenewError>) {
        let steady = self.clock.steady();
        let identity = match renewed {
            Ok(identity) => *identity,
            Err(error) => {
                self.renewal.failed(steady, spread_permille());
                return tell(&error);
            }
        };
        let valid = identity.valid();
        tracing::info!(until = %valid.end(), "certificate renewed");
        self.renewal.renewed(&valid, steady, renewal::own_spread_permille(&identity));
        self.clock.raise_floor(*valid.start());
        self.certificate = identity;
        if let Err(reason) = self.use_certificate() {
            // The files are good; the next start uses them.
            tracing::error!(reason, "new certificate is not in use before the next start");
        }
    }

    fn use_certificate(&self) -> Result<(), String> {
        let store = &self.setup.store;
        let authorities = trust::authorities(&store.join("tuf"));
        let tls = self.certificate.tls(store, &authorities, &self.clock);
        let tls = tls.map_err(|error| with_cause(&error))?;
        self.origin.change_tls(tls.clone()).map_err(|error| error.to_string())?;
        self.tls.send_replace(tls);
        key::tidy(store, &self.certificate.key);
        Ok(())
    }
}

fn tell(error: &RenewError) {
    let reason = with_cause(error);
    if let RenewError::Server(refused) = error
        && refused.code() == Some(LAPSED)
    {
        let help = "if this device's and the server's clocks are right, make a token on the server with \
                    `fleetctl enrol create --device ID` and run `fleet-agent enrol --replace` here";
        return tracing::error!(reason, help, "certificate is too old to be renewed");
    }
    tracing::warn!(reason, "certificate is not renewed yet");
}
