//! Which models may be unloaded for others: those that the device's owner has marked, while nothing is to be proved of them.

use sealift_protocol::report::Phase;

use super::Supervisor;

impl Supervisor {
    /// Tells the workers whether they may rest, and has room made where the budget is exceeded.
    ///
    /// An image on trial must answer, or it would be taken for one that does not work; one that is kept warm is there to stand in at once.
    pub(super) fn share_memory(&self) {
        let Some(budget) = self.workers.budget.clone() else { return };
        for slot in self.device.report(self.clock.steady()).slots {
            let is_settled = matches!(slot.phase, Phase::Idle | Phase::Watch);
            let is_marked = self.setup.config.on_demand.contains(&slot.model);
            if let Some(live) = self.switchboard.live(&slot.model) {
                live.worker().let_sleep(is_settled && is_marked);
            }
        }
        for kept in self.workers.kept.values() {
            kept.live.worker().let_sleep(false);
        }
        self.serving.handle().spawn(async move { budget.make_room(0).await });
    }
}
