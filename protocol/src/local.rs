//! The Unix socket on which applications beside an agent reach its models, and a client for it.
//!
//! ```text
//!  frame     length u32 │ body                                   little-endian, like all that follows
//!  question  1 u8 │ timeout in ms u32, 0 for none │ model: length u16, text │ version: the same, empty for any │ tensors
//!  answer    1 u8 │ 0 u16                         │ version: length u16, text │ tensors
//!  refusal   1 u8 │ status u16, as HTTP has it    │ why: length u16, text
//! ```
//! Answers come in the order of the questions. Tensors are as [`crate::tensor::wire`] has them.

use std::io::{self, Read, Write};

use crate::tensor::Tensor;
use crate::tensor::wire::{self, InvalidTensors};

/// A frame: the largest body of a request, and room for names and shapes. Answers can be a few times as long.
pub const QUESTION_BYTES_MAX: usize = (32 << 20) + (64 << 10);

/// The longest answer that a client takes.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Bytes of the length before each frame.
pub const LENGTH_BYTES: usize = 4;

/// The only form there is.
const FORM: u8 = 1;

/// What is asked of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// `team/name`, or the name alone where no two teams use it.
    pub model: String,
    /// The version that must answer; empty for whichever is live.
    pub version: String,
    /// Milliseconds after which nobody wants the answer any more; 0 for the agent's own limit.
    pub timeout_ms: u32,
    /// All inputs of the contract.
    pub inputs: Vec<Tensor>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All outputs of the contract.
    Outputs {
        /// The version that answered.
        version: String,
        /// In the order of the contract.
        outputs: Vec<Tensor>,
    },
    /// No answer.
    Refused {
        /// As HTTP has it: 400 is the sender's fault, 429 and 503 are worth another try.
        status: u16,
        /// What is wrong.
        why: String,
    },
}

/// Why bytes are not a question or an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFrame {
    /// Another version of this form.
    #[error("form {0} is not known; 1 is")]
    Form(u8),
    /// It ends too early.
    #[error("the frame is cut off")]
    CutOff,
    /// A name that is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A name of more than 65,535 bytes.
    #[error("a text is too long")]
    TooLong,
    /// Bytes after the last tensor.
    #[error("{0} bytes after the last tensor")]
    Trailing(usize),
    /// The tensors are none.
    #[error("{0}")]
    Tensors(#[from] InvalidTensors),
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The socket failed.
    #[error("cannot reach the agent")]
    Socket(#[from] io::Error),
    /// What was sent, or what came, is not of this form.
    #[error("{0}")]
    Form(#[from] InvalidFrame),
    /// The agent refused.
    #[error("{why}")]
    Refused {
        /// As HTTP has it.
        status: u16,
        /// What is wrong.
        why: String,
    },
}

impl Question {
    /// Reads the body of a frame.
    pub fn read(mut body: &[u8]) -> Result<Self, InvalidFrame> {
        check_form(&mut body)?;
        let timeout_ms = u32::from_le_bytes(array(&mut body)?);
        let model = text(&mut body)?.to_owned();
        let version = text(&mut body)?.to_owned();
        let inputs = tensors(&mut body)?;
        Ok(Self { model, version, timeout_ms, inputs })
    }

    /// Writes a frame, its length included.
    pub fn frame(&self) -> Result<Vec<u8>, InvalidFrame> {
        let mut frame = vec![0; LENGTH_BYTES];
        frame.push(FORM);
        frame.extend(self.timeout_ms.to_le_bytes());
        put_text(&self.model, &mut frame)?;
        put_text(&self.version, &mut frame)?;
        wire::write(&self.inputs, &mut frame)?;
        finish(frame)
    }
}

impl Answer {
    /// Reads the body of a frame.
    pub fn read(mut body: &[u8]) -> Result<Self, InvalidFrame> {
        check_form(&mut body)?;
        let status = u16::from_le_bytes(array(&mut body)?);
        let words = text(&mut body)?.to_owned();
        if status == 0 {
            return Ok(Self::Outputs { version: words, outputs: tensors(&mut body)? });
        }
        Ok(Self::Refused { status, why: words })
    }

    /// Writes a frame, its length included.
    pub fn frame(&self) -> Result<Vec<u8>, InvalidFrame> {
        let mut frame = vec![0; LENGTH_BYTES];
        frame.push(FORM);
        match self {
            Self::Outputs { version, outputs } => {
                frame.extend(0_u16.to_le_bytes());
                put_text(version, &mut frame)?;
                wire::write(outputs, &mut frame)?;
            }
            Self::Refused { status, why } => {
                frame.extend(status.to_le_bytes());
                let end = why.floor_char_boundary(usize::from(u16::MAX));
                put_text(why.get(..end).unwrap_or_default(), &mut frame)?;
            }
        }
        finish(frame)
    }
}

/// Asks models over a connected socket, one question at a time.
#[derive(Debug)]
pub struct Client<S> {
    socket: S,
    body: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    /// A client on `socket`, which is connected to an agent; the socket's own timeouts are the client's.
    pub const fn new(socket: S) -> Self {
        Self { socket, body: Vec::new() }
    }

    /// Asks, and returns the version that answered and its outputs.
    pub fn ask(&mut self, question: &Question) -> Result<(String, Vec<Tensor>), CallError> {
        self.socket.write_all(&question.frame()?)?;
        let mut length = [0; LENGTH_BYTES];
        self.socket.read_exact(&mut length)?;
        let length = body_length(length, ANSWER_BYTES_MAX)?;
        self.body.clear();
        // Memory grows with what really comes, not with what was announced.
        let given = (&mut self.socket).take(length as u64).read_to_end(&mut self.body)?;
        if given < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match Answer::read(&self.body)? {
            Answer::Outputs { version, outputs } => Ok((version, outputs)),
            Answer::Refused { status, why } => Err(CallError::Refused { status, why }),
        }
    }
}

/// The length that a frame announces, if it may be as long.
pub fn body_length(length: [u8; LENGTH_BYTES], bytes_max: usize) -> io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > bytes_max {
        let text = format!("frame of {length} bytes, at most {bytes_max} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(length)
}

fn check_form(body: &mut &[u8]) -> Result<(), InvalidFrame> {
    let [form] = array(body)?;
    if form == FORM { Ok(()) } else { Err(InvalidFrame::Form(form)) }
}

fn tensors(body: &mut &[u8]) -> Result<Vec<Tensor>, InvalidFrame> {
    let tensors = wire::read(body)?;
    if body.is_empty() { Ok(tensors) } else { Err(InvalidFrame::Trailing(body.len())) }
}

fn text<'a>(body: &mut &'a [u8]) -> Result<&'a str, InvalidFrame> {
    let length = usize::from(u16::from_le_bytes(array(body)?));
    let (text, rest) = body.split_at_checked(length).ok_or(InvalidFrame::CutOff)?;
    *body = rest;
    str::from_utf8(text).map_err(|_| InvalidFrame::Text)
}

fn put_text(text: &str, frame: &mut Vec<u8>) -> Result<(), InvalidFrame> {
    let length = u16::try_from(text.len()).map_err(|_| InvalidFrame::TooLong)?;
    frame.extend(length.to_le_bytes());
    frame.extend(text.as_bytes());
    Ok(())
}

fn array<const N: usize>(body: &mut &[u8]) -> Result<[u8; N], InvalidFrame> {
    let (array, rest) = body.split_first_chunk().ok_or(InvalidFrame::CutOff)?;
    *body = rest;
    Ok(*array)
}

/// Writes the length of what follows it to its front.
fn finish(mut frame: Vec<u8>) -> Result<Vec<u8>, InvalidFrame> {
    let length = u32::try_from(frame.len().saturating_sub(LENGTH_BYTES));
    let length = length.map_err(|_| InvalidFrame::TooLong)?;
    if let Some(front) = frame.first_chunk_mut() {
        *front = length.to_le_bytes();
    }
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn question() -> Question {
        let inputs = vec![Tensor::fp32("x", &[1, 2], &[1.0, 2.0]).unwrap()];
        let (model, version) = ("vision/digits".to_owned(), "3".to_owned());
        Question { model, version, timeout_ms: 250, inputs }
    }

    #[test]
    fn a_question_is_these_bytes_for_ever() {
        let frame = question().frame().unwrap();
        let expected = b"\x3e\0\0\0\x01\xfa\0\0\0\x0d\0vision/digits\x01\x003\x01\0\x0b\x02\x01\0\
            \x08\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0x\0\0\x80\x3f\0\0\0\x40";
        assert_eq!(frame, expected);
        assert_eq!(Question::read(&frame[LENGTH_BYTES..]).unwrap(), question());
    }

    #[test]
    fn a_client_reads_outputs_and_refusals() {
        let outputs = question().inputs;
        let answers = [
            Answer::Outputs { version: "3".to_owned(), outputs: outputs.clone() },
            Answer::Refused { status: 400, why: "no".to_owned() },
        ];
        let answers: Vec<_> = answers.iter().flat_map(|answer| answer.frame().unwrap()).collect();
        let mut client = Client::new(Both { reads: io::Cursor::new(answers), written: Vec::new() });

        assert_eq!(client.ask(&question()).unwrap(), ("3".to_owned(), outputs));
        let refused = client.ask(&question()).unwrap_err();
        assert!(matches!(refused, CallError::Refused { status: 400, .. }), "{refused:?}");
        assert!(matches!(client.ask(&question()).unwrap_err(), CallError::Socket(_)));
        assert_eq!(client.socket.written, question().frame().unwrap().repeat(3));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_question_and_an_answer_or_errors(mut body in prop::collection::vec(any::<u8>(), 0..80), is_form in any::<bool>()) {
            if is_form && let Some(first) = body.first_mut() {
                *first = FORM;
            }
            let _ = (Question::read(&body).is_ok(), Answer::read(&body).is_ok());
        }
    }

    struct Both {
        reads: io::Cursor<Vec<u8>>,
        written: Vec<u8>,
    }

    impl Read for Both {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads.read(buffer)
        }
    }

    impl Write for Both {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.written.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
