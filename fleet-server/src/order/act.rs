//! Pause, resume, promote, abort, retry, approve, reject.

use std::collections::BTreeSet;

use sealift_protocol::api::{Action, DeviceProgress};
use sealift_protocol::id::{DeviceId, RolloutId, UnixMillis};

use super::{Asker, OrderError, again_if_changed, check_reason};
use crate::audit::Deed;
use crate::directive::Director;
use crate::order;
use crate::reconcile::Reconciler;
use crate::rollout::Plan;
use crate::rollout::action::{self, AtWork, BadDevices, Effect};
use crate::store::rollouts::{Order, Policy, RolloutRow};
use crate::store::{Change, StoreError, word};

/// Takes an action on a rollout.
pub(crate) async fn take(
    reconciler: &Reconciler,
    director: &Director,
    id: RolloutId,
    (action, reason): (Action, &str),
    asker: Asker<'_>,
) -> Result<(), OrderError> {
    check_reason(reason)?;
    again_if_changed(|| try_take(reconciler, director, id, (action, reason), asker)).await
}

async fn try_take(
    reconciler: &Reconciler,
    director: &Director,
    id: RolloutId,
    (action, reason): (Action, &str),
    asker: Asker<'_>,
) -> Result<(), OrderError> {
    let store = reconciler.store();
    let mut row = store.rollout(id).await?.ok_or(OrderError::NoRollout(id))?;
    // NIST SP 800-53, AC-5, separation of duties. Rule: who asked for a rollout is not who approves it, whatever their role.
    if action == Action::Approve && row.order.created_by == asker.name {
        return Err(OrderError::OwnOrder { rollout: id, by: row.order.created_by });
    }
    if let Some(by) = row.order.policy.written_by.clone().filter(|by| by == asker.name)
        && action == Action::Approve
    {
        return Err(OrderError::OwnOrder { rollout: id, by });
    }
    let effect = action::apply(action, &reconciler.rollout(&row), asker.now)
        .map_err(|why| OrderError::NotNow { rollout: id, why })?;
    if matches!(action, Action::Resume | Action::Promote | Action::Retry) {
        order::rollable(store, &row.order.model, &row.order.version).await?;
    }
    let plan = reconciler.look(&row, asker.now).await?;
    row.stage = effect.stage;
    for (wave, &standing) in row.waves.iter_mut().zip(&effect.waves) {
        wave.set_standing(standing);
    }
    if action == Action::Approve {
        (row.held_from, row.approved_by) = (None, Some(asker.name.to_owned()));
    }
    let verb = word("action", &action)?;
    row.why = format!("{verb} by {}", asker.name);
    let mut change = store.begin().await?;
    if action == Action::Start {
        row.order = started_by(asker.name, &row.order);
        change.rewrite_rollout(&row, &row.order).await?;
        row.revision += 1;
        row.turn = change.take_turn(id).await?;
    }
    change.save_rollout(&row, asker.now).await?;
    if effect.bad_devices != BadDevices::Count {
        // Seen, and gone on in spite of it: what was shown halts no more, what is shown from now on does.
        change.forget_observation(id).await?;
    }
    carry_out(&mut change, &row, &effect, &plan, (director, asker.now)).await?;
    let (action, subject) = (format!("rollout.{verb}"), id.to_string());
    let deed = Deed {
        actor: asker.name,
        action: &action,
        subject: &subject,
        reason: Some(reason),
        detail: &plan.why,
    };
    change.audit(&deed, asker.now).await?;
    change.commit().await?;
    Ok(())
}

/// Who starts a draft answers for it; who wrote it is no stranger who could approve it.
fn started_by(name: &str, order: &Order) -> Order {
    let written_by = Some(order.created_by.clone()).filter(|by| by != name);
    let written_by = written_by.or_else(|| order.policy.written_by.clone());
    let policy = Policy { written_by, ..order.policy.clone() };
    Order { created_by: name.to_owned(), policy, ..order.clone() }
}

/// What an action does to single devices.
async fn carry_out(
    change: &mut Change,
    row: &RolloutRow,
    effect: &Effect,
    plan: &Plan,
    (director, now): (&Director, UnixMillis),
) -> Result<(), StoreError> {
    let of = |wanted: fn(DeviceProgress) -> bool| {
        let found = plan.devices.iter().filter(move |(_, position)| wanted(position.progress));
        found.map(|(device, _)| device)
    };
    match effect.bad_devices {
        BadDevices::Count => (),
        BadDevices::Excuse => {
            for device in of(is_bad) {
                change.excuse(row.id, device).await?;
            }
        }
        BadDevices::OfferAgain => {
            for device in of(is_bad) {
                change.forgive(row.id, device, row.order.digest).await?;
            }
        }
    }
    if effect.devices_at_work == AtWork::TurnBack {
        for device in of(is_before_serving) {
            turn_back(change, row, device, (director, now)).await?;
        }
    }
    Ok(())
}

async fn turn_back(
    change: &mut Change,
    row: &RolloutRow,
    device: &DeviceId,
    (director, now): (&Director, UnixMillis),
) -> Result<(), StoreError> {
    let model = &row.order.model;
    let desired = change.desired(device, model).await?;
    // Untold, or told by another rollout in between: there is nothing of this rollout to take back.
    if desired.is_none_or(|slot| slot.rollout != Some(row.id)) {
        return Ok(());
    }
    match change.told_before(row.id, device).await? {
        Some(before) => {
            let device = BTreeSet::from([device.clone()]);
            change.tell(&device, &before, director, now).await?;
        }
        None => {
            change.tell_nothing(device, model, director, now).await?;
        }
    }
    Ok(())
}

const fn is_bad(progress: DeviceProgress) -> bool {
    use DeviceProgress as P;
    matches!(progress, P::Failed | P::Rejected | P::RolledBack | P::Silent)
}

const fn is_before_serving(progress: DeviceProgress) -> bool {
    use DeviceProgress as P;
    matches!(progress, P::Offered | P::InProgress | P::Offline)
}
