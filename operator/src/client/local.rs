//! The clouds of the user's own `clouds.yaml`, if there is one: to look at a live server. Nothing of it goes anywhere
//! but to the clouds that it names. It is found and read as openstacksdk does it.

use crate::{
    net::EndpointPolicy,
    openstack::{Cloud, Credentials, Machine, Timeouts},
};
use serde_json::{Map, Value};
use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

/// The environment, by name.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

fn environment(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where `clouds` or `secure` may be, in openstacksdk's order.
fn places(stem: &str, named_by: &str, environment: Environment<'_>) -> Vec<PathBuf> {
    let below = |home: &str, folder: &str| environment(home).map(|home| Path::new(&home).join(folder));
    let mut folders = vec![PathBuf::new()];
    let home = below("XDG_CONFIG_HOME", "openstack").or_else(|| below("HOME", ".config/openstack"));
    folders.extend(home);
    folders
        .extend(below("SNAP_REAL_HOME", ".config/openstack").or_else(|| below("HOME", ".config/openstack")));
    let site = environment("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
    folders.extend(env::split_paths(&site).map(|folder| folder.join("openstack")));
    folders.push("/etc/openstack".into());
    let named = environment(named_by).map(PathBuf::from);
    let kinds = ["yaml", "yml", "json"];
    let usual = folders.iter().flat_map(|folder| kinds.map(|kind| folder.join(stem).with_extension(kind)));
    named.into_iter().chain(usual).collect()
}

/// The user's clouds.
pub struct LocalClouds {
    /// The file.
    pub path: PathBuf,
    clouds: Map<String, Value>,
}

/// The first `clouds.yaml` that there is, with the first `secure.yaml` over it; `None`: there is none. An error names
/// the file.
pub fn find() -> Result<Option<LocalClouds>, String> {
    find_in(&environment)
}

fn find_in(environment: Environment<'_>) -> Result<Option<LocalClouds>, String> {
    let first = |stem, named_by| places(stem, named_by, environment).into_iter().find(|p| p.is_file());
    let clouds = first("clouds", "OS_CLIENT_CONFIG_FILE");
    let secure = first("secure", "OS_CLIENT_SECURE_FILE");
    let Some(path) = clouds.clone().or_else(|| secure.clone()) else { return Ok(None) };
    let mut all = Map::new();
    for file in clouds.iter().chain(&secure) {
        merge(&mut all, read(file)?);
    }
    Ok(Some(LocalClouds { path, clouds: all }))
}

/// The entries of a file.
fn read(path: &Path) -> Result<Map<String, Value>, String> {
    let fail = |why: &str| format!("{}: {why}", path.display());
    let bytes = std::fs::read(path).map_err(|e| fail(&e.to_string()))?;
    // The parser's own message would quote the file, secrets included.
    let mut file: Value = serde_saphyr::from_slice(&bytes).map_err(|_| fail("not valid YAML"))?;
    match file.get_mut("clouds").map(Value::take) {
        Some(Value::Object(clouds)) => Ok(clouds),
        _ => Ok(Map::new()),
    }
}

/// Maps are merged at every depth; everything else is replaced.
fn merge(all: &mut Map<String, Value>, more: Map<String, Value>) {
    for (key, value) in more {
        match (all.get_mut(&key), value) {
            (Some(Value::Object(all)), Value::Object(more)) => merge(all, more),
            (_, value) => drop(all.insert(key, value)),
        }
    }
}

impl LocalClouds {
    /// Is there an entry of this name?
    pub fn has(&self, name: &str) -> bool {
        self.clouds.contains_key(name)
    }

    /// What an entry says, and what it says of this machine: files and switches, which a Secret could not have.
    fn entry(&self, name: &str) -> Result<(Credentials, Machine), String> {
        let mut entry = match self.clouds.get(name) {
            Some(Value::Object(entry)) => entry.clone(),
            _ => return Err(format!("no cloud {name}")),
        };
        let (verify, bundle) = verification(&mut entry)?;
        let cacert = path_in(&mut entry, "cacert")?.or(bundle);
        let cacert = cacert.or_else(|| environment("OS_CACERT").map(PathBuf::from));
        let cacert = cacert.filter(|_| verify).map(|file| contents(&file)).transpose()?;
        let machine = Machine { verify, identity: identity(&mut entry)?, proxies: true };
        let yaml = Value::from(Map::from_iter([(name.to_string(), entry.into())]));
        let yaml = Value::from(Map::from_iter([("clouds".to_string(), yaml)])).to_string();
        let credentials = Credentials::parse(yaml.as_bytes(), Some(name), cacert.as_deref());
        Ok((credentials.map_err(in_file)?, machine))
    }

    /// A connection to the cloud of an entry. It may be on this machine, behind a tunnel.
    pub async fn connect(&self, name: &str) -> Result<Cloud, String> {
        let (credentials, machine) = self.entry(name)?;
        let policy = EndpointPolicy { allow_loopback: true, denied: vec![] };
        let timeouts = Timeouts { control: Duration::from_secs(30), ..Timeouts::default() };
        Cloud::connect_from(&machine, &credentials, &policy, name, timeouts).await.map_err(in_file)
    }
}

/// What to do is said of a Secret; here there is a file.
fn in_file(error: impl ToString) -> String {
    error.to_string().replace("key cacert of the Secret", "cacert in clouds.yaml")
}

/// Whether certificates are verified, and a CA that `verify` names, as Python's requests take it.
fn verification(entry: &mut Map<String, Value>) -> Result<(bool, Option<PathBuf>), String> {
    let insecure = match entry.remove("insecure") {
        Some(Value::Bool(insecure)) => insecure,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    };
    let (verify, bundle) = match entry.remove("verify") {
        Some(Value::Bool(verify)) => (verify, None),
        Some(Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "" | "true" | "yes" | "on" | "1" => (true, None),
            "false" | "no" | "off" | "0" => {
                return Err(
                    "verify is a text, and openstacksdk takes it for a file; write false without quotes"
                        .into(),
                );
            }
            _ => (true, Some(expanded(&text))),
        },
        _ => (true, None),
    };
    Ok((verify && !insecure, bundle))
}

/// Certificate and key of the client; both may be in one file.
fn identity(entry: &mut Map<String, Value>) -> Result<Option<Vec<u8>>, String> {
    let (certificate, key) = (path_in(entry, "cert")?, path_in(entry, "key")?);
    let Some(certificate) = certificate else { return Ok(None) };
    let mut pem = contents(&certificate)?;
    if let Some(key) = key {
        pem.push(b'\n');
        pem.extend(contents(&key)?);
    }
    Ok(Some(pem))
}

/// A file that an entry names.
fn path_in(entry: &mut Map<String, Value>, key: &str) -> Result<Option<PathBuf>, String> {
    match entry.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(expanded(&text))),
        Some(_) => Err(format!("{key} must be the path of a file")),
    }
}

/// `~` is the user's home.
fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), environment("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.into(),
    }
}

fn contents(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    /// A home with these files.
    fn home(files: &[(&str, &str)]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = home.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        home
    }

    /// What is found there; `~` in a variable is that home.
    fn found(home: &tempfile::TempDir, variables: &[(&str, &str)]) -> Result<Option<LocalClouds>, String> {
        let there = home.path().display().to_string();
        let mut all: BTreeMap<&str, String> =
            variables.iter().map(|(name, value)| (*name, value.replace('~', &there))).collect();
        all.entry("HOME").or_insert_with(|| there.clone());
        all.entry("XDG_CONFIG_DIRS").or_insert_with(|| there.clone());
        find_in(&|name| all.get(name).cloned())
    }

    fn one(name: &str) -> String {
        json!({"clouds": {name: {}}}).to_string()
    }

    #[test]
    fn the_file_is_where_openstacksdk_finds_it() {
        let (a, b) = (one("a"), one("b"));
        for (files, variables, expected) in [
            (&[(".config/openstack/clouds.yaml", &a)][..], &[][..], "a"),
            (&[(".config/openstack/clouds.yml", &a)], &[], "a"),
            (&[(".config/openstack/clouds.json", &a)], &[], "a"),
            (&[(".config/openstack/clouds.json", &b), (".config/openstack/clouds.yaml", &a)], &[], "a"),
            (
                &[("xdg/openstack/clouds.yaml", &a), (".config/openstack/clouds.yaml", &b)],
                &[("XDG_CONFIG_HOME", "~/xdg")],
                "a",
            ),
            (&[(".config/openstack/clouds.yaml", &a)], &[("XDG_CONFIG_HOME", "~/xdg")], "a"),
            (&[("site/openstack/clouds.yaml", &a)], &[("XDG_CONFIG_DIRS", "~/none:~/site")], "a"),
            (
                &[("mine", &a), (".config/openstack/clouds.yaml", &b)],
                &[("OS_CLIENT_CONFIG_FILE", "~/mine")],
                "a",
            ),
            // One that is not there is passed over.
            (&[(".config/openstack/clouds.yaml", &a)], &[("OS_CLIENT_CONFIG_FILE", "~/none")], "a"),
        ] {
            let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (*p, t.as_str())).collect();
            let clouds = found(&home(&files), variables).unwrap().unwrap();
            assert!(clouds.has(expected), "{files:?} {variables:?}: {}", clouds.path.display());
        }
        assert!(found(&home(&[]), &[]).unwrap().is_none());
    }

    const ENTRY: &str = "clouds:\n  a:\n    auth: {auth_url: 'https://a/v3', username: u, user_domain_name: D, \
                         project_id: x}\n";

    #[test]
    fn secrets_may_be_in_a_file_of_their_own() {
        let secure = "clouds: {a: {auth: {password: pw}}, b: {}}";
        for (place, variables) in [
            (".config/openstack/secure.yaml", &[][..]),
            ("elsewhere", &[("OS_CLIENT_SECURE_FILE", "~/elsewhere")]),
        ] {
            let home = home(&[(".config/openstack/clouds.yaml", ENTRY), (place, secure)]);
            let clouds = found(&home, variables).unwrap().unwrap();
            let (credentials, _) = clouds.entry("a").unwrap();
            assert!(credentials.to_single_clouds_yaml().contains("\"pw\""));
            assert!(clouds.has("b"));
        }
        // What it says counts.
        let home = home(&[
            ("clouds", &format!("{ENTRY}    region_name: R\n")),
            ("secure", "clouds: {a: {region_name: S, auth: {password: pw}}}"),
        ]);
        let variables = [("OS_CLIENT_CONFIG_FILE", "~/clouds"), ("OS_CLIENT_SECURE_FILE", "~/secure")];
        let (credentials, _) = found(&home, &variables).unwrap().unwrap().entry("a").unwrap();
        assert_eq!(credentials.region(), Some("S"));
    }

    /// What an entry with these lines says of the machine.
    fn machine(lines: &str) -> Result<(Credentials, Machine), String> {
        let text = format!("{}{lines}", ENTRY.replace("username: u", "username: u, password: pw"));
        let home =
            home(&[(".config/openstack/clouds.yaml", &text), ("pem", "-----PEM-----"), ("key", "KEY")]);
        let clouds = text.replace('~', &home.path().display().to_string());
        std::fs::write(home.path().join(".config/openstack/clouds.yaml"), clouds).unwrap();
        found(&home, &[]).unwrap().unwrap().entry("a")
    }

    #[test]
    fn files_and_switches_of_the_users_own_count() {
        for (lines, verify) in [
            ("", true),
            ("    verify: true\n", true),
            ("    verify: 'True'\n", true),
            ("    verify: false\n", false),
            ("    insecure: true\n", false),
            ("    insecure: 'True'\n    verify: true\n", false),
            // Not read where nothing is verified, as in openstacksdk.
            ("    verify: false\n    cacert: /nowhere.pem\n", false),
        ] {
            assert_eq!(machine(lines).unwrap().1.verify, verify, "{lines}");
        }
        let (_, with_key) = machine("    cert: ~/pem\n    key: ~/key\n").unwrap();
        assert_eq!(with_key.identity.unwrap(), b"-----PEM-----\nKEY");
        for (lines, told) in [
            ("    cacert: /nowhere.pem\n", "/nowhere.pem: "),
            ("    verify: /nowhere.pem\n", "/nowhere.pem: "),
            ("    cert: /nowhere.pem\n", "/nowhere.pem: "),
            ("    verify: 'False'\n", "write false without quotes"),
            ("    cacert: [x]\n", "cacert must be"),
            ("    cacert: ~/pem\n", "cacert in clouds.yaml holds no PEM"),
            ("    profile: ovh\n", "profile: "),
        ] {
            let why = machine(lines).err().unwrap_or_default();
            assert!(why.contains(told) && !why.contains("Secret"), "{lines}: {why}");
        }
    }

    #[test]
    fn a_broken_file_is_named_and_not_quoted() {
        let home = home(&[(".config/openstack/clouds.yaml", "clouds: [\n password: secret")]);
        let why = found(&home, &[]).err().unwrap();
        assert!(why.contains("clouds.yaml: not valid YAML") && !why.contains("secret"), "{why}");
    }
}
