use super::*;
use crate::cose::Purpose;

const NOW: i64 = 1_500_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn tenant() -> TenantId {
    TenantId::parse("main").unwrap()
}

fn slot(model: &str) -> DesiredSlot {
    let model = ModelName::parse(model).unwrap();
    let version = Version::parse("2").unwrap();
    let slot = DesiredSlot::new(model, version, Digest::of(b"index"));
    DesiredSlot { epoch: Epoch(1), rollout: Some(RolloutId(3)), ..slot }
}

/// A slot with everything that a directive can say.
fn full_slot(model: &str) -> DesiredSlot {
    let slot = slot(model);
    let version = Version::parse("1").unwrap();
    DesiredSlot {
        campaign: Some(Digest::of(b"campaign")),
        target_path: Some(slot.target()),
        manifest: Some(Digest::of(b"manifest")),
        fallback: Some(ImageRef { version, index: Digest::of(b"fallback") }),
        ..slot
    }
}

fn directive() -> Directive {
    let whom = (tenant(), DeviceId::parse("cam-1").unwrap());
    let window = (UnixMillis(1_000_000), UnixMillis(2_000_000));
    Directive::new(whom, Generation(5), window, vec![slot("vision/digits")])
}

fn directors(seed: u8) -> BTreeMap<KeyId, VerifyingKey> {
    let public = key(seed).verifying_key();
    BTreeMap::from([(KeyId::of(&public), public)])
}

fn verify_as(message: &[u8], tenant: &str, device: &str, newest: u64, now: i64) -> &'static str {
    let tenant = TenantId::parse(tenant).unwrap();
    let device = DeviceId::parse(device).unwrap();
    let (newest, now) = (Generation(newest), UnixMillis(now));
    let audience = Audience { tenant: &tenant, device: &device, newest, now };
    let verified = Directive::verify(message, &directors(7), &audience);
    verified.map_or_else(|refused| refused.code(), |_| "ok")
}

/// What `cam-1`, which has followed generation 4, makes of a message.
fn verify(message: &[u8]) -> &'static str {
    verify_as(message, "main", "cam-1", 4, NOW)
}

fn signed(directive: &Directive) -> Vec<u8> {
    directive.sign(&key(7)).unwrap()
}

/// The director's signature over a payload of the attacker's choice: even a stolen key does not get it parsed.
fn signed_payload(payload: Vec<u8>) -> Vec<u8> {
    cose::sign(payload, Purpose::Directive, &key(7)).unwrap()
}

#[test]
fn a_directive_for_this_device_is_accepted() {
    assert_eq!(verify(&signed(&directive())), "ok");
    let mut full = directive();
    full.slots = vec![full_slot("vision/digits")];
    assert_eq!(verify(&signed(&full)), "ok");
}

#[test]
fn a_replayed_directive_is_refused() {
    let message = signed(&directive());
    assert_eq!(verify_as(&message, "main", "cam-1", 5, NOW), "directive.stale");
    assert_eq!(verify_as(&message, "main", "cam-1", u64::MAX, NOW), "directive.stale");
}

#[test]
fn another_devices_directive_is_refused() {
    assert_eq!(verify_as(&signed(&directive()), "main", "cam-2", 4, NOW), "directive.audience");
}

#[test]
fn another_tenants_directive_is_refused() {
    assert_eq!(verify_as(&signed(&directive()), "other", "cam-1", 4, NOW), "directive.audience");
}

#[test]
fn a_directive_of_a_key_that_is_not_a_directors_is_refused() {
    assert_eq!(verify(&directive().sign(&key(8)).unwrap()), "cose.key");
}

#[test]
fn a_directive_not_yet_or_no_longer_valid_is_refused() {
    let message = signed(&directive());
    assert_eq!(verify_as(&message, "main", "cam-1", 4, 2_000_001), "directive.window");
    assert_eq!(verify_as(&message, "main", "cam-1", 4, 0), "directive.window");
    assert_eq!(verify_as(&message, "main", "cam-1", 4, i64::MIN), "directive.window");
    assert_eq!(verify_as(&message, "main", "cam-1", 4, i64::MAX), "directive.window");
    // A device's clock may be five minutes behind.
    assert_eq!(verify_as(&message, "main", "cam-1", 4, 1_000_000 - 300_000), "ok");
    assert_eq!(verify_as(&message, "main", "cam-1", 4, 1_000_000 - 300_001), "directive.window");
}

#[test]
fn a_signature_made_for_another_purpose_is_refused() {
    for purpose in [Purpose::Halt, Purpose::Request, Purpose::Approval] {
        let payload = codec::encode(&directive()).unwrap();
        assert_eq!(verify(&cose::sign(payload, purpose, &key(7)).unwrap()), "cose.signature");
    }
}

#[test]
fn every_flipped_bit_of_a_directive_is_refused() {
    let message = signed(&directive());
    for bit in 0..message.len() * 8 {
        let mut message = message.clone();
        message[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(verify(&message), "ok", "bit {bit}");
    }
}

#[test]
fn cbor_a_million_levels_deep_is_refused_unsigned_and_signed() {
    let bomb = vec![0x81; 1_000_000];
    assert_eq!(verify(&bomb), "cose.form");
    assert_eq!(verify(&bomb[..DIRECTIVE_BYTES_MAX]), "cose.form");
    assert_eq!(verify(&signed_payload(bomb[..60_000].to_vec())), "directive.form");
}

#[test]
fn a_declared_length_of_2_to_the_63_is_refused_without_memory() {
    let mut array = vec![0xd2, 0x9b, 0x80];
    array.extend([0; 7]);
    assert_eq!(verify(&array), "cose.form");
    let mut bytes = vec![0xd2, 0x84, 0x5b, 0x80];
    bytes.extend([0; 7]);
    assert_eq!(verify(&bytes), "cose.form");
    let mut map = vec![0xbb, 0x80];
    map.extend([0; 7]);
    assert_eq!(verify(&signed_payload(map)), "directive.form");
}

#[test]
fn trailing_bytes_are_refused_outside_and_inside_of_the_signature() {
    let mut message = signed(&directive());
    message.push(0xf6);
    assert_eq!(verify(&message), "cose.form");
    let mut payload = codec::encode(&directive()).unwrap();
    payload.push(0xf6);
    assert_eq!(verify(&signed_payload(payload)), "directive.form");
}

#[test]
fn more_than_64_kib_are_refused_before_they_are_parsed() {
    let mut message = signed(&directive());
    message.resize(DIRECTIVE_BYTES_MAX + 1, 0);
    assert_eq!(verify(&message), "cose.form");
}

#[test]
fn one_model_in_two_slots_and_too_many_slots_are_refused() {
    let mut twice = directive();
    twice.slots.push(twice.slots[0].clone());
    assert_eq!(verify(&signed(&twice)), "directive.slots");
    let mut many = directive();
    many.slots = (0..=SLOTS_MAX).map(|number| slot(&format!("vision/m-{number}"))).collect();
    assert_eq!(verify(&signed(&many)), "directive.slots");
}

#[test]
fn another_format_version_is_refused() {
    let mut directive = directive();
    directive.version = 2;
    assert_eq!(verify(&signed(&directive)), "directive.version");
}

#[test]
fn a_target_of_another_model_or_version_is_refused() {
    for path in ["models/vision/digits/1", "models/audio/digits/2", "../models/vision/digits/2", ""]
    {
        let mut directive = directive();
        directive.slots[0].target_path = Some(path.to_owned());
        assert_eq!(verify(&signed(&directive)), "directive.target", "{path}");
    }
}

#[test]
fn a_directive_for_six_models_with_everything_said_fits_4_kilobytes() {
    let approval = approval(&full_slot("vision/digits")).sign(&key(9)).unwrap();
    let slots = (0..6).map(|number| full_slot(&format!("vision/digits-{number}")));
    let mut directive = directive();
    directive.slots = slots.collect();
    directive.slots[0].cosignature = Some(approval);
    let bytes = signed(&directive).len();
    assert!(bytes < 4 << 10, "{bytes} bytes");
}

/// The bytes that the first release wrote; they are read for ever.
#[test]
fn a_directive_without_the_fields_that_came_later_is_read() {
    #[derive(Serialize)]
    struct FirstSlot {
        model: &'static str,
        version: &'static str,
        index: Digest,
        epoch: u64,
    }
    #[derive(Serialize)]
    struct First {
        version: u16,
        tenant: &'static str,
        device: &'static str,
        generation: u64,
        issued_at: i64,
        not_after: i64,
        slots: [FirstSlot; 1],
    }
    let index = Digest::of(b"index");
    let slot = FirstSlot { model: "vision/digits", version: "2", index, epoch: 1 };
    let (issued_at, not_after) = (1_000_000, 2_000_000);
    let (tenant, device, generation) = ("main", "cam-1", 5);
    let first =
        First { version: 1, tenant, device, generation, issued_at, not_after, slots: [slot] };
    assert_eq!(verify(&signed_payload(codec::encode(&first).unwrap())), "ok");
}

fn approval(slot: &DesiredSlot) -> Approval {
    Approval {
        tenant: tenant(),
        campaign: slot.campaign.unwrap(),
        model: slot.model.clone(),
        version: slot.version.clone(),
        index: slot.index,
    }
}

fn approved(slot: &DesiredSlot) -> &'static str {
    let checked = slot.check_approval(&tenant(), &directors(9));
    checked.map_or_else(|refused| refused.code(), |_| "ok")
}

#[test]
fn an_operators_signature_counts_for_its_own_rollout_and_image_alone() {
    let mut slot = full_slot("vision/digits");
    assert_eq!(approved(&slot), "cosign.missing");

    slot.cosignature = Some(approval(&slot).sign(&key(9)).unwrap());
    assert_eq!(approved(&slot), "ok");

    let index = DesiredSlot { index: Digest::of(b"another image"), ..slot.clone() };
    let campaign = DesiredSlot { campaign: Some(Digest::of(b"another")), ..slot.clone() };
    let none = DesiredSlot { campaign: None, ..slot.clone() };
    let version = DesiredSlot { version: Version::parse("3").unwrap(), ..slot.clone() };
    for other in [index, campaign, none, version] {
        assert_eq!(approved(&other), "cosign.other");
    }
    let other = TenantId::parse("other").unwrap();
    assert_eq!(slot.check_approval(&other, &directors(9)).unwrap_err().code(), "cosign.other");
}

#[test]
fn the_directors_own_key_is_not_an_operators() {
    let mut slot = full_slot("vision/digits");
    slot.cosignature = Some(approval(&slot).sign(&key(7)).unwrap());
    assert_eq!(approved(&slot), "cosign.signature");
}

#[test]
fn a_directive_is_no_approval() {
    let mut slot = full_slot("vision/digits");
    let payload = codec::encode(&approval(&slot)).unwrap();
    let message = cose::sign(payload, Purpose::Directive, &key(9)).unwrap();
    slot.cosignature = Some(Cosignature(message));
    assert_eq!(approved(&slot), "cosign.signature");
    let payload = codec::encode(&"yes").unwrap();
    let message = cose::sign(payload, Purpose::Approval, &key(9)).unwrap();
    slot.cosignature = Some(Cosignature(message));
    assert_eq!(approved(&slot), "cosign.form");
}
