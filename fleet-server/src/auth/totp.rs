//! Time-based one-time passwords, RFC 6238 on RFC 4226: SHA-1, six digits, thirty seconds, as every authenticator has them.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sealift_protocol::id::UnixMillis;
use sha1::Sha1;
use subtle::ConstantTimeEq as _;

/// RFC 4226, 4, R6: 160 bits are recommended.
pub(crate) const KEY_BYTES: usize = 20;
/// RFC 6238, 4.1: the time step X.
const STEP_MS: i64 = 30_000;
/// RFC 6238, 5.2: at most one step for the delay of the network, and as much for a clock that goes ahead.
const DRIFT_STEPS: i64 = 1;
const DIGITS: usize = 6;
const MODULUS: u32 = 1_000_000;
const BASE_32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The time step whose code `code` is, if it is of this moment and of none up to `used`.
///
/// RFC 6238, 5.2: the verifier must not accept a code a second time. Rule: the step of an accepted code is kept, and only later ones
/// are looked at.
pub(crate) fn step_of(key: &[u8], code: &str, now: UnixMillis, used: i64) -> Option<i64> {
    let current = now.0.div_euclid(STEP_MS);
    let steps = current - DRIFT_STEPS..=current + DRIFT_STEPS;
    // Every step is compared, whichever fits, so that time tells nothing.
    let fits = |&step: &i64| {
        let expected = code_at(key, step);
        expected.is_some_and(|expected| bool::from(expected.as_bytes().ct_eq(code.as_bytes())))
    };
    let fitting: Vec<_> = steps.filter(fits).collect();
    fitting.into_iter().find(|&step| step > used)
}

/// What an authenticator shows at a moment.
#[cfg(test)]
pub(super) fn shown(key: &[u8], now: UnixMillis) -> String {
    code_at(key, now.0.div_euclid(STEP_MS)).unwrap_or_default()
}

/// RFC 4226, 5.3: HMAC, dynamic truncation to 31 bits, the last digits.
fn code_at(key: &[u8], step: i64) -> Option<String> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).ok()?;
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest.last()? & 0x0f);
    let bytes: [u8; 4] = digest.get(offset..offset + 4)?.try_into().ok()?;
    let number = u32::from_be_bytes(bytes) & 0x7fff_ffff;
    Some(format!("{:0DIGITS$}", number % MODULUS))
}

/// RFC 4648, 6, without padding, as authenticators take keys.
pub(crate) fn base32(bytes: &[u8]) -> String {
    let digit = |bits: u32| {
        let digit = usize::try_from(bits & 31).ok().and_then(|value| BASE_32.get(value));
        digit.map_or('A', |&digit| char::from(digit))
    };
    let (mut text, mut bits, mut held) = (String::new(), 0_u32, 0_u32);
    for &byte in bytes {
        (bits, held) = ((bits << 8) | u32::from(byte), held + 8);
        while held >= 5 {
            held -= 5;
            text.push(digit(bits >> held));
        }
    }
    if held > 0 {
        text.push(digit(bits << (5 - held)));
    }
    text
}

/// Reads what [`base32`] has written.
pub(crate) fn from_base32(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for digit in text.bytes() {
        let value = BASE_32.iter().position(|&it| it == digit)?;
        (bits, held) = ((bits << 5) | u32::try_from(value).ok()?, held + 5);
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// The key as an authenticator scans or takes it.
pub(crate) fn uri(operator: &str, key: &str) -> String {
    let label: String = url::form_urlencoded::byte_serialize(operator.as_bytes()).collect();
    let label = label.replace('+', "%20");
    format!(
        "otpauth://totp/Sealift:{label}?secret={key}&issuer=Sealift&algorithm=SHA1&digits={DIGITS}&period=30"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"12345678901234567890";

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 4226, appendix D; RFC 6238, appendix B, last six digits.
        for (step, code) in [(0, "755224"), (1, "287082"), (9, "520489")] {
            assert_eq!(code_at(KEY, step).unwrap(), code);
        }
        for (seconds, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")]
        {
            assert_eq!(code_at(KEY, seconds / 30).unwrap(), code);
        }
    }

    #[test]
    fn a_code_is_good_for_a_step_before_and_after() {
        let code = code_at(KEY, 100).unwrap();
        let at = |step: i64| step_of(KEY, &code, UnixMillis(step * STEP_MS), 0);
        assert_eq!([99, 100, 101].map(at), [Some(100); 3]);
        assert_eq!([98, 102].map(at), [None; 2]);
    }

    #[test]
    fn a_code_that_was_used_is_not_good_again_nor_is_an_earlier_one() {
        let now = UnixMillis(100 * STEP_MS);
        assert_eq!(step_of(KEY, &code_at(KEY, 100).unwrap(), now, 100), None);
        assert_eq!(step_of(KEY, &code_at(KEY, 99).unwrap(), now, 100), None);
        assert_eq!(step_of(KEY, &code_at(KEY, 101).unwrap(), now, 100), Some(101));
        assert_eq!(step_of(KEY, "", now, 0), None);
    }

    #[test]
    fn base32_is_that_of_the_standard_and_goes_both_ways() {
        // RFC 4648, 10.
        for (bytes, text) in [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foobar", "MZXW6YTBOI")] {
            assert_eq!(base32(bytes.as_bytes()), text);
            assert_eq!(from_base32(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(from_base32("a1"), None);
        assert_eq!(
            uri("ann lee", "MY"),
            "otpauth://totp/Sealift:ann%20lee?secret=MY&issuer=Sealift&algorithm=SHA1&digits=6&period=30"
        );
    }
}
