//! The application in the guest: what it serves from each disk, and writing to it.

use crate::{site::http, until_seldom};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeMap, time::Duration};

/// A guest by its address.
#[derive(Clone, Debug)]
pub struct Guest {
    address: String,
    client: reqwest::Client,
}

/// What a guest serves, by address of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page(BTreeMap<String, Vec<u8>>);

impl Guest {
    /// The guest at an address.
    pub fn at(address: &str) -> Result<Self> {
        Ok(Self { address: address.into(), client: http()? })
    }

    /// One document.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>> {
        let request = self.client.get(format!("http://{}{path}", self.address));
        let answer = request.timeout(Duration::from_secs(60)).send().await?.error_for_status()?;
        Ok(answer.bytes().await?.to_vec())
    }

    /// One document as text.
    pub async fn text(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.get(path).await?).into_owned())
    }

    /// Waits until the guest serves its root disk and `mounts`, such as `/data`.
    pub async fn wait(&self, mounts: &[&str]) -> Result<()> {
        until_seldom(&format!("the guest at {} to serve {mounts:?}", self.address), 300, || async {
            let page = self.text("/cgi-bin/app").await?;
            let there = |m: &str| page.lines().any(|line| line.starts_with(&format!("{m} ")));
            Ok((there("/www") && mounts.iter().all(|m| there(m))).then_some(()))
        })
        .await
    }

    /// Does the guest answer?
    pub async fn answers(&self) -> bool {
        let request = self.client.get(format!("http://{}/root.txt", self.address));
        request.timeout(Duration::from_secs(3)).send().await.is_ok()
    }

    /// Writes a line to every disk, and a text of its own to each of `mounts`; the guest syncs.
    pub async fn write(&self, text: &str, mounts: &[&str]) -> Result<()> {
        let said = self.text(&format!("/cgi-bin/put?root=mine.txt={text}-root")).await?;
        ensure!(said.trim().ends_with("ok"), "the guest says {said:?}");
        for mount in mounts {
            let key = mount.trim_start_matches('/');
            let said = self.text(&format!("/cgi-bin/put?{key}=mine.txt={text}-{key}")).await?;
            ensure!(said.trim() == "ok", "the guest says {said:?} for {mount}");
        }
        self.get(&format!("/cgi-bin/app?add={text}")).await.map(drop)
    }

    /// An empty disk gets no file system, here and wherever this root disk runs.
    pub async fn keep_empty_disks(&self) -> Result<()> {
        let said = self.text("/cgi-bin/put?root=keepempty=1").await?;
        ensure!(said.trim() == "ok", "the guest says {said:?}");
        Ok(())
    }

    /// Fills a file on the first data disk with random bytes.
    pub async fn fill(&self, mib: u32) -> Result<()> {
        self.get(&format!("/cgi-bin/put?fill=random.bin={mib}")).await.map(drop)
    }

    /// Everything that the application serves from its root disk and from `mounts`.
    pub async fn page(&self, mounts: &[&str]) -> Result<Page> {
        let mut page = BTreeMap::new();
        for path in ["/cgi-bin/app", "/root.txt", "/mine.txt"] {
            page.insert(path.to_string(), self.get(path).await?);
        }
        for path in mounts.iter().flat_map(|m| [format!("{m}/mine.txt"), format!("{m}/ledger.txt")]) {
            page.insert(path.clone(), self.get(&path).await.with_context(|| path.clone())?);
        }
        if let Ok(random) = self.get("/data/random.bin").await {
            page.insert("/data/random.bin".into(), random);
        }
        Ok(Page(page))
    }

    /// Which device is mounted where, as `vdb /data`.
    pub async fn mounts(&self) -> Result<Vec<String>> {
        let info = self.text("/cgi-bin/info").await?;
        let line = |l: &str| {
            let mut words = l.split(' ');
            let (device, place) = (words.next()?.strip_prefix("/dev/")?, words.next()?);
            device.starts_with("vd").then(|| format!("{device} {place}"))
        };
        let mut mounts: Vec<_> = info.lines().filter_map(line).filter(|l| l.contains("/data")).collect();
        mounts.sort();
        Ok(mounts)
    }
}

impl Page {
    /// In words, for messages.
    pub fn describe(&self) -> String {
        let one = |(path, body): (&String, &Vec<u8>)| match std::str::from_utf8(body) {
            Ok(text) if text.len() < 400 => format!("{path}: {text}"),
            _ => format!("{path}: {} bytes", body.len()),
        };
        self.0.iter().map(one).collect::<Vec<_>>().join("\n")
    }
}
