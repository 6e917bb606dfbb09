use super::*;

fn layer(kind: LayerKind, name: &str, bytes: &[u8]) -> Layer {
    Layer { kind, name: name.to_owned(), blob: Descriptor::of(kind.media_type(), bytes) }
}

fn layers() -> Vec<Layer> {
    vec![
        layer(LayerKind::Weights, "model.onnx", b"weights"),
        layer(LayerKind::Contract, "contract.json", b"{}"),
        layer(LayerKind::Golden, "golden.cbor", b"\xa0"),
    ]
}

fn manifest(layers: &[Layer]) -> Result<ImageManifest, ImageError> {
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    ImageManifest::parse(&ImageManifest::write(config, layers))
}

fn edited(from: &str, to: &str) -> &'static str {
    let bytes = ImageManifest::write(Descriptor::of(media_type::CONFIG, b"{}"), &layers());
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(from), "{from}");
    ImageManifest::parse(text.replace(from, to).as_bytes()).unwrap_err().code()
}

#[test]
fn a_manifest_survives_its_writing() {
    let read = manifest(&layers()).unwrap();
    let names: Vec<_> = read.layers().iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["model.onnx", "contract.json", "golden.cbor"]);
    assert_eq!(read.size_bytes(), 2 + 7 + 2 + 1);
}

#[test]
fn paths_as_layer_names_are_refused() {
    for name in ["../../etc/x", "/etc/x", "a/b", "..", ".hidden", "a\0b", "", "a\\b"] {
        let mut layers = layers();
        layers[0].name = name.to_owned();
        assert_eq!(manifest(&layers).unwrap_err().code(), "image.layer-name", "{name:?}");
    }
}

#[test]
fn one_name_for_two_layers_is_refused() {
    let mut layers = layers();
    layers[1].name = "model.onnx".to_owned();
    assert_eq!(manifest(&layers).unwrap_err().code(), "image.layer-name");
}

#[test]
fn foreign_media_types_sizes_and_digests_are_refused() {
    let weights = media_type::WEIGHTS;
    assert_eq!(edited(weights, "application/vnd.python.pickle"), "image.media-type");
    assert_eq!(edited("\"size\": 7", "\"size\": -1"), "image.form");
    assert_eq!(edited("\"size\": 7", "\"size\": 9223372036854775808"), "image.size");
    assert_eq!(edited("sha256:", "md5:"), "image.form");
}

#[test]
fn a_manifest_of_100_000_layers_is_refused() {
    let layers: Vec<_> =
        (0..100_000).map(|n| layer(LayerKind::Doc, &format!("{n}"), b"x")).collect();
    assert_eq!(manifest(&layers).unwrap_err().code(), "image.size");
    assert_eq!(manifest(&layers[..33]).unwrap_err().code(), "image.count");
}

#[test]
fn a_manifest_without_golden_tests_or_with_two_weights_is_refused() {
    assert_eq!(manifest(&layers()[..2]).unwrap_err().code(), "image.count");
    let mut twice = layers();
    twice.push(layer(LayerKind::Weights, "other.onnx", b"weights"));
    assert_eq!(manifest(&twice).unwrap_err().code(), "image.count");
}

#[test]
fn foreign_urls_are_refused() {
    let mut layers = layers();
    layers[0].blob.urls.push("http://127.0.0.1/model".to_owned());
    assert_eq!(manifest(&layers).unwrap_err().code(), "image.urls");
}

#[test]
fn a_list_of_chunks_is_of_the_whole_layer_or_refused() {
    let mut layers = layers();
    let chunks = crate::image::ChunkList::of(b"weights");
    layers[0].blob.annotations.insert(annotation::CHUNKS.to_owned(), chunks.write());
    assert_eq!(manifest(&layers).unwrap().layers()[0].chunks(), Some(chunks));
    assert_eq!(manifest(&layers).unwrap().layers()[1].chunks(), None);

    layers[0].blob.annotations.insert(annotation::CHUNKS.to_owned(), String::new());
    assert_eq!(manifest(&layers).unwrap_err().code(), "image.annotation");
}

#[test]
fn an_index_survives_its_writing_and_unknown_accelerators_are_refused() {
    let variant = Variant {
        manifest: Descriptor::of(media_type::MANIFEST, b"{}"),
        platform: Some(Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
        }),
        accelerator: Accelerator::Openvino,
        precision: "int8".to_owned(),
        min_memory_mb: 64,
    };
    let bytes = ModelIndex::write(std::slice::from_ref(&variant));

    let index = ModelIndex::parse(&bytes).unwrap();

    assert_eq!(index.variants()[0].accelerator, Accelerator::Openvino);
    assert_eq!(index.variants()[0].min_memory_mb, 64);
    let text = String::from_utf8(bytes).unwrap().replace("\"openvino\"", "\"abacus\"");
    assert_eq!(ModelIndex::parse(text.as_bytes()).unwrap_err().code(), "image.annotation");
}
