//! How the device does, from the inside. Nothing in it comes from the inputs of applications.

use sealift_protocol::request::{Diagnosis, DiagnosisClock, DiagnosisModel};

use super::super::Supervisor;
use crate::serve::Live;

impl Supervisor {
    /// Everything that a person asks first, as it is now.
    pub(super) fn diagnose(&mut self) -> Diagnosis {
        let reading = self.clock.read();
        let readings = self.health.read(&self.setup.store);
        let report = self.device.report(reading.now);
        let zone = self.zone.iana_name().unwrap_or("unknown").to_owned();
        let trusted = self.trusted().unwrap_or_default();
        let directors = self.halts.directors().keys().map(ToString::to_string).collect();
        Diagnosis {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.clock.uptime().as_secs(),
            facts: self.me.facts.clone(),
            clock: DiagnosisClock { now: reading.now, is_trusted: reading.is_trusted, zone },
            memory_free_mb: readings.memory_free_mb,
            disk_free_mb: readings.disk_free_mb,
            spooled: u64::try_from(self.spool.len()).unwrap_or(u64::MAX),
            dropped: self.spool.dropped(),
            restarts: self.restarts,
            certificate_days: self.certificate.certificate_days(reading.now),
            generation: report.generation,
            slots: report.slots,
            models: self.switchboard.all().iter().map(model).collect(),
            trusted,
            directors,
            endpoint: self.endpoint.clone(),
            remote_requests: self.setup.config.remote_requests.as_str().to_owned(),
            troubles: self.troubles.iter().cloned().collect(),
        }
        .bounded()
    }
}

fn model(live: &Live) -> DiagnosisModel {
    let counters = live.counters();
    DiagnosisModel {
        model: live.model().clone(),
        version: live.image().version.clone(),
        requests: counters.requests,
        errors: counters.errors,
        latency_p95_us: counters.latency_p95_us,
        providers: live.providers().to_vec(),
    }
}
