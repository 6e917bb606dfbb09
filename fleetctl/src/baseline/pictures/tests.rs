use sealift_protocol::picture::figure;
use sealift_protocol::profile::{Profile, Profiler};
use tempfile::TempDir;

use super::*;

/// The pictures that the steps before a graph are tested by.
fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/images");
    fs::read(folder.join(name)).unwrap()
}

/// A folder with these files of the fixtures under other names.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, fixture) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, self::fixture(fixture)).unwrap();
    }
    folder
}

fn read(folder: &TempDir) -> Pictures {
    Pictures::read(folder.path(), View::default(), false).unwrap()
}

fn contract(input: &str) -> IoContract {
    let json = format!(
        r#"{{"schema":1,"inputs":[{input}],"outputs":[{{"name":"y","datatype":"FP32","shape":[-1]}}]}}"#
    );
    IoContract::parse(json.as_bytes()).unwrap()
}

const FILES: [(&str, &str); 5] = [
    ("b.PNG", "wide.png"),
    ("a/z.jpg", "wide.jpg"),
    ("a/b/c.jpeg", "tall.jpg"),
    ("c.png", "tall.png"),
    ("grey.png", "grey.png"),
];

#[test]
fn pictures_come_in_the_order_of_their_names_and_other_files_are_none() {
    let folder = folder(&FILES);
    for name in ["notes.txt", ".hidden.png", "a/labels.csv"] {
        fs::write(folder.path().join(name), b"no picture").unwrap();
    }
    let pictures = read(&folder);
    let width = figure("image.width").unwrap();
    let widths: Vec<_> = pictures.rows.iter().map(|row| row[width]).collect();
    assert_eq!(
        widths,
        [29.0, 61.0, 61.0, 29.0, 61.0],
        "a/b/c.jpeg, a/z.jpg, b.PNG, c.png, grey.png"
    );
    assert!(pictures.skipped.is_empty());
}

#[test]
fn the_same_files_make_the_same_baseline_to_the_byte() {
    let made = |files: &[(&str, &str)]| {
        let folder = folder(files);
        read(&folder).baseline(None, None).unwrap().encode().unwrap()
    };
    let mut turned = FILES;
    turned.reverse();
    assert_eq!(made(&FILES), made(&turned));
    assert_ne!(made(&FILES), made(&FILES[..4]));
}

/// What a device counts of these pictures is the reference, bin by bin.
#[test]
fn a_device_that_sees_these_pictures_counts_the_reference() {
    let pictures = read(&folder(&FILES));
    let baseline = pictures.baseline(None, None).unwrap();
    let mut profiler = Profiler::new(&baseline);
    pictures.rows.iter().for_each(|row| profiler.observe(row, None, None, None));
    let profile: Profile = profiler.close();
    let features = baseline.features().iter().take(baseline.inputs());
    for (feature, counts) in features.zip(profile.numeric()) {
        let reference = feature.numeric().unwrap();
        assert_eq!(counts.bins(reference), reference.counts_with_tails(), "{}", feature.name);
    }
}

#[test]
fn a_picture_that_cannot_be_read_is_told_and_left_out_or_ends_it() {
    let folder = folder(&FILES);
    let whole = fixture("wide.png");
    fs::write(folder.path().join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(folder.path().join("really-a-gif.jpg"), b"GIF89a").unwrap();
    fs::write(folder.path().join("d.jpg"), fixture("cmyk.jpg")).unwrap();

    let pictures = read(&folder);
    let skipped: Vec<_> = pictures.skipped.iter().map(|(file, _)| file.to_str().unwrap()).collect();
    assert_eq!(skipped, ["cut.png", "d.jpg", "really-a-gif.jpg"]);
    assert_eq!(pictures.rows.len(), FILES.len());

    let strict = Pictures::read(folder.path(), View::default(), true).unwrap_err();
    let told = format!("{strict:#}");
    assert!(told.contains("cut.png: broken"), "{told}");
}

#[test]
fn nobody_waits_for_a_pipe_among_the_pictures() {
    let folder = folder(&FILES);
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("a.png")).status();
    assert!(made.unwrap().success());
    let (told, heard) = std::sync::mpsc::channel();
    // A thread that waits for ever is left to the end of the tests.
    thread::spawn(move || told.send(read(&folder)));

    let pictures = heard.recv_timeout(std::time::Duration::from_secs(30)).unwrap();

    assert_eq!(pictures.skipped, [(PathBuf::from("a.png"), "it is no file".to_owned())]);
    assert_eq!(pictures.rows.len(), FILES.len());
}

#[test]
fn a_folder_without_a_picture_is_refused() {
    let told = |folder: &TempDir| {
        format!("{:#}", Pictures::read(folder.path(), View::default(), false).unwrap_err())
    };
    let folder = folder(&[]);
    assert!(told(&folder).contains("no picture in the directory"), "{}", told(&folder));
    fs::write(folder.path().join("a.png"), b"no").unwrap();
    assert!(told(&folder).contains("not one of its pictures can be read"), "{}", told(&folder));
}

#[test]
fn the_contract_says_in_which_size_and_colours_pictures_are_seen() {
    let tensor = |shape: &str, image: &str| {
        let input = format!(r#"{{"name":"x","datatype":"FP32","shape":{shape},"image":{image}}}"#);
        View::of(Some(&contract(&input))).unwrap()
    };
    let grey = tensor("[-1,1,37,61]", r#"{"colour":"grey"}"#);
    let rgb = tensor("[-1,53,29,3]", r#"{"layout":"nhwc"}"#);
    let any = tensor("[-1,3,-1,-1]", "{}");
    assert_eq!((rgb.width, rgb.height, any), (Some(29), Some(53), View::default()));

    let folder = folder(&FILES);
    let pictures = Pictures::read(folder.path(), grey, false).unwrap();
    let saturation = figure("image.saturation").unwrap();
    assert_eq!(pictures.skipped.len(), 2);
    assert!(pictures.skipped[0].1.contains("29 x 53 pixels, and the model takes 61 x 37"));
    assert!(pictures.rows.iter().all(|row| row[saturation] == 0.0));

    let rows =
        r#"{"name":"x","datatype":"FP32","shape":[-1,1],"features":[{"name":"a","group":"g"}]}"#;
    let refused = View::of(Some(&contract(rows))).unwrap_err().to_string();
    assert!(refused.contains("does not take pictures"), "{refused}");
}
