//! The storage behind a cloud of the test bed: what a volume holds, past all APIs.

use crate::{MadeServer, Site, pods::command, site::setting};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

const MIB: u64 = 1 << 20;

/// What a volume holds: random bytes in some places, zeros in all others.
pub struct Content {
    file: NamedTempFile,
    /// The volume's size.
    pub gib: u64,
    /// How much of it is random, in bytes.
    pub random: u64,
}

impl Content {
    /// `places` are `(from, length)` in MiB.
    pub async fn new(gib: u64, places: &[(u64, u64)]) -> Result<Self> {
        let file = NamedTempFile::new()?;
        file.as_file().set_len(gib << 30)?;
        for (from, length) in places {
            let (path, from) = (file.path().display(), from.to_string());
            let (of, seek, count) = (format!("of={path}"), format!("seek={from}"), format!("count={length}"));
            let how = ["bs=1M", "iflag=fullblock", "conv=notrunc", "status=none"];
            command("dd", &[&["if=/dev/urandom", &of, &seek, &count][..], &how].concat()).await?;
        }
        let random = places.iter().map(|(_, length)| length * MIB).sum();
        Ok(Self { file, gib, random })
    }

    /// Random from its first to its last byte.
    pub async fn full(gib: u64) -> Result<Self> {
        Self::new(gib, &[(0, gib << 10)]).await
    }

    fn path(&self) -> Result<&str> {
        self.file.path().to_str().context("a path")
    }
}

impl Site {
    /// A stopped server with a root volume of its own and a data volume for each of `contents`.
    pub async fn make_stopped(&self, name: &str, contents: &[Content]) -> Result<MadeServer> {
        let mut made = self.make_server(name, crate::Disks::ROOT).await?;
        // In B a stopped server runs for a moment.
        if contents.iter().any(|content| content.random == 0) {
            let guest = made.guest()?;
            guest.wait(&[]).await?;
            guest.keep_empty_disks().await?;
        }
        self.cloud.stop_server(&made.id).await?;
        self.wait_server(&made.id, "SHUTOFF").await?;
        for (n, content) in contents.iter().enumerate() {
            let volume =
                json!({"name": format!("{name}-data-{n}"), "size": content.gib, "volume_type": "nfs"});
            let volume = self.make_volume(volume).await?;
            let file = self.file(&volume)?;
            let to = file.to_str().context("a path")?;
            let how = ["convert", "-n", "--target-is-zero", "-f", "raw", "-O", "qcow2"];
            command("qemu-img", &[&how[..], &[content.path()?, to]].concat()).await?;
            self.attach(&made.id, &volume).await?;
            made.data.push(volume);
        }
        Ok(made)
    }

    /// A volume that no guest uses holds exactly that.
    pub async fn holds(&self, volume: &str, content: &Content) -> Result<()> {
        let file = self.file(volume)?;
        let compare = ["compare", "-U", "-f", "raw", content.path()?, file.to_str().context("a path")?];
        let said = command("qemu-img", &compare).await.context("it is not what A held")?;
        ensure!(said.contains("identical"), "volume {volume} in {}: {said}", self.name);
        Ok(())
    }

    /// The file that is a volume on the share of this cloud's Cinder.
    fn file(&self, volume: &str) -> Result<PathBuf> {
        let letter = self.name.trim_start_matches("site-");
        let share = Path::new(&setting("TESTBED_DIR")?).join("clouds").join(letter).join("share");
        Ok(share.join(format!("volume-{volume}")))
    }
}
