//! `fleetctl model`.

mod baseline;

pub(crate) use baseline::MakeBaseline;

use std::path::Path;

use sealift_protocol::api::{ModelView, VersionView};
use sealift_protocol::digest::Digest;
use sealift_protocol::id::{Epoch, ModelName, Version};
use sealift_protocol::image::{ImageManifest, IoContract, ModelIndex};
use serde::Serialize;

use crate::cli::Model;
use crate::client::Client;
use crate::image::Image;
use crate::output::{Output, note, or_dash, table, word};
use crate::trust::model::Signing;
use crate::trust::publish::{Holding, Outcome};
use crate::trust::view::View;
use crate::{registry, trust};

/// `connect` is called only by what needs a server: making a baseline and inspecting a directory do not.
pub(crate) async fn run(
    connect: impl Fn() -> anyhow::Result<Client>,
    output: Output,
    model: Model,
) -> anyhow::Result<()> {
    match model {
        Model::List => list(&connect()?, output).await,
        Model::Get { version: (model, version) } => {
            let path = format!("models/{model}/versions/{version}");
            let view: VersionView = connect()?.get(&path, &[]).await?;
            output.text(&view, text)
        }
        Model::Baseline(make) => baseline::run(connect, output, &make).await,
        Model::Push { directory } => push(&connect()?, output, &directory).await,
        Model::Sign { version: (model, version), holding, epoch, expires_days } => {
            let signing = Signing { model, version, epoch: Epoch(epoch), expires_days };
            sign(&connect()?, output, &signing, &holding).await
        }
        Model::Verify { version: (model, version), root } => {
            let verified =
                trust::model::verify(&connect()?, &model, &version, root.as_deref()).await?;
            output.text(&verified, |verified| {
                format!(
                    "{model}@{version} is what {} signed: {} ({} blobs, {} bytes checked)",
                    verified.role, verified.digest, verified.blobs, verified.size_bytes,
                )
            })
        }
        Model::Delete { version: (model, version) } => {
            let deleted = registry::delete(&connect()?, &model, &version).await?;
            output.text(&deleted, |digest| format!("{model}@{version} is deleted: {digest}"))
        }
        Model::Inspect { source } => inspect(connect, output, &source).await,
    }
}

/// What was signed.
#[derive(Serialize)]
struct Signed {
    target: String,
    digest: Digest,
    role: String,
    #[serde(flatten)]
    outcome: Outcome,
}

async fn sign(
    client: &Client,
    output: Output,
    signing: &Signing,
    holding: &Holding,
) -> anyhow::Result<()> {
    let index = signing.index(client).await?;
    let draft = |view: &View, now| signing.draft(view, &index, now);
    let outcome = holding.carry_out(client, None, draft).await?;
    let (target, digest, role) = (signing.target(), Digest::of(&index), signing.role());
    let signed = Signed { target, digest, role, outcome };
    output.text(&signed, |signed| match &signed.outcome {
        Outcome::Staged { .. } => signed.outcome.text(),
        Outcome::Unchanged | Outcome::Published { .. } => {
            format!("{} is signed: {} by {}", signed.target, signed.digest, signed.role)
        }
    })
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let models: Vec<ModelView> = client.list("models", &[]).await?;
    let rows = models.iter().flat_map(|model| &model.versions).map(|version| {
        [
            version.model.to_string(),
            version.version.to_string(),
            word(version.state),
            version.digest.short(),
            version.devices.to_string(),
            version.description.clone(),
        ]
    });
    output.rows(&models, ["MODEL", "VERSION", "STATE", "DIGEST", "DEVICES", "DESCRIPTION"], rows)
}

fn text(version: &VersionView) -> String {
    let rollouts: Vec<_> = version.rollouts.iter().map(ToString::to_string).collect();
    format!(
        "{}@{}\nstate      {}{}\ndigest     {}\nsigned by  {}\nsize       {} bytes\npushed     {}\n\
         epoch      {}\nvariants   {}\nbaseline   {}\ndevices    {}\nrollouts   {}\n{}",
        version.model,
        version.version,
        word(version.state),
        version.quarantine_reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default(),
        version.digest,
        version.signed_by.join(", "),
        version.size_bytes,
        version.pushed_at,
        version.epoch.0,
        version.variants.join(", "),
        if version.has_baseline { "yes" } else { "no: drift cannot be judged" },
        version.devices,
        rollouts.join(", "),
        version.contract.as_ref().map(contract).unwrap_or_default(),
    )
}

fn contract(contract: &IoContract) -> String {
    let rows = |kind: &'static str, specs: &[sealift_protocol::image::TensorSpec]| {
        let row = |spec: &sealift_protocol::image::TensorSpec| {
            let role = or_dash(spec.role.map(word));
            let shape = format!("{:?}", spec.shape);
            [kind.to_owned(), spec.name.clone(), spec.datatype.to_string(), shape, role]
        };
        specs.iter().map(row).collect::<Vec<_>>()
    };
    let rows = [rows("input", &contract.inputs), rows("output", &contract.outputs)].concat();
    table(["", "TENSOR", "TYPE", "SHAPE", "ROLE"], rows)
}

async fn push(client: &Client, output: Output, directory: &Path) -> anyhow::Result<()> {
    let image = Image::build(directory)?;
    let pushed = registry::push(client, &image).await?;
    output
        .text(&pushed, |pushed| format!("{}@{} {}", pushed.model, pushed.version, pushed.digest))?;
    note(&format!(
        "{} bytes, {} blobs sent; next: fleetctl model sign {}@{} --epoch {} --key KEY.pem",
        pushed.size_bytes, pushed.uploaded, pushed.model, pushed.version, image.epoch,
    ));
    Ok(())
}

/// What an image holds.
#[derive(Serialize)]
struct Inspection {
    digest: Digest,
    variants: Vec<VariantInspection>,
}

#[derive(Serialize)]
struct VariantInspection {
    manifest: Digest,
    accelerator: String,
    precision: String,
    layers: Vec<(String, u64, Digest)>,
}

async fn inspect(
    connect: impl Fn() -> anyhow::Result<Client>,
    output: Output,
    source: &str,
) -> anyhow::Result<()> {
    let inspection = match source.split_once('@') {
        Some((model, version)) => {
            remote(&connect()?, &ModelName::parse(model)?, &Version::parse(version)?).await?
        }
        None => local(Path::new(source))?,
    };
    output.text(&inspection, |inspection| {
        let rows = inspection.variants.iter().flat_map(|variant| {
            let name = format!("{}/{}", variant.accelerator, variant.precision);
            variant.layers.iter().map(move |(layer, size, digest)| {
                [name.clone(), layer.clone(), size.to_string(), digest.to_string()]
            })
        });
        format!("{}\n{}", inspection.digest, table(["VARIANT", "LAYER", "BYTES", "DIGEST"], rows))
    })
}

fn local(directory: &Path) -> anyhow::Result<Inspection> {
    let image = Image::build(directory)?;
    inspection(&image.index, image.manifests)
}

async fn remote(
    client: &Client,
    model: &ModelName,
    version: &Version,
) -> anyhow::Result<Inspection> {
    let index = registry::manifest(client, model, version.as_str()).await?;
    let mut manifests = Vec::new();
    for variant in ModelIndex::parse(&index)?.variants() {
        let digest = variant.manifest.digest.to_string();
        manifests.push(registry::manifest(client, model, &digest).await?);
    }
    inspection(&index, manifests)
}

fn inspection(index: &[u8], manifests: Vec<Vec<u8>>) -> anyhow::Result<Inspection> {
    let parsed = ModelIndex::parse(index)?;
    let variants = parsed.variants().iter().zip(manifests).map(|(variant, bytes)| {
        let manifest = ImageManifest::parse(&bytes)?;
        let layers = manifest.layers().iter();
        Ok(VariantInspection {
            manifest: variant.manifest.digest,
            accelerator: variant.accelerator.to_string(),
            precision: variant.precision.clone(),
            layers: layers
                .map(|layer| (layer.name.clone(), layer.blob.size, layer.blob.digest))
                .collect(),
        })
    });
    Ok(Inspection { digest: Digest::of(index), variants: variants.collect::<anyhow::Result<_>>()? })
}
