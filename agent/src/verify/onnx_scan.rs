//! A look into an ONNX file before any library sees it: a walk over its protobuf fields, without reading a weight.
//!
//! Refused are: external data by any route (initializers, sparse initializers, attributes, subgraphs, functions, training graphs),
//! operators of unknown domains, compiled blobs for one processor, tensors whose size overflows, nesting without end, and whatever
//! is no ONNX at all. Field numbers are those of `onnx.proto` (IR version 10).

use std::io::{self, BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use sealift_protocol::image::{ForeignFormat, HEAD_BYTES, foreign_format};

use crate::slots::open_plain;

/// Operators of these domains come with the inference library; every other would have to be loaded as native code.
const DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// Operators that carry machine code or name files.
const REFUSED_OPERATORS: [&str; 2] = ["EPContext", "PyOp"];

/// Graphs in graphs in functions; real models have at most a few levels.
const DEPTH_MAX: u32 = 64;

/// Elements of one tensor, fewer than 4 TiB of FP32: a product of dimensions beyond it is meant to overflow somebody's sum.
const ELEMENTS_MAX: u64 = (1 << 40) - 1;

/// What the library takes for its own format, by these bytes at this place, whatever else the file is: nothing here would be looked
/// at by it.
const LIBRARY_FORMAT: &[u8] = b"ORTM";
const LIBRARY_FORMAT_AT: usize = 4;

/// No field of ONNX has a higher number; protobuf has 32 bits for number and type, and a reader may cut off what is beyond.
const TAG_MAX: u64 = u32::MAX as u64;

/// A domain or an operator's name.
const NAME_BYTES_MAX: u64 = 256;

/// Why a graph is not given to the library.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("weights cannot be read")]
    Read(#[source] io::Error),
    #[error("weights are not an ONNX model: {0}")]
    Form(&'static str),
    #[error("weights are {}; {}", .0.name, .0.help)]
    Foreign(ForeignFormat),
    #[error("model refers to data outside of its file")]
    ExternalData,
    #[error("model uses operators of the domain `{0}`")]
    Domain(String),
    #[error("model uses the operator `{0}`")]
    Operator(String),
    #[error("model has a tensor of 2^40 elements or more, or of negative size")]
    Shape,
    #[error("model is nested deeper than {DEPTH_MAX} levels")]
    Depth,
}

impl Refused {
    /// The stable code.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Read(_) => "onnx.read",
            Self::Form(_) => "onnx.form",
            Self::Foreign(_) => "onnx.foreign",
            Self::ExternalData => "onnx.external-data",
            Self::Domain(_) => "onnx.domain",
            Self::Operator(_) => "onnx.operator",
            Self::Shape => "onnx.shape",
            Self::Depth => "onnx.depth",
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Form("it ends in the middle of a field")
        } else {
            Self::Read(error)
        }
    }
}

/// What a length-delimited field holds, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    Function,
    Training,
    Operators,
}

/// What to do with a length-delimited field.
enum Content {
    Message(Message),
    Domain,
    Operator,
    Dimensions,
    ExternalData,
    Skipped,
}

impl Message {
    /// What the field with this number holds.
    const fn content(self, number: u64) -> Content {
        use Content::{Dimensions, Domain, ExternalData, Message as M, Operator, Skipped};
        match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) | (Self::Training, 1 | 2) => {
                M(Self::Graph)
            }
            (Self::Model, 8) | (Self::Function, 9) => M(Self::Operators),
            (Self::Model, 20) => M(Self::Training),
            (Self::Model, 25) => M(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => M(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => {
                M(Self::Tensor)
            }
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => M(Self::SparseTensor),
            (Self::Node, 5) | (Self::Function, 11) => M(Self::Attribute),
            (Self::Node, 4) => Operator,
            (Self::Node, 7) | (Self::Operators, 1) | (Self::Function, 10) => Domain,
            (Self::Tensor, 1) | (Self::SparseTensor, 3) => Dimensions,
            (Self::Tensor, 13) => ExternalData,
            _ => Skipped, // names, notes, weights, types: nothing there refers to anything
        }
    }

    /// Whether the message may hold many of this field. Of the others a reader merges several into one, whose dimensions are those of
    /// all of them.
    const fn repeats(self, number: u64) -> bool {
        !matches!(
            (self, number),
            (Self::Model, 7)
                | (Self::Attribute, 5 | 6 | 22)
                | (Self::SparseTensor | Self::Training, 1 | 2)
        )
    }
}

/// Walks over the model in `path`.
pub(crate) fn scan(path: &Path) -> Result<(), Refused> {
    let file = open_plain(path)?;
    let length = file.metadata()?.len();
    scan_all(BufReader::new(file), length)
}

/// Walks over a model in memory.
pub(crate) fn scan_bytes(model: &[u8]) -> Result<(), Refused> {
    scan_all(Cursor::new(model), u64::try_from(model.len()).unwrap_or(u64::MAX))
}

fn scan_all<R: BufRead + Seek>(mut file: R, length: u64) -> Result<(), Refused> {
    let head = file.fill_buf()?;
    if let Some(foreign) = foreign_format(head.get(..HEAD_BYTES).unwrap_or(head)) {
        return Err(Refused::Foreign(foreign));
    }
    if head.get(LIBRARY_FORMAT_AT..).is_some_and(|head| head.starts_with(LIBRARY_FORMAT)) {
        return Err(Refused::Form("it is in the library's own format"));
    }
    let mut walk = Walk { file, at: 0, has_graph: false };
    walk.message(Message::Model, length, 0)?;
    if walk.has_graph { Ok(()) } else { Err(Refused::Form("it has no graph")) }
}

struct Walk<R> {
    file: R,
    at: u64,
    has_graph: bool,
}

/// What one message has shown so far.
#[derive(Debug)]
struct Seen {
    /// Product of its dimensions.
    elements: u64,
    /// Fields that stand once, a bit for each number.
    once: u64,
}

impl Seen {
    fn note(&mut self, kind: Message, number: u64) -> Result<(), Refused> {
        if kind.repeats(number) {
            return Ok(());
        }
        let bit = 1 << number; // the highest of them is 22
        let is_again = self.once & bit != 0;
        self.once |= bit;
        if is_again { Err(Refused::Form("a field that stands once is repeated")) } else { Ok(()) }
    }
}

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH_DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

impl<R: BufRead + Seek> Walk<R> {
    fn message(&mut self, kind: Message, end: u64, depth: u32) -> Result<(), Refused> {
        if depth > DEPTH_MAX {
            return Err(Refused::Depth);
        }
        self.has_graph |= kind == Message::Graph;
        let mut seen = Seen { elements: 1, once: 0 };
        while self.at < end {
            let tag = self.varint()?;
            if tag > TAG_MAX || tag >> 3 == 0 {
                return Err(Refused::Form("it has a field of an impossible number"));
            }
            let (number, wire_type) = (tag >> 3, tag & 7);
            match wire_type {
                VARINT => {
                    let value = self.varint()?;
                    check_number(kind, number, value, &mut seen.elements)?;
                }
                FIXED_64 => self.skip(8, end)?,
                FIXED_32 => self.skip(4, end)?,
                LENGTH_DELIMITED => self.field((kind, number), end, depth, &mut seen)?,
                _ => return Err(Refused::Form("it has a field of an unknown wire type")),
            }
        }
        if self.at == end {
            Ok(())
        } else {
            Err(Refused::Form("a field is longer than its message"))
        }
    }

    fn field(
        &mut self,
        (kind, number): (Message, u64),
        end: u64,
        depth: u32,
        seen: &mut Seen,
    ) -> Result<(), Refused> {
        seen.note(kind, number)?;
        let length = self.varint()?;
        let field_end = self.at.checked_add(length).filter(|&field_end| field_end <= end);
        let field_end = field_end.ok_or(Refused::Form("a field is longer than its message"))?;
        match kind.content(number) {
            Content::Message(inner) => self.message(inner, field_end, depth + 1),
            Content::Domain => {
                let domain = self.text(length)?;
                let is_known = DOMAINS.contains(&domain.as_str());
                if is_known { Ok(()) } else { Err(Refused::Domain(domain)) }
            }
            Content::Operator => {
                let name = self.text(length)?;
                let is_refused = REFUSED_OPERATORS.contains(&name.as_str());
                if is_refused { Err(Refused::Operator(name)) } else { Ok(()) }
            }
            Content::Dimensions => {
                while self.at < field_end {
                    multiply(&mut seen.elements, self.varint()?)?;
                }
                let is_whole = self.at == field_end;
                if is_whole {
                    Ok(())
                } else {
                    Err(Refused::Form("a number is longer than its list"))
                }
            }
            Content::ExternalData => Err(Refused::ExternalData),
            Content::Skipped => self.skip(length, end),
        }
    }

    fn byte(&mut self) -> Result<u8, Refused> {
        let byte = self.file.fill_buf()?.first().copied();
        let byte = byte.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        self.file.consume(1);
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, Refused> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Refused::Form("a number has more than 64 bits"))
    }

    fn text(&mut self, length: u64) -> Result<String, Refused> {
        if length > NAME_BYTES_MAX {
            return Err(Refused::Form("a name is too long"));
        }
        let bytes = (0..length).map(|_| self.byte()).collect::<Result<Vec<_>, _>>()?;
        String::from_utf8(bytes).map_err(|_| Refused::Form("a name is not text"))
    }

    fn skip(&mut self, length: u64, end: u64) -> Result<(), Refused> {
        let next = self.at.checked_add(length).filter(|&next| next <= end);
        let next = next.ok_or(Refused::Form("a field is longer than its message"))?;
        let length = i64::try_from(length).map_err(|_| Refused::Form("a field is too long"))?;
        self.file.seek_relative(length)?;
        self.at = next;
        Ok(())
    }
}

/// A number outside of a packed field.
fn check_number(kind: Message, number: u64, value: u64, elements: &mut u64) -> Result<(), Refused> {
    /// `TensorProto.data_location`, whose value 1 means "external".
    const DATA_LOCATION: u64 = 14;
    if matches!(kind.content(number), Content::Dimensions) {
        return multiply(elements, value);
    }
    if kind == Message::Tensor && number == DATA_LOCATION && value != 0 {
        return Err(Refused::ExternalData);
    }
    Ok(()) // versions, types, flags
}

/// A dimension is an `int64`; a negative one is a huge number here.
fn multiply(elements: &mut u64, dimension: u64) -> Result<(), Refused> {
    let product = elements.checked_mul(dimension.max(1)).filter(|&count| count <= ELEMENTS_MAX);
    *elements = product.ok_or(Refused::Shape)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(value: u64) -> Vec<u8> {
        let digits = (0..10).map(|place| (value >> (7 * place)) & 0x7f);
        let mut bytes: Vec<_> = digits.map(|digit| u8::try_from(digit).unwrap()).collect();
        while bytes.len() > 1 && bytes.last() == Some(&0) {
            bytes.pop();
        }
        let last = bytes.len() - 1;
        bytes[..last].iter_mut().for_each(|byte| *byte |= 0x80);
        bytes
    }

    fn field(number: u64, content: &[u8]) -> Vec<u8> {
        [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
    }

    fn number(number: u64, value: u64) -> Vec<u8> {
        [varint(number << 3), varint(value)].concat()
    }

    fn scanned(model: &[u8]) -> &'static str {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.onnx");
        std::fs::write(&path, model).unwrap();
        scan(&path).map_or_else(|refused| refused.code(), |()| "ok")
    }

    fn model(graph: &[u8]) -> Vec<u8> {
        [number(1, 10), field(8, &[field(1, b""), number(2, 21)].concat()), field(7, graph)]
            .concat()
    }

    fn node(operator: &[u8], domain: &[u8], attribute: &[u8]) -> Vec<u8> {
        let parts = [field(4, operator), field(7, domain), field(5, attribute)];
        field(1, &parts.concat())
    }

    fn external() -> Vec<u8> {
        [number(1, 3), field(13, b"\x0a\x08location"), number(14, 1)].concat()
    }

    #[test]
    fn a_plain_graph_passes() {
        let weights = [number(1, 4), number(1, 2), field(9, &[0; 32])].concat();
        let graph = [node(b"MatMul", b"", b""), field(5, &weights)].concat();
        assert_eq!(scanned(&model(&graph)), "ok");
    }

    #[test]
    fn the_digits_fixture_passes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/digits");
        for version in ["v1", "v2", "v3-bad"] {
            scan(&root.join(version).join("model.onnx")).unwrap();
        }
    }

    #[test]
    fn external_data_is_refused_by_every_route() {
        let tensor = external();
        let sparse = field(1, &tensor);
        let graph = field(5, &tensor);
        let function = field(7, &field(5, &field(5, &tensor)));
        for route in [
            model(&graph),
            model(&field(15, &sparse)),
            model(&node(b"Constant", b"", &field(5, &tensor))),
            model(&node(b"Constant", b"", &field(10, &tensor))),
            model(&node(b"Constant", b"", &field(22, &sparse))),
            model(&node(b"If", b"", &field(6, &graph))),
            model(&node(b"If", b"", &field(11, &graph))),
            [model(b""), field(25, &function)].concat(),
            [model(b""), field(20, &field(1, &graph))].concat(),
            model(&field(5, &number(14, 1))),
            model(&field(5, &field(13, b""))),
        ] {
            assert_eq!(scanned(&route), "onnx.external-data");
        }
    }

    #[test]
    fn foreign_domains_and_compiled_blobs_are_refused() {
        assert_eq!(scanned(&model(&node(b"Evil", b"com.example", b""))), "onnx.domain");
        let imported = [model(b""), field(8, &field(1, b"com.example"))].concat();
        assert_eq!(scanned(&imported), "onnx.domain");
        let blob = model(&node(b"EPContext", b"com.microsoft", b""));
        assert_eq!(scanned(&blob), "onnx.operator");
    }

    #[test]
    fn overflowing_shapes_are_refused() {
        let largest = model(&field(5, &number(1, (1 << 40) - 1)));
        assert_eq!(
            (scanned(&largest), scanned(&model(&field(5, &number(1, 1 << 40))))),
            ("ok", "onnx.shape")
        );
        let packed = [varint(1 << 30), varint(1 << 30)].concat();
        assert_eq!(scanned(&model(&field(5, &field(1, &packed)))), "onnx.shape");
        let single = [number(1, 1 << 20), number(1, (1 << 20) + 1)].concat();
        assert_eq!(scanned(&model(&field(5, &single))), "onnx.shape");
        assert_eq!(scanned(&model(&field(5, &number(1, u64::MAX)))), "onnx.shape");
    }

    #[test]
    fn dimensions_spread_over_a_tensor_in_two_halves_are_refused() {
        let half = field(5, &number(1, 1 << 30));
        let merged = model(&node(b"Constant", b"", &[half.clone(), half].concat()));
        assert_eq!(scanned(&merged), "onnx.form");
        let values = field(1, &number(1, 1 << 30));
        let sparse = [values.clone(), values].concat();
        assert_eq!(scanned(&model(&field(15, &sparse))), "onnx.form");
        assert_eq!(scanned(&[model(b""), field(7, b"")].concat()), "onnx.form");
    }

    #[test]
    fn a_field_number_beyond_32_bits_hides_nothing() {
        // Cut to 32 bits, this is external data.
        let hidden = [varint((1 << 35) | 13 << 3 | 2), varint(1), b"x".to_vec()].concat();
        assert_eq!(scanned(&model(&field(5, &hidden))), "onnx.form");
        assert_eq!(scanned(&[model(b""), vec![0x02, 0x00]].concat()), "onnx.form");
    }

    #[test]
    fn dimensions_longer_than_their_list_are_refused() {
        let torn = [vec![0x0a, 1, 0x80], vec![0x01]].concat();
        assert_eq!(scanned(&model(&field(5, &torn))), "onnx.form");
    }

    #[test]
    fn the_librarys_own_format_is_refused_though_it_is_onnx_as_well() {
        let disguised =
            [field(6, &[b"xORTM".as_slice(), &[b' '; 200]].concat()), model(b"")].concat();
        assert_eq!(&disguised[4..8], b"ORTM");
        assert_eq!(scanned(&disguised), "onnx.form");
    }

    #[test]
    fn endless_nesting_and_other_formats_are_refused() {
        let nested = (0..80).fold(Vec::new(), |graph, _| node(b"If", b"", &field(6, &graph)));
        assert_eq!(scanned(&model(&nested)), "onnx.depth");
        for other in [b"".as_slice(), b"\x3a\xff\xff\xff\xff\x7f"] {
            assert_eq!(scanned(other), "onnx.form", "{other:?}");
        }
        for other in [b"\x80\x04\x95pickle".as_slice(), b"PK\x03\x04zip"] {
            assert_eq!(scanned(other), "onnx.foreign", "{other:?}");
        }
        assert_eq!(scanned(&model(b"")[..8]), "onnx.form");
    }
}
