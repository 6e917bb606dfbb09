//! Passwords of local accounts: argon2id, on threads of their own, a few at a time.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

/// OWASP Password Storage Cheat Sheet, argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashed at a time: 40 MB and two processors, so that guessing does not starve devices.
const AT_A_TIME: usize = 2;
/// RFC 9106, 3.1: 128 bits of salt suffice.
const SALT_BYTES: usize = 16;
/// NIST SP 800-63B, 3.1.1: length is what counts, and there are no rules of composition.
const CHARS_MIN: usize = 12;
/// The hash takes any length; a form does not.
const BYTES_MAX: usize = 512;

/// Stands in for the hash of an account that is not there, so that its absence takes as long as a wrong password: a hash of 32 random
/// bytes that nobody kept, with the parameters above.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$TTZ4d0FzZ2s4Y1V0b0R1Ug$Zm9yIG5vYm9keTogdGhpcyBpcyBubyBoYXNoLi4uLi4";

/// Why a password was neither hashed nor compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    /// Too short, too long, or the name again.
    #[error(
        "a password has {CHARS_MIN} characters or more, {BYTES_MAX} bytes at most, and is not the operator's name"
    )]
    Rule,
    /// No random bytes for the salt.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The hash itself.
    #[error("the password cannot be hashed")]
    Hash(#[source] argon2::password_hash::Error),
    /// The threads are gone: the server ends.
    #[error("the server is stopping")]
    Stopping,
}

/// Hashes and compares passwords; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    room: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(AT_A_TIME)) }
    }
}

impl Passwords {
    /// Hashes a new password, with a salt of its own.
    pub(crate) async fn hash(&self, name: &str, password: String) -> Result<String, PasswordError> {
        let is_long_enough = password.chars().count() >= CHARS_MIN && password.len() <= BYTES_MAX;
        if !is_long_enough || password.to_lowercase().contains(&name.to_lowercase()) {
            return Err(PasswordError::Rule);
        }
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(PasswordError::Random)?;
        let hash = move || hasher()?.hash_password_with_salt(password.as_bytes(), &salt);
        let hash = self.on_a_thread(hash).await?.map_err(PasswordError::Hash)?;
        Ok(hash.to_string())
    }

    /// Whether `password` is the one of `stored`. Without `stored` it takes as long, and is wrong.
    pub(crate) async fn is_right(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        if password.len() > BYTES_MAX {
            return Ok(false);
        }
        let is_somebody = stored.is_some();
        let stored = stored.unwrap_or_else(|| NOBODY.to_owned());
        let compare = move || {
            let hash = PasswordHash::new(&stored)?;
            // Rule: parameters come from the stored hash, so that older accounts go on working when they are raised.
            Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
        };
        let compared = self.on_a_thread(compare).await?.map_err(PasswordError::Hash)?;
        Ok(compared && is_somebody)
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, argon2::password_hash::Error> + Send + 'static,
    ) -> Result<Result<T, argon2::password_hash::Error>, PasswordError> {
        let permit = Arc::clone(&self.room).acquire_owned().await;
        let permit = permit.map_err(|_| PasswordError::Stopping)?;
        let work = move || {
            let done = work();
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Stopping)
    }
}

fn hasher() -> Result<Argon2<'static>, argon2::password_hash::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_recognised_and_another_is_not() {
        let passwords = Passwords::default();
        let hash = passwords.hash("ann", "correct horse battery".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");

        let is_right = async |given: &str, stored: Option<&str>| {
            passwords.is_right(given.to_owned(), stored.map(str::to_owned)).await.unwrap()
        };
        assert!(is_right("correct horse battery", Some(&hash)).await);
        assert!(!is_right("correct horse batterz", Some(&hash)).await);
        assert!(!is_right("correct horse battery", None).await);
    }

    #[tokio::test]
    async fn one_password_has_two_hashes() {
        let passwords = Passwords::default();
        let hash =
            async || passwords.hash("ann", "correct horse battery".to_owned()).await.unwrap();
        assert_ne!(hash().await, hash().await);
    }

    #[tokio::test]
    async fn short_passwords_and_names_are_refused() {
        let passwords = Passwords::default();
        for password in ["short", "Annelise-Annelise", &"x".repeat(513)] {
            let refused = passwords.hash("annelise", password.to_owned()).await;
            assert!(matches!(refused, Err(PasswordError::Rule)), "{password}");
        }
    }

    #[test]
    fn the_hash_of_nobody_costs_what_a_real_one_does() {
        let hash = PasswordHash::new(NOBODY).unwrap();
        let params = Params::try_from(&hash).unwrap();
        assert_eq!(
            (params.m_cost(), params.t_cost(), params.p_cost()),
            (MEMORY_KIB, PASSES, LANES)
        );
        assert!(hash.hash.is_some_and(|output| output.len() == 32));
    }
}
