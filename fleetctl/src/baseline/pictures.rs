//! A folder of pictures as rows: of each what a device counts of it, by the same code.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, bail, ensure};
use indicatif::ProgressBar;
use sealift_protocol::image::{
    Colour, ImageTensor, IoContract, Layout, PictureInput, Role, TensorSpec,
};
use sealift_protocol::picture::{self, Figures};
use sealift_protocol::profile::{Baseline, BaselineBuilder, Season};

use crate::output::{note, printable};

/// Pictures that are read: four times as many as a baseline keeps, and an hour's work.
const PICTURES_MAX: usize = 200_000;
/// Files of any kind that a folder may have: a walk that goes on for longer is one of somebody's whole disk.
const FILES_MAX: usize = 1_000_000;
/// Folders within folders: by day, by camera, by class, and some to spare.
const DEPTH_MAX: usize = 16;
/// Bytes of a file: as many as a device takes in one request.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Pictures that are decoded at once; the largest is 100 MB of pixels.
const THREADS_MAX: usize = 8;
/// Pictures of one turn of a thread: enough that to start it costs nothing.
const TURN: usize = 32;
/// Files that are named when they cannot be read; the others are counted.
const NAMED_MAX: usize = 20;

/// What a picture is called by.
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// How a model is given pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct View {
    in_grey: bool,
    /// The only size that it takes; none for any.
    width: Option<usize>,
    height: Option<usize>,
}

/// The pictures of a folder.
#[derive(Debug)]
pub(crate) struct Pictures {
    /// What is counted of each, in the order of their names.
    pub(crate) rows: Vec<Figures>,
    /// Those that cannot be read, and why.
    pub(crate) skipped: Vec<(PathBuf, String)>,
}

impl View {
    /// What the contract says; without one, pictures as they are.
    pub(crate) fn of(contract: Option<&IoContract>) -> anyhow::Result<Self> {
        let Some(contract) = contract else { return Ok(Self::default()) };
        match contract.picture_input() {
            Some(PictureInput::Encoded(_)) => Ok(Self::default()),
            Some(PictureInput::Decoded(spec, image)) => Ok(Self::of_tensor(spec, image)),
            None => bail!(
                "the I/O contract does not take pictures, or several, or columns as well\nhelp: an `image` step in `processing`, or `image` at an input of pixels, says that one input is pictures"
            ),
        }
    }

    fn of_tensor(spec: &TensorSpec, image: &ImageTensor) -> Self {
        let first = if image.layout == Layout::Nhwc { 1 } else { 2 };
        let side =
            |place: usize| spec.shape.get(place).and_then(|&side| usize::try_from(side).ok());
        Self { in_grey: image.colour == Colour::Grey, width: side(first + 1), height: side(first) }
    }

    /// What is counted of a file, or why it is no picture that the model takes.
    fn look(self, path: &Path) -> Result<Figures, String> {
        // To open a pipe is to wait until somebody writes to it.
        let is_file = fs::metadata(path).map_err(|error| error.to_string())?.is_file();
        if !is_file {
            return Err("it is no file".to_owned());
        }
        let mut bytes = Vec::new();
        let opened =
            File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        let length = opened.map_err(|error| error.to_string())?;
        if u64::try_from(length).is_ok_and(|length| length > FILE_BYTES_MAX) {
            return Err(format!("more than {FILE_BYTES_MAX} bytes"));
        }
        let pixels = picture::decode(&bytes).map_err(|error| error.to_string())?;
        let (width, height) =
            (self.width.unwrap_or(pixels.width), self.height.unwrap_or(pixels.height));
        if (width, height) != (pixels.width, pixels.height) {
            return Err(format!(
                "{} x {} pixels, and the model takes {width} x {height}: save pictures as the application hands them over",
                pixels.width, pixels.height
            ));
        }
        Ok(if self.in_grey { pixels.figures_in_grey() } else { pixels.figures() })
    }
}

impl Pictures {
    /// Reads a folder and those in it. A picture that cannot be read is told and left out, or, if `is_strict`, ends it all.
    pub(crate) fn read(root: &Path, view: View, is_strict: bool) -> anyhow::Result<Self> {
        Self::of(root, view, is_strict)
            .with_context(|| format!("cannot read the pictures of {}", root.display()))
    }

    fn of(root: &Path, view: View, is_strict: bool) -> anyhow::Result<Self> {
        let files = files(root)?;
        ensure!(
            !files.is_empty(),
            "there is no picture in the directory\nhelp: files whose names end in .png, .jpg and .jpeg are taken; of rows, name one file"
        );
        let mut pictures = Self { rows: Vec::with_capacity(files.len()), skipped: Vec::new() };
        let bar = ProgressBar::new(files.len() as u64);
        let threads =
            thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
        for lot in files.chunks(threads * TURN) {
            for (file, looked) in lot.iter().zip(look_at(lot, root, view)) {
                match looked {
                    Ok(figures) => pictures.rows.push(figures),
                    Err(why) if is_strict => bail!("{}: {why}", shown(file)),
                    Err(why) => pictures.skipped.push((file.clone(), why)),
                }
            }
            bar.inc(lot.len() as u64);
        }
        bar.finish_and_clear();
        pictures.tell(root)?;
        Ok(pictures)
    }

    /// Says which files are left out, and fails if no other is there.
    fn tell(&self, root: &Path) -> anyhow::Result<()> {
        for (file, why) in self.skipped.iter().take(NAMED_MAX) {
            note(&format!("{} is left out: {}", shown(file), printable(why)));
        }
        let count = self.skipped.len();
        if count > 0 {
            let (all, root) = (count + self.rows.len(), root.display());
            note(&format!(
                "{count} of {all} pictures of {root} are left out; --strict refuses them"
            ));
        }
        ensure!(!self.rows.is_empty(), "not one of its pictures can be read");
        Ok(())
    }

    /// The baseline of these pictures, for a model of this contract.
    pub(crate) fn baseline(
        &self,
        contract: Option<&IoContract>,
        season: Option<Season>,
    ) -> anyhow::Result<Baseline> {
        let output = contract.and_then(|contract| contract.output_with(Role::Probabilities));
        let classes = output.map(|output| output.labels.clone()).unwrap_or_default();
        let mut builder = BaselineBuilder::new(picture::columns(), classes).with_joint();
        if let Some(season) = season {
            builder = builder.with_season(season);
        }
        for figures in &self.rows {
            builder.push(&figures.map(f64::from), None, None)?;
        }
        Ok(builder.build()?)
    }
}

/// Looks at files, some at a time; what is seen comes in their order.
fn look_at(files: &[PathBuf], root: &Path, view: View) -> Vec<Result<Figures, String>> {
    let look = |files: &[PathBuf]| {
        files.iter().map(|file| view.look(&root.join(file))).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let turns: Vec<_> =
            files.chunks(TURN).map(|turn| (turn.len(), scope.spawn(|| look(turn)))).collect();
        let all = turns.into_iter().flat_map(|(count, turn)| {
            turn.join().unwrap_or_else(|_| vec![Err("the decoder gave up".to_owned()); count])
        });
        all.collect()
    })
}

/// All pictures below a folder, by their names from there on, in the order of those. What begins with a dot is nobody's picture, and links to
/// folders are not followed.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut seen) = (Vec::new(), 0);
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let unreadable = || format!("cannot read the folder {}", folder.display());
        for entry in fs::read_dir(&folder).with_context(unreadable)? {
            let entry = entry.with_context(unreadable)?;
            seen += 1;
            ensure!(
                seen <= FILES_MAX,
                "more than {FILES_MAX} files\nhelp: name a folder of pictures alone"
            );
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            if entry.file_type().with_context(unreadable)?.is_dir() {
                ensure!(
                    depth < DEPTH_MAX,
                    "{}: more than {DEPTH_MAX} folders deep",
                    path.display()
                );
                folders.push((path, depth + 1));
            } else if is_picture(&path) {
                found.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
            }
        }
        ensure!(
            found.len() <= PICTURES_MAX,
            "more than {PICTURES_MAX} pictures\nhelp: a baseline keeps 50,000: take every n-th"
        );
    }
    found.sort();
    Ok(found)
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|given| EXTENSIONS.iter().any(|known| given.eq_ignore_ascii_case(known)))
}

fn shown(file: &Path) -> String {
    printable(&file.to_string_lossy())
}

#[cfg(test)]
mod tests;
