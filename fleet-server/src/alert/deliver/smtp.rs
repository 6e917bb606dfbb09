//! Mails: what is due at once is one mail, and what becomes of an alert answers the mail that told of it first.

use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sealift_protocol::api::{AlertView, Mail, MailTls};

use super::message::{self, Verb};
use super::{Inside, Parcel, Unsent, place};
use crate::store::channels::Delivery;

/// Whom one channel writes to; a list is the mail server's business.
const RECEIVERS_MAX: usize = 20;

type Mailer = AsyncSmtpTransport<Tokio1Executor>;

/// Sends one mail, and returns its id.
pub(super) async fn send(
    inside: &Inside,
    mail: &Mail,
    parcel: &Parcel<'_>,
) -> Result<String, Unsent> {
    let (letter, id) = letter(mail, parcel)?;
    let place = inside.resolve(&mail.host, mail.port).await?;
    let mailer = mailer(mail, &place.ip().to_string())?;
    let sending = tokio::time::timeout(place::TIMEOUT, mailer.send(letter));
    sending.await.map_err(|_| Unsent::Late)?.map_err(Unsent::Mail)?;
    Ok(id)
}

/// Refuses what could never be sent.
pub(super) fn check(mail: &Mail) -> Result<(), Unsent> {
    let letter = |why: &str| Unsent::Letter(why.into());
    let is_host = |letter: char| letter.is_ascii_alphanumeric() || "-.:[]".contains(letter);
    if mail.host.is_empty() || !mail.host.chars().all(is_host) {
        return Err(letter("the mail server's name is none"));
    }
    // RFC 4954, 4: a password in clear text is for whoever listens. Rule: none is sent without TLS.
    if mail.tls == MailTls::None && mail.password.is_some() {
        return Err(letter("a password is not sent without TLS"));
    }
    if mail.username.is_some() != mail.password.is_some() {
        return Err(letter("a name goes with a password"));
    }
    if mail.to.is_empty() || mail.to.len() > RECEIVERS_MAX {
        return Err(letter("a mail goes to 1 to 20 addresses"));
    }
    let is_authority = |pem: &String| {
        CertificateDer::pem_slice_iter(pem.as_bytes()).next().is_some_and(|read| read.is_ok())
    };
    if mail.ca_pem.as_ref().is_some_and(|pem| !is_authority(pem)) {
        return Err(letter("there is no certificate in the PEM"));
    }
    for address in mail.to.iter().chain([&mail.from]) {
        mailbox(address)?;
    }
    tls(mail).map(drop)
}

fn mailbox(text: &str) -> Result<Mailbox, Unsent> {
    text.parse().map_err(|error| Unsent::Letter(Box::new(error)))
}

/// The name of the server is checked against its certificate, and the address that was looked up is called.
fn mailer(mail: &Mail, address: &str) -> Result<Mailer, Unsent> {
    let builder = Mailer::builder_dangerous(address)
        .port(mail.port)
        .timeout(Some(place::TIMEOUT))
        .hello_name(ClientId::Domain(domain(mail)?))
        .tls(tls(mail)?);
    let builder = match (&mail.username, &mail.password) {
        (Some(name), Some(password)) => {
            builder.credentials(Credentials::new(name.clone(), password.clone()))
        }
        (Some(_) | None, _) => builder,
    };
    Ok(builder.build())
}

/// RFC 3207, 4.1: a server that does not offer STARTTLS may be one that an attacker has changed. Rule: then nothing is sent.
fn tls(mail: &Mail) -> Result<Tls, Unsent> {
    let parameters = || {
        let host = mail.host.trim_start_matches('[').trim_end_matches(']');
        let builder = TlsParameters::builder(host.to_owned());
        let builder = match &mail.ca_pem {
            Some(pem) => {
                let authority = Certificate::from_pem(pem.as_bytes()).map_err(Unsent::Mail)?;
                builder.certificate_store(CertificateStore::None).add_root_certificate(authority)
            }
            None => builder,
        };
        builder.build_rustls().map_err(Unsent::Mail)
    };
    Ok(match mail.tls {
        MailTls::Starttls => Tls::Required(parameters()?),
        MailTls::Tls => Tls::Wrapper(parameters()?),
        MailTls::None => Tls::None,
    })
}

fn domain(mail: &Mail) -> Result<String, Unsent> {
    Ok(mailbox(&mail.from)?.email.domain().to_owned())
}

fn letter(mail: &Mail, parcel: &Parcel<'_>) -> Result<(Message, String), Unsent> {
    let [first, ..] = parcel.deliveries else { return Err(Unsent::Address) };
    // The same at each try, so that a receiver who has it already knows it again.
    let id = format!("<{}.{}@{}>", first.message, first.number, domain(mail)?);
    let mut builder = Message::builder()
        .message_id(Some(id.clone()))
        .from(mailbox(&mail.from)?)
        .subject(format!("[sealift] {}", message::subject(parcel)))
        .header(ContentType::TEXT_PLAIN);
    for address in &mail.to {
        builder = builder.to(mailbox(address)?);
    }
    let text = text(parcel);
    let letter = threaded(builder, parcel).body(text);
    Ok((letter.map_err(|error| Unsent::Letter(Box::new(error)))?, id))
}

/// RFC 5322, 3.6.4: an answer names what it answers, and what that answered.
fn threaded(builder: MessageBuilder, parcel: &Parcel<'_>) -> MessageBuilder {
    let mut threads: Vec<&String> = parcel.threads.iter().flatten().collect();
    threads.dedup();
    let Some(newest) = threads.last() else { return builder };
    let references: Vec<_> = threads.iter().map(|thread| thread.as_str()).collect();
    builder.in_reply_to((*newest).clone()).references(references.join(" "))
}

fn text(parcel: &Parcel<'_>) -> String {
    let parts: Vec<String> =
        parcel.deliveries.iter().map(|delivery| part(delivery, parcel.url)).collect();
    parts.join("\n\n")
}

fn part(delivery: &Delivery, url: &str) -> String {
    let alert: &AlertView = &delivery.view;
    let headline = message::headline(delivery);
    let detail = message::detail(alert);
    let opened = alert.opened_at;
    let next = match delivery.verb {
        Verb::Closed => String::new(),
        Verb::Opened | Verb::Repeated | Verb::Test | Verb::Retraining => {
            format!("next: {}\n", message::one_line(&alert.help, 500))
        }
    };
    let link = message::link(url, alert);
    format!("{headline}\n{detail}\n{next}since {opened}, {}: {link}\n", alert.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail() -> Mail {
        Mail {
            host: "mail.example".to_owned(),
            port: 587,
            tls: MailTls::Starttls,
            ca_pem: None,
            username: Some("sealift".to_owned()),
            password: Some("secret".to_owned()),
            from: "Sealift <sealift@plant.example>".to_owned(),
            to: vec!["ops@plant.example".to_owned()],
        }
    }

    #[test]
    fn what_could_never_be_sent_is_refused() {
        check(&mail()).unwrap();
        for wrong in [
            Mail { host: "mail example".to_owned(), ..mail() },
            Mail { tls: MailTls::None, ..mail() },
            Mail { password: None, ..mail() },
            Mail { to: Vec::new(), ..mail() },
            Mail { to: vec!["ops".to_owned()], ..mail() },
            Mail { from: "a@b\r\nBcc: eve@x".to_owned(), ..mail() },
            Mail { ca_pem: Some("no certificate".to_owned()), ..mail() },
        ] {
            assert!(check(&wrong).is_err(), "{}", wrong.host);
        }
    }
}
