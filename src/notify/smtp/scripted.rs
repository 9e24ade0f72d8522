//! A little mail server for tests: speaks the protocol, writes down what it hears, replies as it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

type Replies = HashMap<&'static str, &'static str>;

#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    connections: usize,
}

/// Replies by verb; `CONNECT` is the greeting, `.` the verdict on a mail's text. An empty reply is silence.
pub(in crate::notify) struct ScriptedServer {
    port: u16,
    replies: Arc<Mutex<Replies>>,
    heard: watch::Sender<Heard>,
}

impl ScriptedServer {
    pub(in crate::notify) async fn start(replies: &[(&'static str, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let replies = Arc::new(Mutex::new(replies.iter().copied().collect::<Replies>()));
        let heard = watch::Sender::new(Heard::default());
        let server = Self { port, replies: replies.clone(), heard: heard.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                heard.send_modify(|heard| heard.connections += 1);
                tokio::spawn(converse(stream, replies.clone(), heard.clone()));
            }
        });
        server
    }

    pub(in crate::notify) async fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    pub(in crate::notify) fn port(&self) -> u16 {
        self.port
    }

    /// `login` is empty or `user:password@`.
    pub(in crate::notify) fn url(&self, login: &str) -> String {
        format!("smtp://{login}127.0.0.1:{}", self.port)
    }

    pub(in crate::notify) fn replies(&self, replies: &[(&'static str, &'static str)]) {
        *self.replies.lock().unwrap() = replies.iter().copied().collect();
    }

    pub(in crate::notify) fn said(&self) -> Vec<String> {
        self.heard.borrow().lines.clone()
    }

    pub(in crate::notify) fn connections(&self) -> usize {
        self.heard.borrow().connections
    }

    pub(in crate::notify) async fn heard(&self, line: &str) {
        self.heard.subscribe().wait_for(|heard| heard.lines.iter().any(|said| said == line)).await.unwrap();
    }
}

async fn converse(stream: TcpStream, replies: Arc<Mutex<Replies>>, heard: watch::Sender<Heard>) {
    let mut stream = BufReader::new(stream);
    let mut verb = "CONNECT".to_owned();
    loop {
        let told = replies.lock().unwrap().get(verb.as_str()).copied();
        let reply = told.unwrap_or(match verb.as_str() {
            "CONNECT" => "220 scripted",
            "EHLO" => "250-scripted\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN",
            "AUTH" => "235 welcome",
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "250 ok",
        });
        let in_text = verb == "DATA" && reply.starts_with('3');
        if !reply.is_empty() && stream.write_all(format!("{reply}\r\n").as_bytes()).await.is_err() {
            return;
        }
        loop {
            let mut line = String::new();
            if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
                return;
            }
            let line = line.trim_end_matches(['\r', '\n']).to_owned();
            verb = line.split([' ', ':']).next().unwrap_or_default().to_owned();
            heard.send_modify(|heard| heard.lines.push(line));
            if !in_text || verb == "." {
                break;
            }
        }
    }
}
