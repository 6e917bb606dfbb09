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
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let digit = |bits: &[u8]| {
        let value = bits.iter().fold(0_usize, |value, bit| value * 2 + usize::from(bit - b'0'));
        let value = value << (5 - bits.len());
        BASE_32.get(value).map_or('A', |&digit| char::from(digit))
    };
    bits.as_bytes().chunks(5).map(digit).collect()
}

/// Reads what [`base32`] has written.
pub(crate) fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut bits = String::new();
    for digit in text.bytes() {
        let value = BASE_32.iter().position(|&it| it == digit)?;
        bits.push_str(&format!("{value:05b}"));
    }
    let byte = |bits: &[u8]| u8::from_str_radix(std::str::from_utf8(bits).ok()?, 2).ok();
    bits.as_bytes().chunks_exact(8).map(byte).collect()
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
