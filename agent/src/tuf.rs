//! `fleet-agent tuf`: the device's TUF client by itself, on any repository. A person finds out with it what a device would trust;
//! the public conformance suite for TUF clients calls it as it stands.
//!
//! What is trusted lies in one directory, byte for byte as it came, under names without versions. Time is the system's clock as it
//! stands: unlike the agent, this command takes no earlier time for wrong.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use reqwest::{Client as Http, Response, StatusCode};
use sealift_protocol::tuf::client::{Client, Need, Persist, RoleNames, TARGETS_FOLDER, Want};
use sealift_protocol::tuf::metadata::Root;
use sealift_protocol::tuf::signed::Signed;
use sealift_protocol::tuf::{Role, TARGET_FILE_BYTES_MAX, TufError};

use crate::clock::Clock;
use crate::disk::{self, Secrecy};
use crate::trust::{self, files};

/// One file, from the connection to its last byte: a repository that sends a byte a minute ends an update instead of holding it.
const FETCH_MAX: Duration = Duration::from_mins(1);

/// No file of metadata is longer.
const FILE_BYTES_MAX: u64 = 5 << 20;

/// What `fleet-agent tuf` is asked.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Directory of the metadata that are trusted
    #[arg(long)]
    metadata_dir: PathBuf,
    /// Where the repository serves its metadata
    #[arg(long)]
    metadata_url: Option<String>,
    /// Path of the target to download
    #[arg(long)]
    target_name: Option<String>,
    /// Where the repository serves its targets
    #[arg(long)]
    target_base_url: Option<String>,
    /// Directory for what is downloaded
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Trusts a root that came by a safe way
    Init {
        /// File of the root
        root: PathBuf,
    },
    /// Brings the metadata up to date
    Refresh,
    /// Brings the metadata up to date, then downloads one target of at most 1 MiB
    Download,
}

/// Why the command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The metadata are refused, or the target is not in them.
    #[error("{}", error.code())]
    Tuf {
        /// What the rules say.
        #[from]
        #[source]
        error: TufError,
    },
    /// An argument that this command needs.
    #[error("--{0} is missing")]
    Argument(&'static str),
    /// A target that cannot be a file below the directory of targets.
    #[error("target {0:?} is no path below a directory")]
    TargetName(String),
    /// A file cannot be read or written.
    #[error("cannot read or write {path}")]
    Disk {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The repository is out of reach.
    #[error("cannot fetch {file}")]
    Fetch {
        /// Which file.
        file: String,
        /// What happened.
        #[source]
        source: reqwest::Error,
    },
    /// The repository answers with something other than a file, or that it has none.
    #[error("repository answers {status} to {file}")]
    Status {
        /// Which file.
        file: String,
        /// Its answer.
        status: StatusCode,
    },
}

/// Does what was asked.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let Arguments { metadata_dir, metadata_url, .. } = &arguments;
    disk::private_dir(metadata_dir).map_err(at(metadata_dir))?;
    if let Command::Init { root } = &arguments.command {
        return init(metadata_dir, root);
    }
    let metadata_url = given(metadata_url.as_deref(), "metadata-url")?;
    let target = match arguments.command {
        Command::Download => Some(Target::of(&arguments)?),
        Command::Init { .. } | Command::Refresh => None,
    };
    Update::open(metadata_dir, metadata_url, target.as_ref())?.carry_out().await
}

fn given<'a, T: ?Sized>(value: Option<&'a T>, name: &'static str) -> Result<&'a T, CommandError> {
    value.ok_or(CommandError::Argument(name))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CommandError {
    let path = path.to_owned();
    move |source| CommandError::Disk { path, source }
}

/// TUF 5.2: trust begins with a root that came by another way than the repository. One that does not vouch for itself is no root.
fn init(metadata_dir: &Path, root: &Path) -> Result<(), CommandError> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let bytes = disk::read(root, FILE_BYTES_MAX).map_err(at(root))?;
    let bytes = bytes.ok_or_else(missing).map_err(at(root))?;
    let anchor = Signed::<Root>::parse(Role::Root, bytes)?.anchor()?;
    let path = metadata_dir.join(Role::Root.file());
    disk::replace(&path, anchor.bytes(), Secrecy::Public).map_err(at(&path))
}

/// A target, where it comes from, and where it shall go.
#[derive(Debug)]
struct Target<'a> {
    name: &'a str,
    base_url: &'a str,
    dir: &'a Path,
}

impl<'a> Target<'a> {
    fn of(arguments: &'a Arguments) -> Result<Self, CommandError> {
        let name = given(arguments.target_name.as_deref(), "target-name")?;
        let base_url = given(arguments.target_base_url.as_deref(), "target-base-url")?;
        let dir = given(arguments.target_dir.as_deref(), "target-dir")?;
        let is_below =
            Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if is_below && !name.is_empty() {
            Ok(Self { name, base_url, dir })
        } else {
            Err(CommandError::TargetName(name.to_owned()))
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(self.name)
    }
}

/// One update: a client, and the two places between which it decides.
struct Update<'a> {
    client: Client,
    http: Http,
    metadata_dir: &'a Path,
    metadata_url: &'a str,
    target: Option<&'a Target<'a>>,
}

impl<'a> Update<'a> {
    fn open(
        metadata_dir: &'a Path,
        metadata_url: &'a str,
        target: Option<&'a Target<'a>>,
    ) -> Result<Self, CommandError> {
        let mut stored = metadata(metadata_dir)?;
        if let Some(target) = target {
            let path = target.path();
            let bytes_max = TARGET_FILE_BYTES_MAX as u64;
            // One that is larger is no copy of a target that could be downloaded.
            if let Ok(Some(bytes)) = disk::read(&path, bytes_max) {
                stored.insert(format!("{TARGETS_FOLDER}{}", target.name), bytes);
            }
        }
        let client = Client::open(stored, RoleNames::Any)?;
        let http = Http::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(FETCH_MAX)
            .build();
        let unready = |source| CommandError::Fetch { file: metadata_url.to_owned(), source };
        Ok(Self { client, http: http.map_err(unready)?, metadata_dir, metadata_url, target })
    }

    async fn carry_out(mut self) -> Result<(), CommandError> {
        self.client.refresh(Clock::unfloored_now());
        self.fetch_all().await?;
        if let Some(target) = self.target {
            self.client.want(Want::File(target.name.to_owned()));
            self.fetch_all().await?;
        }
        Ok(())
    }

    async fn fetch_all(&mut self) -> Result<(), CommandError> {
        while let Some(need) = self.client.need()? {
            let answer = self.fetch(&need).await?;
            let changes = self.client.on(answer)?;
            self.persist(changes)?;
        }
        Ok(())
    }

    /// A file; none where the repository has none. Storage services say "forbidden" of what they do not have.
    async fn fetch(&self, need: &Need) -> Result<Option<Vec<u8>>, CommandError> {
        let Need { file, max_bytes } = need;
        let (base, path) = match (file.strip_prefix(TARGETS_FOLDER), self.target) {
            (Some(path), Some(target)) => (target.base_url, path),
            _ => (self.metadata_url, file.as_str()),
        };
        let url = format!("{}/{path}", base.trim_end_matches('/'));
        let failed = |source| CommandError::Fetch { file: file.clone(), source };
        let response = self.http.get(url).send().await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => read(response, *max_bytes).await.map_err(failed).map(Some),
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => Ok(None),
            status => Err(CommandError::Status { file: file.clone(), status }),
        }
    }

    fn persist(&self, mut changes: Vec<Persist>) -> Result<(), CommandError> {
        let mut dir = self.metadata_dir;
        if let (Some(target), [Persist::Write { name, .. }]) = (self.target, &mut changes[..])
            && let Some(path) = name.strip_prefix(TARGETS_FOLDER)
        {
            (dir, *name) = (target.dir, path.to_owned());
        }
        files::change(dir, changes, Secrecy::Public).map_err(refused)
    }
}

/// Reads one byte more than may come, at most: the client refuses what is too long, and says so.
async fn read(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > max_bytes {
            bytes.truncate(max_bytes.saturating_add(1));
            break;
        }
    }
    Ok(bytes)
}

fn metadata(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>, CommandError> {
    files::recover(dir, Secrecy::Public).map_err(refused)?;
    trust::kept_metadata(dir).map_err(refused)
}

fn refused((path, source): files::Refused) -> CommandError {
    CommandError::Disk { path, source }
}
