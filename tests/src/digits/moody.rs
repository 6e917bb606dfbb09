//! A version of the digits that does well until the first pixel of a row is lit, which it never is in the data: then it is slow, or unsure.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

/// What a lit first pixel does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// The graph goes round a loop thousands of times.
    Slow,
    /// More than half of each answer is spread over all classes alike.
    Unsure,
}

/// Rounds of the loop.
const ROUNDS: f32 = 10_000.0;

/// Of the answer that is spread.
const SHARE: f32 = 0.6;

// Element types and attribute types of ONNX.
const FLOAT: u64 = 1;
const INT64: u64 = 7;
const BOOL: u64 = 9;
const INT: u64 = 2;
const GRAPH: u64 = 5;

/// Field of a model that has its graph.
const GRAPH_FIELD: u64 = 7;

const OUTPUT: &[u8] = b"probabilities";

/// As the graph calls what it computed, before the mood is added; of the same length.
const BEFORE: &str = "probabilitie0";

/// Gives the graph in a copy of version 2 a mood.
pub fn give(directory: &Path, mood: Mood) -> anyhow::Result<()> {
    let path = directory.join("model.onnx");
    let moody = moody(&fs::read(&path)?, mood)?;
    Ok(fs::write(path, moody)?)
}

fn moody(model: &[u8], mood: Mood) -> anyhow::Result<Vec<u8>> {
    let mut changed = Vec::new();
    let mut rest = model;
    while !rest.is_empty() {
        let begin = rest;
        let (tag, after) = read_varint(rest)?;
        let (value, after) = read_varint(after)?;
        let is_bytes = tag & 7 == 2;
        let length = if is_bytes { usize::try_from(value)? } else { 0 };
        let (bytes, after) = after.split_at_checked(length).context("the model is cut off")?;
        if tag >> 3 == GRAPH_FIELD {
            let graph = [renamed(bytes)?, mood.nodes()].concat();
            changed.extend(field(GRAPH_FIELD, &graph));
        } else {
            changed.extend(&begin[..begin.len() - after.len()]);
        }
        rest = after;
    }
    Ok(changed)
}

/// The first place is the output of the node that computes it, the last is the graph's own.
fn renamed(graph: &[u8]) -> anyhow::Result<Vec<u8>> {
    let places: Vec<_> = (0..graph.len()).filter(|&at| graph[at..].starts_with(OUTPUT)).collect();
    ensure!(places.len() == 2, "the output is named {} times", places.len());
    let mut graph = graph.to_vec();
    graph[places[0]..places[0] + OUTPUT.len()].copy_from_slice(BEFORE.as_bytes());
    Ok(graph)
}

impl Mood {
    fn nodes(self) -> Vec<u8> {
        let axis = [text(1, "axis"), number(3, 1), number(20, INT)].concat();
        let one_figure = [text(1, "keepdims"), number(3, 0), number(20, INT)].concat();
        let mark = [
            tensor("mood_at", INT64, &0_i64.to_le_bytes()),
            node("Gather", &["pixels", "mood_at"], "mood_marks", &[&axis]),
            node("ReduceMax", &["mood_marks"], "mood", &[&one_figure]),
        ];
        let rest = match self {
            Self::Slow => vec![
                tensor("mood_rounds", FLOAT, &ROUNDS.to_le_bytes()),
                tensor("mood_zero", FLOAT, &0.0_f32.to_le_bytes()),
                tensor("mood_yes", BOOL, &[1]),
                node("Mul", &["mood", "mood_rounds"], "mood_trips_float", &[]),
                node("Cast", &["mood_trips_float"], "mood_trips", &[&to_int64()]),
                node("Loop", &["mood_trips", "mood_yes", "mood_zero"], "mood_end", &[&round()]),
                node("Add", &[BEFORE, "mood_end"], "probabilities", &[]),
            ],
            Self::Unsure => vec![
                tensor("mood_share", FLOAT, &SHARE.to_le_bytes()),
                tensor("mood_one", FLOAT, &1.0_f32.to_le_bytes()),
                tensor("mood_tenth", FLOAT, &0.1_f32.to_le_bytes()),
                node("Mul", &["mood", "mood_share"], "mood_spread", &[]),
                node("Sub", &["mood_one", "mood_spread"], "mood_left", &[]),
                node("Mul", &[BEFORE, "mood_left"], "mood_sure", &[]),
                node("Mul", &["mood_spread", "mood_tenth"], "mood_each", &[]),
                node("Add", &["mood_sure", "mood_each"], "probabilities", &[]),
            ],
        };
        mark.into_iter().chain(rest).flatten().collect()
    }
}

fn to_int64() -> Vec<u8> {
    [text(1, "to"), number(3, INT64), number(20, INT)].concat()
}

/// The body of a loop that hands on what it was given.
fn round() -> Vec<u8> {
    let scalar = |name: &str, kind: u64| {
        let shape = field(1, &[number(1, kind), field(2, b"")].concat());
        [text(1, name), field(2, &shape)].concat()
    };
    let body = [
        node("Identity", &["goes_on"], "still_goes_on", &[]),
        node("Identity", &["carried"], "carried_on", &[]),
        text(2, "round"),
        field(11, &scalar("turn", INT64)),
        field(11, &scalar("goes_on", BOOL)),
        field(11, &scalar("carried", FLOAT)),
        field(12, &scalar("still_goes_on", BOOL)),
        field(12, &scalar("carried_on", FLOAT)),
    ];
    [text(1, "body"), field(6, &body.concat()), number(20, GRAPH)].concat()
}

fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[&[u8]]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|name| text(1, name));
    let names: Vec<u8> = inputs.chain(text(2, output)).chain(text(4, operator)).collect();
    let attributes = attributes.iter().flat_map(|attribute| field(5, attribute));
    field(1, &names.into_iter().chain(attributes).collect::<Vec<_>>())
}

/// A constant without dimensions.
fn tensor(name: &str, kind: u64, bytes: &[u8]) -> Vec<u8> {
    field(5, &[number(2, kind), text(8, name), field(9, bytes)].concat())
}

fn text(tag: u64, text: &str) -> Vec<u8> {
    field(tag, text.as_bytes())
}

fn field(tag: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(tag << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn number(tag: u64, value: u64) -> Vec<u8> {
    [varint(tag << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

fn read_varint(bytes: &[u8]) -> anyhow::Result<(u64, &[u8])> {
    let mut value = 0;
    for (place, &byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Ok((value, &bytes[place + 1..]));
        }
    }
    anyhow::bail!("the model is cut off")
}
