//! A guest that is reached over SSH: a real dropbear on loopback, one process for each connection.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;

/// Dropbear reads the keys of a user in that user's home; so it gets one of its own there, in a name space of its own.
const SERVE: &str = r#"
[ "$(id -u)" = 0 ] || own="--user --map-current-user --keep-caps"
home=$(getent passwd "$(id -u)" | cut -d: -f6)
exec unshare ${own:-} --mount busybox sh -c \
  'busybox mount -o bind "$0" "$1" && exec dropbear -i -s -r "$2"' "$1" "$home" "$2"
"#;

/// The guest and whoever may log in to it.
pub struct Guest {
    pub address: SocketAddr,
    pub user: String,
    pub host_key: String,
    pub directory: TempDir,
    /// So many connections are closed at once before any is served, as while a guest boots.
    pub refusals: Arc<AtomicUsize>,
}

impl Guest {
    pub fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        let host_key = key(&at("host"));
        let home = at("home").join(".ssh");
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("authorized_keys"), key(&at("user"))).unwrap();
        key(&at("stranger"));
        run("chmod", &["-R", "go=", &at("home").to_string_lossy()]);
        run("dropbearconvert", &["openssh", "dropbear", &text(&at("host")), &text(&at("host.dropbear"))]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let refusals = Arc::new(AtomicUsize::new(0));
        let guest = Self {
            address: listener.local_addr().unwrap(),
            user: run("id", &["-un"]),
            host_key,
            refusals: Arc::clone(&refusals),
            directory,
        };
        let (home, key) = (guest.path("home"), guest.path("host.dropbear"));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let open =
                    refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err();
                if open {
                    serve(connection, &home, &key);
                }
            }
        });
        guest
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn serve(connection: TcpStream, home: &Path, key: &Path) {
    let output = connection.try_clone().unwrap();
    let mut server = Command::new("sh");
    server.args(["-c", SERVE, "sh"]).arg(home).arg(key).env("PATH", path());
    server.stdin(Stdio::from(OwnedFd::from(connection))).stdout(Stdio::from(OwnedFd::from(output)));
    let mut server = server.spawn().unwrap();
    std::thread::spawn(move || server.wait());
}

/// Servers are not in everybody's path.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Makes a pair of keys and gives the public one.
fn key(file: &Path) -> String {
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f", &text(file)]);
    std::fs::read_to_string(file.with_extension("pub")).unwrap()
}

/// A test without the real programs would prove nothing, so it fails.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("PATH", path()).output();
    let output = output.unwrap_or_else(|e| {
        panic!("{program}: {e}; the packages openssh-client, dropbear-bin and busybox are needed (or: make testbed-up)")
    });
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}
