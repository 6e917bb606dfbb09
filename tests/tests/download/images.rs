//! Images that a publisher has signed and no device may take: refused before a layer is fetched, or before it is loaded.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::ensure;
use sealift_protocol::digest::Digest;
use sealift_protocol::id::ModelName;
use sealift_protocol::report::{OutcomeKind, Phase};
use sealift_tests::origin::{Conduct, Image, Origin, Wanted};
use sealift_tests::story::answers_with;

use super::Story;

/// Wants an image whose documents are bad. It is rejected with this code, and no layer of it was asked for.
async fn rejected(story: &mut Story, image: Image, code: &str) -> anyhow::Result<()> {
    // Its own weights: those of version 1 are on the device.
    let image = image.padded(1_000);
    let built = story.want(&image)?;

    story.ends(OutcomeKind::Rejected, code).await?;

    let weights = built.layer("model.onnx").into_iter();
    let asked: Vec<_> = weights.flat_map(|digest| story.origin.wire.asked(digest)).collect();
    ensure!(asked.is_empty(), "layers were fetched before the manifest was refused: {asked:?}");
    story.is_unharmed().await
}

/// The first size that comes after `place` in a document.
fn size_after(place: &str, text: &str) -> String {
    let begin = text.find(place).unwrap_or_default();
    let begin = text[begin..].find("\"size\": ").map_or(0, |at| begin + at);
    let end = text[begin..].find([',', '\n', '}']).map_or(text.len(), |at| begin + at);
    text[begin..end].to_owned()
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_negative_size_is_refused() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let image = Image::of("2")?
        .edit_manifest(|text| text.replacen(&size_after("\"layers\"", &text), "\"size\": -1", 1));
    rejected(&mut story, image, "image.form").await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_size_of_2_to_the_63_is_refused() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let image = Image::of("2")?.edit_manifest(|text| {
        text.replacen(&size_after("\"layers\"", &text), "\"size\": 9223372036854775808", 1)
    });
    rejected(&mut story, image, "image.size").await?;

    let image = Image::of("3")?.edit_index(|text| {
        text.replacen(&size_after("{", &text), "\"size\": 9223372036854775808", 1)
    });
    rejected(&mut story, image, "image.size").await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn md5_digests_are_refused() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let image = Image::of("2")?.edit_manifest(|text| text.replace("sha256:", "md5:"));
    rejected(&mut story, image, "image.form").await?;

    let image = Image::of("3")?.edit_index(|text| text.replace("sha256:", "md5:"));
    rejected(&mut story, image, "image.form").await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn foreign_urls_are_refused_and_never_asked() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let elsewhere = Origin::peer_with(&Image::of("1")?.build()?).await?;
    let urls = format!("\"urls\": [\"http://127.0.0.1:{}/x\"], \"size\"", elsewhere.port());
    let of_manifest = urls.clone();
    let image = Image::of("2")?.edit_manifest(move |text| text.replace("\"size\"", &of_manifest));
    rejected(&mut story, image, "image.urls").await?;

    let image = Image::of("3")?.edit_index(move |text| text.replace("\"size\"", &urls));
    rejected(&mut story, image, "image.urls").await?;
    ensure!(elsewhere.all_asked().is_empty(), "{:?}", elsewhere.all_asked());
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn names_that_lead_out_of_staging_are_refused() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let names = ["../../etc/x", "/etc/x", "..", "a/b", "model.onnx\\u0000.txt", ".hidden"];
    for (version, name) in (2..).zip(names) {
        let image = Image::of(&version.to_string())?
            .edit_manifest(move |text| text.replace("\"model.onnx\"", &format!("\"{name}\"")));
        rejected(&mut story, image, "image.layer-name").await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn one_name_for_two_layers_is_refused() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let image =
        Image::of("2")?.edit_manifest(|text| text.replace("\"golden.cbor\"", "\"contract.json\""));
    rejected(&mut story, image, "image.layer-name").await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn foreign_media_types_are_refused() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let weights = "application/vnd.cncf.model.weight.v1.raw";
    let types = ["application/vnd.oci.image.layer.v1.tar+gzip", "application/x-python-pickle"];
    for (version, foreign) in (2..).zip(types) {
        let image = Image::of(&version.to_string())?
            .edit_manifest(move |text| text.replace(weights, foreign));
        rejected(&mut story, image, "image.media-type").await?;
    }
    let index = "application/vnd.oci.image.index.v1+json";
    let image = Image::of("4")?.edit_index(move |text| text.replace(index, "text/html"));
    rejected(&mut story, image, "image.media-type").await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_manifest_of_100_000_layers_is_refused() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let many = |count: usize| {
        move |text: String| {
            let layer = format!(
                "{{\"mediaType\":\"application/vnd.cncf.model.doc.v1.raw\",\"size\":1,\"digest\":\"{}\"}},",
                Digest::of(b"x")
            );
            text.replace("\"layers\": [", &format!("\"layers\": [{}", layer.repeat(count)))
        }
    };
    // Longer than any manifest may be: the index that declares it is refused, and it is never fetched.
    let image = Image::of("2")?.edit_manifest(many(100_000));
    rejected(&mut story, image, "image.size").await?;
    let image = Image::of("3")?.edit_manifest(many(10_000));
    rejected(&mut story, image, "image.count").await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn pickles_offered_as_a_model_are_refused() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let files: [(&str, &[u8]); 3] = [
        (".pkl", b"\x80\x04\x95\x10\0\0\0\0\0\0\0csklearn"),
        (".pt", b"PK\x03\x04\0\0\0\0archive/data.pkl"),
        (".joblib", b"\x78\x9c\x4b\x2c\x4e\x01"),
    ];
    for (version, (extension, bytes)) in (2..).zip(files) {
        let image = Image::of(&version.to_string())?.with_weights(bytes);
        story.want(&image)?;

        let slot = story.ends(OutcomeKind::Rejected, "onnx.foreign").await?;

        let reason = slot.outcome.map(|outcome| outcome.reason).unwrap_or_default();
        ensure!(reason.contains("export the model to ONNX"), "{extension}: {reason}");
        story.is_unharmed().await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn an_image_for_more_memory_than_there_is_does_not_apply() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let mut image = Image::of("2")?;
    image.min_memory_mb = 1 << 40;
    story.want(&image)?;

    let slot = story.ends(OutcomeKind::NotApplicable, "image.no-variant").await?;

    let reason = slot.outcome.map(|outcome| outcome.reason).unwrap_or_default();
    ensure!(reason.contains("1099511627776 MiB"), "what it needs is not said: {reason}");
    story.is_unharmed().await
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn a_link_that_waits_in_staging_is_not_followed() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let image = Image::of("2")?.padded(1_000);
    let built = story.origin.publish(&image)?;
    let outside = story.directory.path().join("precious");
    fs::write(&outside, b"precious")?;
    let partial = story.device.store.join("slots").join(format!("{}.partial", built.index.hex()));
    fs::create_dir_all(&partial)?;
    for name in ["model.onnx", "contract.json", "index.json", "manifest.json", "config.json"] {
        symlink(&outside, partial.join(name))?;
        symlink(&outside, partial.join(format!("{name}.new")))?;
    }

    story.want_again(&image, &built)?;

    story.serves("2").await?;
    ensure!(fs::read(&outside)? == b"precious", "a file outside was written through a link");
    let weights = story.device.store.join("slots").join(built.index.hex()).join("model.onnx");
    ensure!(fs::symlink_metadata(weights)?.is_file(), "the link is still there");
    Ok(())
}

#[tokio::test]
#[ignore = "needs the programs"]
async fn of_two_slots_the_one_whose_blob_is_withheld_stays_as_it_was() -> anyhow::Result<()> {
    let mut story = Story::begin().await?;
    let mut other = Image::of("1")?;
    other.model = ModelName::parse("vision/letters")?;
    let first = Image::of("2")?.padded(1_000);
    let (built, of_other) = (story.origin.publish(&first)?, story.origin.publish(&other)?);
    let weights = built.layer("model.onnx").unwrap_or(built.index);
    story.origin.wire.behave(weights, Conduct::Status(404));

    story.origin.direct(&[Wanted::new(&first, &built), Wanted::new(&other, &of_other)])?;

    let held = story
        .until("the other model serves, and this one waits", |slot| {
            let report = story.device.reported().ok();
            let letters = report
                .and_then(|report| sealift_tests::origin::reported(&report, &other.model))
                .and_then(|slot| slot.serving);
            letters.is_some() && matches!(slot.phase, Phase::Downloading | Phase::Waiting)
        })
        .await?;
    ensure!(held.serving.is_some_and(|image| image.version.as_str() == "1"), "half an image");
    answers_with(&story.device, "1").await?;
    story.origin.wire.relent();
    story.serves("2").await
}
