//! `fleetctl login`, `fleetctl logout`.

use std::io;
use std::time::Duration;

use anyhow::bail;
use sealift_protocol::api::{
    DeviceLogin, DevicePoll, DeviceProgressed, LoginToken, PasswordLogin, SessionView,
};

use super::operator::read_password;
use crate::cli::Login;
use crate::client::Client;
use crate::context::Context;
use crate::output::{note, prompt_secret, word};

/// The longest that a provider may make us wait between two questions.
const INTERVAL_S_MAX: u32 = 60;
/// The longest that somebody may take to confirm.
const CONFIRM_S_MAX: u32 = 1_800;

/// Remembers a server and a token after they have worked once.
pub(crate) async fn login(login: Login) -> anyhow::Result<()> {
    let nobody = Client::new(Context { url: login.server.clone(), token: String::new() })?;
    let token = match (login.api_token, login.user) {
        (Some(token), _) => token,
        (None, Some(user)) => with_password(&nobody, user).await?,
        (None, None) if login.oidc => with_provider(&nobody).await?,
        (None, None) => ask_token()?,
    };
    let context = Context { url: login.server, token };
    let client = Client::new(context.clone())?;
    let session: SessionView = client.get("session", &[]).await?;
    let file = context.save()?;
    let roles: Vec<_> = session.roles.into_iter().map(word).collect();
    let scope = if session.scope.is_empty() { "all devices" } else { &session.scope };
    note(&format!(
        "logged in to {} as {} ({}; {scope}); kept in {}",
        context.url,
        session.operator,
        roles.join(", "),
        file.display(),
    ));
    Ok(())
}

fn ask_token() -> anyhow::Result<String> {
    if let Some(token) = prompt_secret("API token (made with `fleet-server token create`): ")? {
        return Ok(token.trim().to_owned());
    }
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

async fn with_password(nobody: &Client, operator: String) -> anyhow::Result<String> {
    let password = read_password(None, "password: ")?;
    let code = read_password(None, "code of the authenticator (empty without one): ")?;
    let login = PasswordLogin { operator, password, code, wants_token: true };
    let answer: LoginToken = nobody.post("session/password", &login).await?;
    Ok(answer.token)
}

/// RFC 8628: somebody confirms in a browser, here or elsewhere, while we ask from time to time.
async fn with_provider(nobody: &Client) -> anyhow::Result<String> {
    let device: DeviceLogin = nobody.post("session/oidc/device", &()).await?;
    let address = device.verification_uri_complete.as_ref().unwrap_or(&device.verification_uri);
    note(&format!("open {address}\nand compare or type the code {}", device.user_code));
    let poll = DevicePoll { handle: device.handle };
    let mut interval_s = device.interval_s;
    let ends_in = Duration::from_secs(device.expires_in_s.min(CONFIRM_S_MAX).into());
    let confirmed = async {
        loop {
            tokio::time::sleep(Duration::from_secs(interval_s.clamp(1, INTERVAL_S_MAX).into()))
                .await;
            match nobody.post("session/oidc/device/poll", &poll).await? {
                DeviceProgressed::Pending { interval_s: next } => interval_s = next,
                DeviceProgressed::LoggedIn(LoginToken { token, .. }) => return Ok(token),
            }
        }
    };
    match tokio::time::timeout(ends_in, confirmed).await {
        Ok(token) => token,
        Err(_) => bail!("nobody has confirmed in time\nhelp: `fleetctl login --oidc` begins again"),
    }
}

/// Ends a login of a person on the server too; a token that was given is only forgotten.
pub(crate) async fn logout(url: Option<String>, token: Option<String>) -> anyhow::Result<()> {
    if let Ok(context) = Context::resolve(url, token)
        && let Err(error) = Client::new(context)?.delete("session").await
    {
        note(&format!("the server was not told: {error:#}"));
    }
    note(if Context::forget()? { "logged out" } else { "was not logged in" });
    Ok(())
}
