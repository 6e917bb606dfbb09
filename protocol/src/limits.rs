//! The limits that both ends of the wire must agree on; each with its unit and its reason.

/// A directive of 32 slots is about 6 KB; the design's aim is 4 KB for one.
pub const DIRECTIVE_BYTES_MAX: usize = 64 << 10;

/// Rollouts that one list of halted ones names. A tenant has a few at a time; this is a list that still fits one message.
pub const HALTED_MAX: usize = 2_000;

/// [`HALTED_MAX`] digests of 34 bytes each, a reason, a signature.
pub const HALT_BYTES_MAX: usize = 96 << 10;

/// OCI distribution specification, "pushing manifests": registries should take at least 4 MiB.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// An I/O contract names tensors and features: 10,000 features of 60 bytes fit.
pub const CONTRACT_BYTES_MAX: usize = 1 << 20;

/// A baseline holds about 200 bytes a feature.
pub const BASELINE_BYTES_MAX: usize = 8 << 20;

/// Golden tests hold a few inputs and outputs; a 224 x 224 RGB image is 600 KB in FP32.
pub const GOLDEN_BYTES_MAX: usize = 32 << 20;

/// A policy is a page of JSON.
pub const POLICY_BYTES_MAX: usize = 64 << 10;

/// One weight file. Larger models need variants or an external runtime.
pub const WEIGHTS_BYTES_MAX: u64 = 16 << 30;

/// Variants in one index, and layers in one manifest.
pub const VARIANTS_MAX: usize = 64;
/// Layers in one manifest.
pub const LAYERS_MAX: usize = 32;

/// One MQTT message in either direction; a profile window of 300 features is about 60 KB.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// A heartbeat, so that a fleet on metered links costs 160 bytes a minute and device.
pub const BEAT_BYTES_MAX: usize = 160;

/// A signed request to a device, in one MQTT message: an input of 40 KB, and what is asked.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;

/// An input that travels in the request itself; a longer one is fetched over HTTPS. Brokers keep messages in memory for each device.
pub const INPUT_HERE_BYTES_MAX: usize = 40 << 10;

/// The input of a test inference: a batch of 13 images of 224 x 224 in FP32, or a photograph.
pub const INPUT_BYTES_MAX: usize = 8 << 20;

/// An answer that travels over MQTT; a longer one goes up over HTTPS.
pub const ANSWER_HERE_BYTES_MAX: usize = 64 << 10;

/// An answer to a request: outputs of a test inference, or [`LOG_LINES_MAX`] of the longest lines.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Milliseconds between the signing of a request and its end. Nobody waits that long; clocks may differ by as much.
pub const REQUEST_LIFE_MS_MAX: i64 = 5 * 60_000;

/// Lines of a log tail.
pub const LOG_LINES_MAX: u32 = 1_000;

/// Characters of a line in a log tail; more is cut by the device.
pub const LOG_LINE_CHARS_MAX: usize = 500;

/// Slots (models) on one device.
pub const SLOTS_MAX: usize = 32;

/// Labels on one device, and the length of a key or a value.
pub const LABELS_MAX: usize = 64;
/// Characters of a label's key.
pub const LABEL_KEY_CHARS_MAX: usize = 40;
/// Characters of a label's value.
pub const LABEL_VALUE_CHARS_MAX: usize = 80;

/// Characters of a reason that a device gives; more is cut by the device.
pub const REASON_CHARS_MAX: usize = 400;

/// Features that one model's profile may hold.
pub const FEATURES_MAX: usize = 2_000;

/// JSON and CBOR nesting; the deepest of ours is 8.
pub const DEPTH_MAX: usize = 128;

/// Steps before and after a graph; real ones have a handful.
pub const STEPS_MAX: usize = 64;

/// The longest side of an image, in pixels, given or made; beyond that of any camera on a device.
pub const IMAGE_SIDE_MAX: u32 = 16_384;

/// The most pixels of an image that is given: 33 megapixels are 100 MB once decoded.
pub const IMAGE_PIXELS_MAX: u64 = 33 << 20;

/// Columns that a table becomes, or a file of rows has; as many as a profile may hold features, each with some categories.
pub const TABLE_COLUMNS_MAX: usize = 20_000;
/// Room that stays free besides an image: journal, spool, metadata and the system's own needs.
pub const DISK_RESERVE_BYTES: u64 = 32 << 20;

/// What a worker may write before it answers: caches of the inference library, compiled for this device.
pub const SCRATCH_BYTES: u64 = 16 << 20;

/// Models of which devices keep samples: people label a few at a time.
pub const CAPTURE_MODELS_MAX: usize = 64;

/// Characters of a retention notice: a paragraph.
pub const NOTICE_CHARS_MAX: usize = 400;

/// [`CAPTURE_MODELS_MAX`] policies with the longest notices, a key, a signature; it fits one message.
pub const CAPTURE_BYTES_MAX: usize = 192 << 10;

/// Samples that a device may keep in a day; more is not a sample but a copy of the traffic.
pub const CAPTURE_SAMPLES_A_DAY_MAX: u32 = 10_000;

/// KiB that a device may keep in a day: an hour of an uplink of 500 kbit/s.
pub const CAPTURE_KIB_A_DAY_MAX: u32 = 256 << 10;

/// Days that the server may keep a sample: ten years, as everything else.
pub const CAPTURE_KEEP_DAYS_MAX: u32 = 3_650;

/// Rows of one answer that are looked at one by one; of a longer one only chance keeps something, as one row.
pub const CAPTURE_ROWS_MAX: usize = 1_024;

/// Probabilities of one answer that are looked at while an application waits: 30 µs.
pub const CAPTURE_ELEMENTS_MAX: u64 = 65_536;

/// A sample in plain: an image of 512 x 512 in FP32, and its outputs.
pub const SAMPLE_BYTES_MAX: usize = 4 << 20;

/// A sample, encrypted: 16 bytes of a tag, 32 of a key, a head.
pub const SEALED_SAMPLE_BYTES_MAX: usize = SAMPLE_BYTES_MAX + 256;

/// The part of a sample, or of a batch's predictions, that goes up at a time: 4 s at 500 kbit/s, and no more than that is sent twice after a
/// cut.
pub const UPLOAD_PART_BYTES_MAX: usize = 256 << 10;

/// The predictions of one batch that go up to the server: ten million rows of a hundred bytes, in 4,096 parts.
pub const BATCH_RESULT_BYTES_MAX: u64 = 1 << 30;

/// Characters of an inference's name.
pub const INFERENCE_ID_CHARS_MAX: usize = 128;

/// Characters of a label that a person gives to a sample, or a model names.
pub const LABEL_CHARS_MAX: usize = 200;
