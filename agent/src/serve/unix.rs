//! The Unix socket: frames of [`sealift_protocol::local`], one question after the other on each connection.

use std::io;
use std::time::Duration;

use sealift_protocol::local::{Answer, LENGTH_BYTES, QUESTION_BYTES_MAX, Question, body_length};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::challenger::Split;
use super::endpoint::{Asked, Endpoint, REQUEST_MAX};
use super::listen::{connections, not_accepted, room};
use super::refusal::Refusal;

/// Bytes that are read at once; larger bodies pass the buffer by.
const READ_BUFFER_BYTES: usize = 16 << 10;

/// Room for a body that is kept from question to question; what a large one took is given back.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Answers on `socket` until it fails for good or the future is dropped.
pub(super) async fn serve(socket: UnixListener, endpoint: Endpoint) -> io::Result<()> {
    let connections = connections();
    loop {
        let room = room(&connections).await?;
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                not_accepted(&error).await;
                continue;
            }
        };
        let endpoint = endpoint.clone();
        tokio::spawn(async move {
            if let Err(error) = answer_all(stream, &endpoint).await {
                tracing::debug!(%error, "connection on the Unix socket ended early");
            }
            drop(room);
        });
    }
}

/// Answers one connection until its other end closes it.
pub(super) async fn answer_all(stream: UnixStream, endpoint: &Endpoint) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
    let mut body = Vec::new();
    loop {
        let mut length = [0; LENGTH_BYTES];
        match stream.read_exact(&mut length).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        // Whoever announces more than may be sent is told, and then cannot be followed any more.
        let Ok(length) = body_length(length, QUESTION_BYTES_MAX) else {
            return say(&mut stream, refused(&Refusal::TooLarge(QUESTION_BYTES_MAX))).await;
        };
        let answer = match endpoint.admit(length as u64) {
            Ok(_admitted) => {
                let rest = read_body(&mut stream, &mut body, length);
                timeout(REQUEST_MAX, rest).await.map_err(io::Error::other)??;
                answer(endpoint, &body).await.unwrap_or_else(|refusal| refused(&refusal))
            }
            Err(busy) => {
                timeout(REQUEST_MAX, pass(&mut stream, length))
                    .await
                    .map_err(io::Error::other)??;
                refused(&busy)
            }
        };
        say(&mut stream, answer).await?;
        if body.capacity() > KEPT_BYTES_MAX {
            body = Vec::new();
        }
    }
}

async fn read_body(
    stream: &mut BufReader<UnixStream>,
    body: &mut Vec<u8>,
    length: usize,
) -> io::Result<()> {
    body.clear();
    // Memory grows with what really comes, not with what was announced.
    let given = stream.take(length as u64).read_to_end(body).await?;
    if given == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads what is not looked at, so that the next question can be.
async fn pass(stream: &mut BufReader<UnixStream>, length: usize) -> io::Result<()> {
    let given = tokio::io::copy(&mut stream.take(length as u64), &mut tokio::io::sink()).await?;
    if given == length as u64 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn answer(endpoint: &Endpoint, body: &[u8]) -> Result<Answer, Refusal> {
    let question = Question::read(body)?;
    let live = endpoint.find(&question.model, Some(&question.version))?;
    let deadline = Duration::from_millis(u64::from(question.timeout_ms));
    let deadline = (!deadline.is_zero()).then_some(deadline);
    // The frame has no place for a key.
    let split = if question.version.is_empty() { Split::Each } else { Split::Never };
    let inference = endpoint.name(None);
    let asked = Asked { inference: &inference, inputs: &question.inputs, deadline, split };
    let (live, outputs) = endpoint.ask(live, asked).await?;
    Ok(Answer::Outputs { version: live.image().version.as_str().to_owned(), outputs })
}

fn refused(refusal: &Refusal) -> Answer {
    Answer::Refused { status: refusal.status().as_u16(), why: refusal.to_string() }
}

async fn say(stream: &mut BufReader<UnixStream>, answer: Answer) -> io::Result<()> {
    let frame = answer.frame().map_err(io::Error::other)?;
    timeout(REQUEST_MAX, stream.get_mut().write_all(&frame)).await.map_err(io::Error::other)?
}
