//! Public host keys of a guest: as people write them, and as cloud-init prints them on the console.

use ssh_key::{Algorithm, PublicKey};

const BEGIN: &str = "-----BEGIN SSH HOST KEY KEYS-----";
const END: &str = "-----END SSH HOST KEY KEYS-----";

/// Reads a public key such as `ssh-ed25519 AAAA…`, with or without a comment. Gives it without the comment.
pub fn host_key(text: &str) -> Result<String, String> {
    let shown = || text.chars().take(40).collect::<String>();
    let mut key = PublicKey::from_openssh(text.trim()).map_err(|e| {
        format!("{:?} is no public key of a host, such as \"ssh-ed25519 AAAA…\": {e}", shown())
    })?;
    if matches!(key.algorithm(), Algorithm::Other(_)) {
        return Err(format!("{:?} is a key of an unknown kind", shown()));
    }
    key.set_comment("");
    key.to_openssh().map(|k| k.trim().to_string()).map_err(|e| e.to_string())
}

/// The host keys that the guest printed at its last boot: what is between cloud-init's two marks. None when the
/// last block was cut off by the end of the log, or is not there at all.
///
/// Whoever may write to the console can put a block there, which is anybody with root in that guest; nobody else.
pub fn host_keys_from_console(console: &str) -> Vec<String> {
    let Some((_, block)) = console.rsplit_once(BEGIN) else { return Vec::new() };
    let Some((block, _)) = block.split_once(END) else { return Vec::new() };
    let mut keys: Vec<String> = block.lines().filter_map(key_of_line).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// A line may begin with the kernel's clock and the name of who wrote it.
fn key_of_line(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(2).find_map(|pair| host_key(&pair.join(" ")).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHxVNrdUMyEeQmxaOXLMud0uwgOFNu0sqwMoly0uKS0C";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9i";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBBt1ruj9WRxVXnLTmMvLGqrBBSFcBVvfFkkSm6BxhBhIn7wGm8JKjGiRbHFIJkpWA4MGBNPKq9NMDWqFKf8Ke0g=";

    fn block(lines: &[&str]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", lines.join("\n"))
    }

    #[test]
    fn keys_are_read() {
        assert_eq!(host_key(&format!(" {ED25519} root@vm\n")).as_deref(), Ok(ED25519));
        let short = &ED25519[..ED25519.len() - 8];
        let mixed = ED25519.replace("ssh-ed25519", "ssh-rsa");
        let two = format!("{ED25519}\n{OTHER}");
        let marked = format!("@cert-authority {ED25519}");
        for bad in ["", "ssh-ed25519", "ssh-ed25519 AAAA", "x-unknown AAAA", short, &mixed, &two, &marked] {
            assert!(host_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn consoles_are_read() {
        let keys = host_keys_from_console;
        let plain = block(&[&format!("{ED25519} root@vm")]);
        let noise = "[    0.000000] Linux version 6.1\nssh-ed25519 AAAA\n";
        let prefixed: String = block(&[&format!("{ED25519} root@vm"), "not a key", OTHER])
            .lines()
            .map(|l| format!("[   12.345678] cloud-init[1234]: {l}\r\n"))
            .collect();
        let reboot = format!("{noise}{}{noise}{}login: ", block(&[OTHER]), block(&[ED25519, ED25519]));
        let cases: [(String, &[&str]); 9] = [
            (String::new(), &[]),
            (noise.into(), &[]),
            (plain.clone(), &[ED25519]),
            (plain.replace('\n', "\r\n"), &[ED25519]),
            (prefixed, &[ED25519, OTHER]),
            // The last boot counts.
            (reboot, &[ED25519]),
            // Cut at the end: what the present boot has is not known; cut at the beginning: no block.
            (format!("{}{BEGIN}\n{ED25519}\n", block(&[OTHER])), &[]),
            (format!("{ED25519}\n{END}\n"), &[]),
            (block(&["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHxVNrdUMyEeQmx", "sk-x AAAA"]), &[]),
        ];
        for (console, expected) in cases {
            assert_eq!(keys(&console), expected, "{console}");
        }
    }

    #[test]
    fn every_usual_kind_is_known() {
        assert!(host_key(ECDSA).is_ok(), "{:?}", host_key(ECDSA));
    }
}
