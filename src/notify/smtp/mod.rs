//! Hands one mail to one mail server, and says what the server's answer means for it.
//!
//! The conversation is held by hand on lettre's connection and not by its transport: what a refusal means
//! depends on what was refused (the login, the sender, the address), which a transport's error does not tell;
//! and its pool takes back a connection whose caller was cut off in the middle, on which the next mail would
//! read the answers to the one before. Here a connection is owned by the one who talks on it, and is put back
//! only after the server has taken a mail.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use perene_policy::Secret;
use tokio::time::timeout;

use super::Delivery;
use meaning::{Stage, meaning};

mod meaning;
#[cfg(test)]
pub(super) mod scripted;
mod url;

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// From the first byte until the server is ready to take the mail's text.
const ENVELOPE_MAX: Duration = Duration::from_secs(30);
/// From the mail's text until the server has taken it. Longer: a server that scans the mail meanwhile often
/// takes it in the end, and who did not wait would send it a second time.
const VERDICT_MAX: Duration = Duration::from_secs(60);
const PROBE_MAX: Duration = Duration::from_secs(5);
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// Idle connections that are kept for the next mail.
const IDLE_MAX: usize = 2;

/// A mail server as the configuration has it.
pub(super) struct Server {
    /// For texts: `host:port`.
    name: String,
    address: url::Address,
    tls: Option<TlsParameters>,
    hello: ClientId,
    idle: Mutex<Vec<AsyncSmtpConnection>>,
    envelope_max: Duration,
}

impl Server {
    /// Opens nothing. Errors are fragments that begin with the key they are about.
    pub(super) fn new(smtp_url: &Secret, ca_file: Option<&Path>) -> Result<Self, String> {
        let address = url::read(smtp_url).map_err(|error| format!("`mail.smtp_url` {error}"))?;
        let root = ca_file.map(root_certificate).transpose()?;
        let tls = match address.tls {
            url::Tls::Off => None,
            _ => Some(tls_parameters(&address.host, root)?),
        };
        let name = if address.host.contains(':') {
            format!("[{}]:{}", address.host, address.port)
        } else {
            format!("{}:{}", address.host, address.port)
        };
        let hello = address.hello.clone().map_or_else(ClientId::default, ClientId::Domain);
        Ok(Self { name, address, tls, hello, idle: Mutex::default(), envelope_max: ENVELOPE_MAX })
    }

    /// Sends one mail to one address. A lost answer after the mail's text counts as not sent: then it is sent
    /// again, with the same `Message-ID`.
    pub(super) async fn send(&self, from: &Address, to: &Address, mail: &[u8]) -> Delivery {
        let mut connection = match timeout(self.envelope_max, self.ready_for_text(from, to, mail)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(delivery)) => return delivery,
            Err(_) => return self.too_slow(self.envelope_max),
        };
        match timeout(VERDICT_MAX, connection.message(mail)).await {
            Ok(Ok(_)) => {
                self.put_back(connection);
                Delivery::Sent
            }
            Ok(Err(error)) => self.refused(connection, Stage::Text, &error).await,
            Err(_) => self.too_slow(VERDICT_MAX),
        }
    }

    /// Connects, encrypts and logs in, sends nothing. Errors: one line for the operator.
    pub(super) async fn check(&self) -> Result<(), String> {
        let why = |delivery| match delivery {
            Delivery::Later { why, .. } | Delivery::Never { why } => why,
            Delivery::Sent | Delivery::Skipped(_) => String::new(),
        };
        match timeout(self.envelope_max, self.connect()).await {
            Ok(Ok(connection)) => {
                leave(connection).await;
                Ok(())
            }
            Ok(Err(delivery)) => Err(why(delivery)),
            Err(_) => Err(why(self.too_slow(self.envelope_max))),
        }
    }

    async fn ready_for_text(&self, from: &Address, to: &Address, mail: &[u8]) -> Result<AsyncSmtpConnection, Delivery> {
        let mut connection = match self.take_idle().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let parameters = mail_parameters(&connection, to, mail)
            .map_err(|what| Delivery::Never { why: format!("mail server `{}` {what}", self.name) })?;
        if let Err(error) = connection.command(Mail::new(Some(from.clone()), parameters)).await {
            return Err(self.refused(connection, Stage::Sender, &error).await);
        }
        if let Err(error) = connection.command(Rcpt::new(to.clone(), Vec::new())).await {
            return Err(self.refused(connection, Stage::Recipient, &error).await);
        }
        if let Err(error) = connection.command(Data).await {
            return Err(self.refused(connection, Stage::Text, &error).await);
        }
        Ok(connection)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Delivery> {
        let server = (self.address.host.as_str(), self.address.port);
        let implicit = if self.address.tls == url::Tls::Implicit { self.tls.clone() } else { None };
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_MAX), &self.hello, implicit, None)
                .await
                .map_err(|error| self.means(Stage::Connect, &error))?;
        if let (url::Tls::Required | url::Tls::Opportunistic, Some(tls)) = (self.address.tls, &self.tls)
            && (self.address.tls == url::Tls::Required || connection.can_starttls())
            && let Err(error) = connection.starttls(tls.clone(), &self.hello).await
        {
            // No goodbye: after a failed handshake lettre's connection has no stream, and panics when used.
            return Err(self.means(Stage::StartTls, &error));
        }
        if let Some(login) = &self.address.login {
            let credentials = Credentials::new(login.user.clone(), login.password.expose().to_owned());
            if let Err(error) = connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await {
                return Err(self.refused(connection, Stage::Login, &error).await);
            }
        }
        Ok(connection)
    }

    async fn refused(&self, connection: AsyncSmtpConnection, stage: Stage, error: &Error) -> Delivery {
        leave(connection).await;
        self.means(stage, error)
    }

    fn means(&self, stage: Stage, error: &Error) -> Delivery {
        let password = self.address.login.as_ref().map(|login| &login.password);
        meaning(&self.name, stage, error, password)
    }

    fn too_slow(&self, waited: Duration) -> Delivery {
        Delivery::later(format!("mail server `{}` did not answer within {} s", self.name, waited.as_secs()))
    }

    async fn take_idle(&self) -> Option<AsyncSmtpConnection> {
        loop {
            let mut connection = self.idle().pop()?;
            if matches!(timeout(PROBE_MAX, connection.test_connected()).await, Ok(true)) {
                return Some(connection);
            }
        }
    }

    fn put_back(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<AsyncSmtpConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says goodbye, as far as the server has time for it: dropping the connection is what counts.
async fn leave(mut connection: AsyncSmtpConnection) {
    let _ = timeout(GOODBYE_MAX, connection.abort()).await;
}

fn mail_parameters(
    connection: &AsyncSmtpConnection,
    to: &Address,
    mail: &[u8],
) -> Result<Vec<MailParameter>, &'static str> {
    let mut parameters = Vec::new();
    let has = |extension| connection.server_info().supports_feature(extension);
    if !AsRef::<str>::as_ref(to).is_ascii() {
        if !has(Extension::SmtpUtfEight) {
            return Err("takes no address with letters outside ASCII: correct it in the app's table");
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !mail.is_ascii() && has(Extension::EightBitMime) {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    Ok(parameters)
}

fn root_certificate(path: &Path) -> Result<Certificate, String> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| format!("`mail.ca_file` `{shown}` cannot be read: {error}"))?;
    let no_certificate = || format!("`mail.ca_file` `{shown}` holds no certificate in PEM form");
    if !pem.windows(17).any(|part| part == b"BEGIN CERTIFICATE") {
        return Err(no_certificate());
    }
    Certificate::from_pem(&pem).map_err(|_| no_certificate())
}

fn tls_parameters(host: &str, root: Option<Certificate>) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(root) = root {
        builder = builder.add_root_certificate(root);
    }
    builder
        .build()
        .map_err(|error| format!("`mail.smtp_url` wants TLS, which cannot be set up ({error}): see `mail.ca_file`"))
}

#[cfg(test)]
mod tests {
    use super::scripted::ScriptedServer;
    use super::*;

    const MAIL: &[u8] = b"Subject: x\r\n\r\n.\r\nleading dot above\r\n";

    fn server(smtp_url: &str) -> Server {
        Server::new(&Secret::new(smtp_url), None).unwrap()
    }

    async fn send(server: &Server) -> Delivery {
        server.send(&"avisos@app.example".parse().unwrap(), &"ana@cliente.example".parse().unwrap(), MAIL).await
    }

    fn why(delivery: Delivery) -> String {
        match delivery {
            Delivery::Later { why, after: Duration::ZERO } => format!("later: {why}"),
            Delivery::Never { why } => format!("never: {why}"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_mail_is_handed_over_and_the_connection_used_again() {
        let scripted = ScriptedServer::start(&[]).await;
        let server = server(&scripted.url(""));
        assert_eq!(send(&server).await, Delivery::Sent);
        assert_eq!(send(&server).await, Delivery::Sent);
        assert_eq!(scripted.connections(), 1);
        let said = scripted.said();
        assert_eq!(said.iter().filter(|line| *line == "RCPT TO:<ana@cliente.example>").count(), 2);
        assert!(said.contains(&"MAIL FROM:<avisos@app.example>".to_owned()));
        assert!(said.contains(&"..".to_owned()), "a line of one dot is doubled");
    }

    #[tokio::test]
    async fn what_a_refusal_means_depends_on_what_was_refused() {
        for (verb, reply, expected) in [
            ("RCPT", "550 5.1.1 no such user", "never: "),
            ("RCPT", "550 no such user", "never: "),
            ("RCPT", "451 4.7.1 greylisted", "later: "),
            ("RCPT", "452 4.2.2 mailbox full", "later: "),
            ("RCPT", "552 5.2.2 mailbox full", "later: "),
            ("RCPT", "554 5.7.1 relay access denied", "later: "),
            ("RCPT", "530 5.7.0 authentication required", "later: "),
            ("MAIL", "550 5.1.8 sender unknown", "later: "),
            ("MAIL", "421 4.3.2 shutting down", "later: "),
            ("DATA", "554 no valid recipients", "never: "),
            (".", "550 5.1.1 no such user", "never: "),
            (".", "554 5.7.1 looks like spam", "later: "),
            (".", "451 4.3.0 try again", "later: "),
            ("CONNECT", "554 5.3.2 go away", "later: "),
            ("EHLO", "502 unknown", "later: "),
            ("RCPT", "gibberish", "later: "),
        ] {
            let scripted = ScriptedServer::start(&[(verb, reply)]).await;
            let why = why(send(&server(&scripted.url(""))).await);
            assert!(why.starts_with(expected), "{verb} {reply}: {why}");
            assert!(why.contains(&format!("`127.0.0.1:{}`", scripted.port())), "{why}");
            if reply != "gibberish" {
                assert!(why.contains(&reply[..3]), "{why}");
            }
        }
    }

    #[tokio::test]
    async fn a_refused_login_is_the_operators_matter_and_shows_no_password() {
        let scripted = ScriptedServer::start(&[("AUTH", "535 5.7.8 bad: hunter2")]).await;
        let why = why(send(&server(&scripted.url("robot:hunter2@"))).await);
        assert!(why.starts_with("later: ") && why.contains("login") && why.contains("`mail.smtp_url`"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
        assert!(!scripted.said().iter().any(|line| line.starts_with("MAIL")));
    }

    #[tokio::test]
    async fn user_and_password_are_sent() {
        let scripted = ScriptedServer::start(&[]).await;
        assert_eq!(send(&server(&scripted.url("robot:p%40ss@"))).await, Delivery::Sent);
        // "\0robot\0p@ss" in base64.
        assert!(scripted.said().contains(&"AUTH PLAIN AHJvYm90AHBAc3M=".to_owned()));
    }

    #[tokio::test]
    async fn required_encryption_is_not_gone_without() {
        let scripted = ScriptedServer::start(&[]).await;
        let server = server(&format!("{}?tls=required", scripted.url("robot:hunter2@")));
        let why = why(send(&server).await);
        assert!(why.starts_with("later: ") && why.contains("STARTTLS"), "{why}");
        assert!(!scripted.said().iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL")));
    }

    #[tokio::test]
    async fn opportunistic_encryption_is_gone_without_where_there_is_none() {
        let scripted = ScriptedServer::start(&[]).await;
        let server = server(&format!("{}?tls=opportunistic", scripted.url("")));
        assert_eq!(send(&server).await, Delivery::Sent);
    }

    #[tokio::test]
    async fn a_failed_handshake_is_told_and_nothing_more_is_said() {
        // The scripted server hangs up at what is not text.
        let scripted = ScriptedServer::start(&[("EHLO", "250-x\r\n250-STARTTLS\r\n250 AUTH PLAIN")]).await;
        for tls in ["required", "opportunistic"] {
            let server = server(&format!("{}?tls={tls}", scripted.url("robot:hunter2@")));
            let why = why(send(&server).await);
            assert!(why.starts_with("later: ") && why.contains("STARTTLS"), "{why}");
        }
        assert!(!scripted.said().iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL")));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let port = ScriptedServer::free_port().await;
        let why = why(send(&server(&format!("smtp://u:hunter2@127.0.0.1:{port}"))).await);
        assert!(why.contains(&format!("`127.0.0.1:{port}`")) && why.contains("cannot be reached"), "{why}");
        assert!(!why.contains("hunter2"));
    }

    #[tokio::test]
    async fn a_silent_server_is_left_at_the_deadline() {
        let scripted = ScriptedServer::start(&[("CONNECT", "")]).await;
        let mut server = server(&scripted.url(""));
        server.envelope_max = Duration::ZERO;
        assert!(why(send(&server).await).contains("did not answer"));
    }

    #[tokio::test]
    async fn who_was_cut_off_in_the_middle_leaves_no_connection_behind() {
        let scripted = ScriptedServer::start(&[(".", "")]).await;
        let server = std::sync::Arc::new(server(&scripted.url("")));
        let first = tokio::spawn({
            let server = server.clone();
            async move { send(&server).await }
        });
        scripted.heard(".").await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        scripted.replies(&[]);
        assert_eq!(send(&server).await, Delivery::Sent);
        assert_eq!(scripted.connections(), 2);
    }

    #[tokio::test]
    async fn a_connection_that_the_server_has_closed_is_replaced() {
        let scripted = ScriptedServer::start(&[("NOOP", "421 4.4.2 idle too long")]).await;
        let server = server(&scripted.url(""));
        assert_eq!(send(&server).await, Delivery::Sent);
        assert_eq!(send(&server).await, Delivery::Sent);
        assert_eq!(scripted.connections(), 2);
    }

    #[tokio::test]
    async fn a_check_logs_in_and_sends_nothing() {
        let scripted = ScriptedServer::start(&[]).await;
        assert_eq!(server(&scripted.url("robot:x@")).check().await, Ok(()));
        let said = scripted.said();
        assert!(said.iter().any(|line| line.starts_with("AUTH")));
        assert!(!said.iter().any(|line| line.starts_with("MAIL")));
        scripted.replies(&[("AUTH", "535 no")]);
        assert!(server(&scripted.url("robot:x@")).check().await.unwrap_err().contains("535"));
    }

    #[test]
    fn a_certificate_file_that_is_none_is_named() {
        let error = |path: &str| Server::new(&Secret::new("smtps://h"), Some(Path::new(path))).err().unwrap();
        assert!(error("/nowhere/ca.pem").starts_with("`mail.ca_file` `/nowhere/ca.pem` cannot be read"));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(error(file.path().to_str().unwrap()).contains("holds no certificate"));
    }
}
