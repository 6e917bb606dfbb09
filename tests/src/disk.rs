//! A small disk of its own: a file system in memory, which only root can mount.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

/// A disk that is there until it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a disk of `size_mib` MiB at a directory, which is made.
    pub fn mount(at: &Path, size_mib: u32) -> anyhow::Result<Self> {
        fs::create_dir_all(at)?;
        let size = format!("size={size_mib}m,mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status()?;
        ensure!(mounted.success(), "cannot mount a disk at {}", at.display());
        Ok(Self(at.to_owned()))
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.0
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Fills the disk to its last byte, as somebody else on the device would.
    pub fn fill(&self) -> anyhow::Result<()> {
        self.fill_but(0)
    }

    /// Leaves this many bytes.
    pub fn fill_but(&self, bytes: usize) -> anyhow::Result<()> {
        let mut file = File::create(self.ballast())?;
        let block = vec![0; 64 << 10];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&[0; 512]).is_ok() {}
        let length = file.metadata()?.len().saturating_sub(u64::try_from(bytes)?);
        Ok(file.set_len(length)?)
    }

    /// Takes away what filled it.
    pub fn empty(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process may hold a file for a moment longer.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
