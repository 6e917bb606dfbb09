//! Local accounts: made, changed, logged in to, and confirmed with.

use sealift_protocol::api::{
    LoginMethod, LoginToken, OperatorChange, OperatorNew, OperatorSaved, PasswordLogin, Role,
};
use sealift_protocol::id::UnixMillis;

use super::{Auth, AuthError, Entry, NewSession, Purpose, Visit, hash, totp};
use crate::audit::Deed;
use crate::reach::Reach;
use crate::store::operators::{Account, Operator, Secrets};
use crate::store::{Change, StoreError, word};

/// Codes for when the authenticator is lost.
const RECOVERY_CODES: usize = 8;
/// 80 bits each: nobody guesses one, and people still type it.
const RECOVERY_BYTES: usize = 10;

/// What somebody shows besides their password, or instead of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Factor {
    /// The account has no authenticator.
    NotNeeded,
    /// A code of this time step.
    Step(i64),
    /// Perhaps a recovery code: the store knows.
    Recovery,
}

impl Auth {
    /// Logs a local account in to the console.
    pub(crate) async fn log_in_with_password(
        &self,
        login: PasswordLogin,
        visit: &Visit,
        now: UnixMillis,
    ) -> Result<NewSession, AuthError> {
        let entry = self.recognise(login, visit, now).await?;
        self.begin_session(entry, visit, now).await
    }

    /// Logs a local account in with `fleetctl`.
    pub(crate) async fn token_with_password(
        &self,
        login: PasswordLogin,
        visit: &Visit,
        now: UnixMillis,
    ) -> Result<LoginToken, AuthError> {
        let entry = self.recognise(login, visit, now).await?;
        self.begin_token(entry, visit, now).await
    }

    /// Rule (OWASP Authentication Cheat Sheet, "authentication and error messages"): one answer for a wrong name, password and code, after
    /// the same work. Each account and each address may be wrong a few times in a while.
    async fn recognise(
        &self,
        login: PasswordLogin,
        visit: &Visit,
        now: UnixMillis,
    ) -> Result<Entry, AuthError> {
        let PasswordLogin { operator: name, password, code, .. } = login;
        let key = name.to_lowercase();
        if self.of_account.is_over(&key, now) {
            return Err(AuthError::TooMany);
        }
        let account = self.store.account(&name).await?;
        let stored = account.as_ref().and_then(|account| account.password.clone());
        let is_right = self.passwords.is_right(password, stored).await?;
        let enabled = account.filter(|account| account.disabled_at.is_none());
        let known = enabled.as_ref().map(|account| account.operator.name.clone());
        if let Some(account) = enabled.filter(|_| is_right)
            && self.takes_factor(&account, &code, now).await?
        {
            self.of_account.clear(&key);
            let operator = account.operator;
            return Ok(Entry { operator, method: LoginMethod::Password, is_account: true });
        }
        self.of_account.add(&key, now);
        let known = known.as_deref().unwrap_or("unknown");
        self.refused(visit, known, "wrong password or code", now).await?;
        Err(AuthError::Wrong)
    }

    /// Whether `code` is good as the second factor of `account`, and uses it up.
    async fn takes_factor(
        &self,
        account: &Account,
        code: &str,
        now: UnixMillis,
    ) -> Result<bool, AuthError> {
        let factor = self.factor(account, code, now);
        let name = &account.operator.name;
        let mut change = self.store.begin().await?;
        let is_good = match factor {
            Factor::NotNeeded => true,
            Factor::Step(step) => change.use_totp_step(name, step).await?,
            Factor::Recovery => change.use_recovery_code(name, hash(&plain(code))).await?,
        };
        change.commit().await?;
        Ok(is_good)
    }

    /// Whether `secret` is the password of a local account, or a code of its authenticator that was not used yet.
    pub(crate) async fn confirms(
        &self,
        name: &str,
        secret: String,
        visit: &Visit,
        now: UnixMillis,
    ) -> Result<(), AuthError> {
        let key = name.to_lowercase();
        if self.of_account.is_over(&key, now) {
            return Err(AuthError::TooMany);
        }
        let Some(account) = self.store.account(name).await? else {
            return Err(AuthError::NotLocal(name.to_owned()));
        };
        let Some(stored) = account.password.clone() else {
            return Err(AuthError::NotLocal(name.to_owned()));
        };
        let has_code = account.totp.is_some() && self.takes_factor(&account, &secret, now).await?;
        if has_code || self.passwords.is_right(secret, Some(stored)).await? {
            self.of_account.clear(&key);
            return Ok(());
        }
        self.of_account.add(&key, now);
        self.refused(visit, name, "wrong password or code to confirm with", now).await?;
        Err(AuthError::Wrong)
    }

    /// Makes a local account. The answer is the only time that its secrets are shown.
    pub(crate) async fn create_account(
        &self,
        new: OperatorNew,
        by: &str,
        now: UnixMillis,
    ) -> Result<OperatorSaved, AuthError> {
        let operator = super::operator(&new.name, new.role, &new.scope)?;
        let made = self.make_secrets(&operator.name, new.password, !new.without_totp).await?;
        let mut change = self.store.begin().await?;
        if !change.add_account(&operator, &made.kept, (by, now)).await? {
            return Err(AuthError::Taken(operator.name));
        }
        let detail = access_text(&operator)?;
        audit(&mut change, (by, "operator.create", &operator.name), &detail, now).await?;
        change.commit().await?;
        self.saved(&operator.name, Some(made)).await
    }

    /// Changes an account. Whatever changes, its sessions and tokens end: they carry what it could do before.
    pub(crate) async fn change_account(
        &self,
        name: &str,
        wish: OperatorChange,
        by: &str,
        now: UnixMillis,
    ) -> Result<OperatorSaved, AuthError> {
        let account = self.store.account(name).await?;
        let account = account.ok_or_else(|| AuthError::Unknown(name.to_owned()))?;
        let role = wish.role.unwrap_or(account.operator.role);
        let scope = wish.scope.as_deref().unwrap_or(&account.operator.scope);
        let operator = super::operator(name, role, scope)?;
        let disabled_at = match wish.disabled {
            Some(true) => Some(account.disabled_at.unwrap_or(now)),
            Some(false) => None,
            None => account.disabled_at,
        };
        let made = match wish.password {
            Some(_) if account.password.is_none() => {
                return Err(AuthError::NotLocal(name.to_owned()));
            }
            Some(password) => {
                Some(self.make_secrets(name, password, account.totp.is_some()).await?)
            }
            None => None,
        };
        let mut change = self.store.begin().await?;
        change.set_access(&operator, disabled_at).await?;
        if let Some(made) = &made {
            change.set_secrets(name, &made.kept).await?;
        }
        let ended = change.end_everything_of(name).await?;
        let detail = format!(
            "{}{}{}; {ended} sessions and tokens ended",
            access_text(&operator)?,
            if disabled_at.is_some() { ", locked out" } else { "" },
            if made.is_some() { ", new password" } else { "" },
        );
        audit(&mut change, (by, "operator.change", name), &detail, now).await?;
        change.commit().await?;
        self.saved(name, made).await
    }

    async fn saved(&self, name: &str, made: Option<Made>) -> Result<OperatorSaved, AuthError> {
        let account = self.store.account(name).await?;
        let account = account.ok_or_else(|| AuthError::Unknown(name.to_owned()))?;
        let (totp_uri, recovery_codes) =
            made.map(|made| (made.totp_uri, made.recovery_codes)).unwrap_or_default();
        Ok(OperatorSaved { operator: account.view(), totp_uri, recovery_codes })
    }

    async fn make_secrets(
        &self,
        name: &str,
        password: String,
        with_totp: bool,
    ) -> Result<Made, AuthError> {
        let password = self.passwords.hash(name, password).await?;
        if !with_totp {
            let kept = Secrets { password, totp_key: None, recovery: Vec::new() };
            return Ok(Made { kept, totp_uri: None, recovery_codes: Vec::new() });
        }
        let key = totp::base32(&random::<{ totp::KEY_BYTES }>()?);
        let code = |_| Ok(grouped(&totp::base32(&random::<RECOVERY_BYTES>()?)));
        let recovery_codes: Vec<_> =
            (0..RECOVERY_CODES).map(code).collect::<Result<_, AuthError>>()?;
        let recovery = recovery_codes.iter().map(|code| hash(&plain(code))).collect();
        let totp_uri = Some(totp::uri(name, &key));
        let totp_key = Some(self.seal.seal(Purpose::Totp, name, &key)?);
        let kept = Secrets { password, totp_key, recovery };
        Ok(Made { kept, totp_uri, recovery_codes })
    }

    /// What a code is. An authenticator's key that cannot be opened lets no code in; the recovery codes still work.
    fn factor(&self, account: &Account, code: &str, now: UnixMillis) -> Factor {
        let Some((sealed, used)) = &account.totp else { return Factor::NotNeeded };
        let key = self.seal.open(Purpose::Totp, &account.operator.name, sealed);
        let key = key.and_then(|key| totp::from_base32(&key));
        match key.and_then(|key| totp::step_of(&key, &plain(code), now, *used)) {
            Some(step) => Factor::Step(step),
            None => Factor::Recovery,
        }
    }
}

/// Secrets that were just made: what is kept of them, and what is shown once.
struct Made {
    kept: Secrets,
    totp_uri: Option<String>,
    recovery_codes: Vec<String>,
}

/// A code as it was made, however it was typed.
fn plain(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase()
}

fn grouped(code: &str) -> String {
    let (first, rest) = code.split_at(code.len() / 2);
    format!("{first}-{rest}")
}

fn random<const N: usize>() -> Result<[u8; N], AuthError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(AuthError::Random)?;
    Ok(bytes)
}

fn access_text(operator: &Operator) -> Result<String, StoreError> {
    let Operator { role, scope, .. } = operator;
    Ok(format!("role {}, scope `{scope}`", word::<Role>("role", role)?))
}

async fn audit(
    change: &mut Change,
    (actor, action, subject): (&str, &str, &str),
    detail: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    change.audit(&Deed { actor, action, subject, reason: None, detail }, now).await
}

/// What an operator reaches. It was checked before it was stored; what cannot be read reaches nothing.
pub(crate) fn reach_of(operator: &Operator) -> Result<Reach, AuthError> {
    Ok(Reach::parse(&operator.scope)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_code_is_recognised_however_it_is_typed() {
        let code = grouped("ABCDEFGHIJKLMNOP");
        assert_eq!(code, "ABCDEFGH-IJKLMNOP");
        assert_eq!(plain(" abcdefgh ijklmnop"), plain(&code));
    }
}
