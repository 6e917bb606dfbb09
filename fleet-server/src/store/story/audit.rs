//! The audit log: nothing leaves it or changes in it unnoticed, and however many write, there is one.

use sealift_protocol::api::AuditEntry;
use sealift_protocol::audit::leaf;
use sealift_protocol::merkle::{Tree, verify_consistency, verify_inclusion};
use sealift_protocol::report::OutcomeKind;
use sealift_protocol::telemetry::{Event, Severity};

use super::*;
use crate::audit::{Deed, Notary, chained_hash};
use crate::store::Change;
use crate::store::audit::{AuditFilter, DIRECTIVE};

pub(super) async fn write(change: &mut Change, action: &str) {
    let deed = Deed { actor: "ann", action, subject: "x", reason: Some("why"), detail: "" };
    change.audit(&deed, NOW).await.unwrap();
}

async fn write_all(ground: &Ground, actions: &[&str]) {
    for action in actions {
        let mut change = ground.store.begin().await.unwrap();
        write(&mut change, action).await;
        change.commit().await.unwrap();
    }
}

fn notary(ground: &Ground) -> Notary {
    Notary::new(SigningKey::from_bytes(&[9; 32]), ground.tenant())
}

async fn first_break(ground: &Ground) -> Option<u64> {
    ground.store.audit_break(&notary(ground).public()).await.unwrap()
}

async fn tamper(ground: &Ground, statement: &'static str) {
    let mut change = ground.store.begin().await.unwrap();
    assert_eq!(change.run(statement, |it| it).await.unwrap(), 1);
    change.commit().await.unwrap();
}

pub(super) async fn edited_removed_and_cut_rows_are_named(ground: Ground) {
    write_all(&ground, &["a", "b", "c", "d"]).await;
    assert_eq!(first_break(&ground).await, None);

    tamper(&ground, "DELETE FROM audit WHERE tenant = $1 AND sequence = 4").await;
    assert_eq!(first_break(&ground).await, Some(4), "cut at the end");

    tamper(&ground, "UPDATE audit SET actor = 'bob' WHERE tenant = $1 AND sequence = 3").await;
    assert_eq!(first_break(&ground).await, Some(3), "edited");

    tamper(&ground, "DELETE FROM audit WHERE tenant = $1 AND sequence = 1").await;
    assert_eq!(first_break(&ground).await, Some(1), "removed at the begin");
}

pub(super) async fn a_row_hashed_anew_does_not_fit_the_checkpoint(ground: Ground) {
    write_all(&ground, &["a", "b"]).await;
    notary(&ground).checkpoint(&ground.store, NOW).await.unwrap();
    write_all(&ground, &["c", "d"]).await;
    notary(&ground).checkpoint(&ground.store, NOW).await.unwrap();

    let mut rows = ground.store.audit_rows(0, 10).await.unwrap();
    rows[2].actor = "bob".to_owned();
    rows[2].hash = leaf(&rows[2]).hex();
    let tree: Tree = rows.iter().map(leaf).collect();
    let peaks: Vec<_> = tree.peaks().iter().map(Digest::hex).collect();
    let mut change = ground.store.begin().await.unwrap();
    let (hash, peaks) = (rows[2].hash.clone(), peaks.join(" "));
    let statement = "UPDATE audit SET actor = 'bob', hash = $2 WHERE tenant = $1 AND sequence = 3";
    change.run(statement, |it| it.bind(hash)).await.unwrap();
    let statement = "UPDATE audit_heads SET peaks = $2 WHERE tenant = $1";
    change.run(statement, |it| it.bind(peaks)).await.unwrap();
    change.commit().await.unwrap();

    assert_eq!(first_break(&ground).await, Some(3), "the first after the last good checkpoint");
}

/// Rows as they were before the log was a tree, numbered as given.
async fn write_before(ground: &Ground, numbers: &[u64]) {
    let mut change = ground.store.begin().await.unwrap();
    let mut before = String::new();
    for &sequence in numbers {
        let mut row = AuditEntry {
            sequence,
            at: NOW,
            actor: "ann".to_owned(),
            action: "rollback".to_owned(),
            subject: format!("r-{sequence}"),
            reason: None,
            detail: String::new(),
            hash: String::new(),
        };
        row.hash = chained_hash(&row, &before);
        before.clone_from(&row.hash);
        let statement = "INSERT INTO audit (tenant, sequence, at, actor, action, subject, detail,
            hash) VALUES ($1, $2, $3, $4, $5, $6, '', $7)";
        change
            .run(statement, |it| {
                let it = it.bind(sequence.cast_signed()).bind(row.at.0).bind(row.actor);
                it.bind(row.action).bind(row.subject).bind(row.hash)
            })
            .await
            .unwrap();
    }
    change.commit().await.unwrap();
}

pub(super) async fn rows_of_before_become_leaves(ground: Ground) {
    write_before(&ground, &[1, 2, 3]).await;
    write_all(&ground, &["a"]).await;

    let rows = ground.store.audit_rows(0, 10).await.unwrap();
    let actions: Vec<_> = rows.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["rollback", "rollback", "rollback", "audit.adopt", "a"]);
    assert!(
        rows[3].detail.starts_with("3 rows of before, their chain whole"),
        "{}",
        rows[3].detail
    );
    assert_eq!(first_break(&ground).await, None);
}

pub(super) async fn holes_among_rows_of_before_stay_visible(ground: Ground) {
    write_before(&ground, &[1, 2, 4]).await;
    write_all(&ground, &["a"]).await;

    let rows = ground.store.audit_rows(0, 10).await.unwrap();
    assert_eq!((rows[2].action.as_str(), rows[3].subject.as_str()), ("audit.missing", "r-4"));
    assert!(
        rows[4].detail.ends_with("1 missing, their chain broken at row 3"),
        "{}",
        rows[4].detail
    );
    assert_eq!(first_break(&ground).await, None, "from here on every row is vouched for");
}

/// Two stores on one database are two servers.
pub(super) async fn many_writers_do_not_fork_the_log(ground: Ground) {
    const WRITERS: usize = 12;
    const CHANGES: usize = 10;
    let other = Store::open(&ground.url).await.unwrap().tenant(ground.tenant());
    let stores = [ground.store.clone(), other];
    let writers = (0..WRITERS).map(|writer| {
        let store = stores[writer % stores.len()].clone();
        tokio::spawn(async move {
            for number in 0..CHANGES {
                let mut change = store.begin().await.unwrap();
                for row in 0..3 {
                    write(&mut change, &format!("w{writer}.{number}.{row}")).await;
                }
                change.commit().await.unwrap();
            }
        })
    });
    futures_util::future::try_join_all(writers).await.unwrap();

    let rows = ground.store.audit_rows(0, 1_000).await.unwrap();
    assert_eq!(rows.len(), WRITERS * CHANGES * 3);
    assert_eq!(first_break(&ground).await, None);
    let together = rows.chunks(3).all(|rows| {
        let own = |row: &AuditEntry| row.action.rsplit_once('.').unwrap().0.to_owned();
        rows.iter().all(|row| own(row) == own(&rows[0]))
    });
    assert!(together, "the rows of a change stand together");
}

pub(super) async fn proofs_from_tiles_verify(ground: Ground) {
    const ROWS: u64 = 3_100;
    let mut change = ground.store.begin().await.unwrap();
    for row in 0..ROWS {
        write(&mut change, &row.to_string()).await;
    }
    change.commit().await.unwrap();

    let mut leaves = Vec::new();
    for after in (0..ROWS).step_by(1_000) {
        leaves.extend(ground.store.audit_rows(after, 1_000).await.unwrap().iter().map(leaf));
    }
    let root = |size: u64| {
        leaves[..usize::try_from(size).unwrap()].iter().copied().collect::<Tree>().root()
    };
    assert_eq!(ground.store.audit_head().await.unwrap().root(), root(ROWS));
    for size in [1, 1_023, 1_024, 1_025, 2_048, 2_049, 3_072, ROWS] {
        for row in [1, size / 2 + 1, size] {
            let proof = ground.store.audit_inclusion(row, size).await.unwrap().unwrap();
            let leaf = leaves[usize::try_from(row - 1).unwrap()];
            verify_inclusion(leaf, (row - 1, size), &proof, &root(size)).unwrap();
        }
        let proof = ground.store.audit_consistency(size, ROWS).await.unwrap().unwrap();
        verify_consistency((size, &root(size)), (ROWS, &root(ROWS)), &proof).unwrap();
    }
    for (row, size) in [(0, 5), (6, 5), (1, ROWS + 1)] {
        assert!(ground.store.audit_inclusion(row, size).await.unwrap().is_err());
    }
    assert_eq!(first_break(&ground).await, None);

    tamper(&ground, "UPDATE audit_tiles SET hash = '' WHERE tenant = $1 AND number = 1").await;
    let broken = ground.store.audit_break(&notary(&ground).public()).await;
    assert!(broken.is_err(), "a tile that is no hash");
}

pub(super) async fn rows_are_found_by_who_what_and_when(ground: Ground) {
    let mut change = ground.store.begin().await.unwrap();
    for (actor, action, subject, at) in [
        ("ann", "rollback", "r-1", 1),
        ("bob", "rollback", "r-2", 2),
        ("ann", "device.revoke", "cam-1", 3),
        ("server", DIRECTIVE, "cam-1", 4),
    ] {
        let deed = Deed { actor, action, subject, reason: None, detail: "" };
        change.audit(&deed, UnixMillis(at)).await.unwrap();
    }
    change.commit().await.unwrap();

    let text = |text: &str| text.to_owned();
    let all = AuditFilter { with_directives: true, ..AuditFilter::default() };
    for (filter, expected) in [
        (AuditFilter::default(), vec![3, 2, 1]),
        (all.clone(), vec![4, 3, 2, 1]),
        (AuditFilter { actor: text("ann"), ..AuditFilter::default() }, vec![3, 1]),
        (AuditFilter { action: text("rollback"), ..AuditFilter::default() }, vec![2, 1]),
        (AuditFilter { action: text(DIRECTIVE), ..AuditFilter::default() }, vec![4]),
        (AuditFilter { subject: text("cam-1"), ..all.clone() }, vec![4, 3]),
        (AuditFilter { actor: text("ann"), subject: text("r-2"), ..all.clone() }, vec![]),
        (AuditFilter { from: Some(UnixMillis(2)), until: Some(UnixMillis(4)), ..all }, vec![3, 2]),
        (AuditFilter { actor: text("' OR 1 = 1 --"), ..AuditFilter::default() }, vec![]),
    ] {
        let found = ground.store.audit_log(&filter, None, 10).await.unwrap();
        let numbers: Vec<_> = found.iter().map(|row| row.sequence).collect();
        assert_eq!(numbers, expected, "{filter:?}");
        let count = ground.store.audit_count(&filter).await.unwrap();
        assert_eq!(count, expected.len() as u64, "{filter:?}");
    }
}

pub(super) async fn every_directive_is_a_row(ground: Ground) {
    let mut devices = ground.fleet(3).await;
    ground.push("1").await;
    ground.roll_out("1").await;
    ground.settle(&mut devices, OutcomeKind::Committed).await;

    let filter = AuditFilter { action: DIRECTIVE.to_owned(), ..AuditFilter::default() };
    let rows = ground.store.audit_log(&filter, None, 10).await.unwrap();
    assert_eq!(rows.len(), 3);
    for device in &devices {
        let body = ground.store.signed_directive(&device.id).await.unwrap().unwrap();
        let row = rows.iter().find(|row| row.subject == device.id.as_str()).unwrap();
        assert!(row.detail.ends_with(&Digest::of(&body).to_string()), "{}", row.detail);
    }
    assert_eq!(first_break(&ground).await, None);
}

pub(super) async fn a_flood_of_security_events_is_cut(ground: Ground) {
    let mut cam = ground.enrol("cam-1", &[]).await;
    ground.connect(&cam, NOW).await;
    for number in 0..25 {
        let event = Event {
            code: format!("code-{number}"),
            severity: Severity::Security,
            text: "refused".to_owned(),
            model: None,
            image: None,
            at: NOW,
        };
        let message = cam.envelope(codec::encode(&event).unwrap());
        ground.accept(&cam.id, Up::Event, &message, NOW).await.unwrap();
    }

    let filter = AuditFilter { actor: "device:cam-1".to_owned(), ..AuditFilter::default() };
    assert_eq!(ground.store.audit_count(&filter).await.unwrap(), 10);
    assert_eq!(ground.store.timeline_length(&cam.id).await.unwrap(), 26, "with its connection");
}
