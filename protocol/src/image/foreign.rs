//! Files of other tools, recognised by their first bytes, so that whoever offers one hears what to do.

/// The bytes that are looked at.
pub const HEAD_BYTES: usize = 16;

/// A format that is not taken as weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignFormat {
    /// What it is, in words.
    pub name: &'static str,
    /// How to make ONNX of it.
    pub help: &'static str,
}

const PICKLE: ForeignFormat = ForeignFormat {
    name: "a Python pickle, which runs whatever code is in it when it is loaded",
    help: "export the model to ONNX where it was trained: `torch.onnx.export`, or `skl2onnx` for scikit-learn",
};
const ARCHIVE: ForeignFormat = ForeignFormat {
    name: "a ZIP archive, as PyTorch (`.pt`, `.pth`) and Keras write them, with Python pickles or code inside",
    help: "export the model to ONNX where it was trained: `torch.onnx.export`, or `tf2onnx`",
};
const COMPRESSED: ForeignFormat = ForeignFormat {
    name: "compressed, as joblib writes Python pickles",
    help: "export the model to ONNX where it was trained, with `skl2onnx`; ONNX files are pushed as they are",
};
const HDF5: ForeignFormat = ForeignFormat {
    name: "an HDF5 file, as Keras writes them",
    help: "convert the model with `tf2onnx`",
};
const TFLITE: ForeignFormat = ForeignFormat {
    name: "a TensorFlow Lite model",
    help: "convert the model with `tf2onnx --tflite`",
};
const GGUF: ForeignFormat =
    ForeignFormat { name: "a GGUF file of llama.cpp", help: "models are served from ONNX only" };

/// Recognises a file by its first [`HEAD_BYTES`]; none for ONNX, and for what nobody knows.
pub fn foreign_format(head: &[u8]) -> Option<ForeignFormat> {
    match head {
        // PROTO with a version, FRAME or the first opcode of a container; text pickles of version 0 begin with `(` or `c`.
        [0x80, 2..=5, ..] | [b'(', b'd' | b'l' | b'i', ..] | [b'c', b'_' | b'a'..=b'z', ..] => {
            Some(PICKLE)
        }
        [b'P', b'K', 3, 4, ..] => Some(ARCHIVE),
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]
        | [0x1f, 0x8b, ..]
        | [b'B', b'Z', b'h', ..]
        | [0xfd, b'7', b'z', b'X', b'Z', ..]
        | [0x04, 0x22, 0x4d, 0x18, ..] => Some(COMPRESSED),
        [0x89, b'H', b'D', b'F', ..] => Some(HDF5),
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => Some(TFLITE),
        [b'G', b'G', b'U', b'F', ..] => Some(GGUF),
        _ => None, // ONNX begins with the field of its IR version, and whatever else this is, a walk over it will tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_tools_are_recognised() {
        let named = |head: &[u8]| foreign_format(head).map(|format| format.name.split(' ').nth(1));
        assert_eq!(named(b"\x80\x04\x95\x10\0\0\0\0\0\0\0"), Some(Some("Python")));
        assert_eq!(named(b"csklearn.linear_model\n"), Some(Some("Python")));
        assert_eq!(named(b"PK\x03\x04\0\0archive/data.pkl"), Some(Some("ZIP")));
        assert_eq!(foreign_format(b"\x78\x9c joblib"), Some(COMPRESSED));
        assert_eq!(named(b"\x89HDF\r\n\x1a\n"), Some(Some("HDF5")));
        assert_eq!(named(b"\x1c\0\0\0TFL3"), Some(Some("TensorFlow")));
        assert_eq!(named(b"GGUF\x03"), Some(Some("GGUF")));
        // ONNX: field 1, IR version; then the producer's name.
        assert_eq!(named(b"\x08\x08\x12\x07pytorch"), None);
        assert_eq!(named(b""), None);
    }
}
