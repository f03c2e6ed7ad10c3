//! The value that an execution hands back: the sidecar that prints it, and the reading of what it printed.
//!
//! The sidecar is an init container with restart policy Always. The kubelet sends it SIGTERM after all main containers have
//! ended, whatever their exit codes; then it prints the file, framed with length and checksum, and ends. So the value comes
//! through the log API, for which a role is needed anyway, and `pods/exec` is not.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::names::RESULT_NAME;
use crate::execution::{NoResult, RESULT_PATH, sha256_hex};

/// The folder of `RESULT_PATH`, which the deciding containers and the sidecar share.
pub(super) const FOLDER: &str = "/airflow/xcom";

/// The first word of each line of the frame, with its version.
const FRAME: &str = "podbroker-result-1";

/// What base 64 and the frame make of a value, with room for the runtime's timestamps: what is longer is no frame of ours.
pub(super) fn frame_limit(max_bytes: u32) -> usize {
    // 57 bytes a line become 76 characters, a newline and about 31 characters of timestamp.
    max_bytes as usize * 2 + 8192
}

/// The container that prints the file when it is told to end.
pub(super) fn sidecar(image: &str, max_bytes: u32) -> Value {
    let script = format!(
        r#"print() {{
  f={RESULT_PATH}
  if [ ! -e "$f" ]; then echo "{FRAME} missing"
  elif [ ! -r "$f" ]; then echo "{FRAME} unreadable"
  else
    n=$(wc -c <"$f")
    if [ "$n" -gt {max_bytes} ]; then echo "{FRAME} too-large $n"
    else
      s=$(sha256sum <"$f")
      echo "{FRAME} value" $n ${{s%% *}}
      base64 "$f"
      echo "{FRAME} end"
    fi
  fi
  exit 0
}}
trap print TERM
while :; do sleep 86400 & wait $!; done
"#
    );
    json!({
        "name": RESULT_NAME,
        "image": image,
        "command": ["sh", "-c", script],
        "restartPolicy": "Always",
        "volumeMounts": [{ "name": RESULT_NAME, "mountPath": FOLDER, "readOnly": true }],
        // Both are set, so that the pod also passes where a quota wants limits.
        "resources": {
            "requests": { "cpu": "1m", "memory": "16Mi" },
            "limits": { "cpu": "100m", "memory": "32Mi" },
        },
        // As much as the `restricted` pod security standard asks for, but the user, which is the pod's: the file's owner
        // may be the only one who can read it.
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}

/// Reads what the sidecar printed, without timestamps. The error is for a person.
pub(super) fn read_frame(log: &[u8], max_bytes: u32) -> Result<Bytes, NoResult> {
    let text = std::str::from_utf8(log).map_err(|_| unreadable("the result's frame is damaged"))?;
    let mut lines = text.lines().map(str::trim_end).skip_while(|line| !line.starts_with(FRAME));
    let head =
        lines.next().ok_or_else(|| unreadable("the container that prints the result was ended before it could"))?;
    let mut words = head.split(' ').skip(1);
    match (words.next(), words.next(), words.next()) {
        (Some("missing"), None, None) => Err(NoResult::Missing(format!("no container wrote {RESULT_PATH}"))),
        (Some("unreadable"), None, None) => {
            Err(unreadable(&format!("{RESULT_PATH} cannot be read by others; make it readable (chmod a+r)")))
        }
        (Some("too-large"), Some(size), None) => {
            Err(unreadable(&format!("the result has {size} bytes, {max_bytes} are allowed")))
        }
        (Some("value"), Some(size), Some(sum)) => {
            let mut encoded = String::with_capacity(log.len());
            let mut ended = false;
            for line in lines {
                if line.starts_with(FRAME) {
                    ended = true;
                    break;
                }
                encoded.push_str(line);
            }
            let damaged = || unreadable("the result was damaged on its way: length or checksum is wrong");
            let value = BASE64_STANDARD.decode(encoded).map_err(|_| damaged())?;
            if !ended || value.len().to_string() != size || sha256_hex(&value) != sum {
                return Err(damaged());
            }
            Ok(Bytes::from(value))
        }
        _ => Err(unreadable("the result's frame is damaged")),
    }
}

fn unreadable(problem: &str) -> NoResult {
    NoResult::Unreadable(problem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(value: &[u8]) -> String {
        let sum = sha256_hex(value);
        let body = BASE64_STANDARD.encode(value);
        format!("{FRAME} value {} {sum}\n{body}\n{FRAME} end\n", value.len())
    }

    #[test]
    fn a_value_comes_back_byte_for_byte() {
        for value in [&b""[..], b"{\"a\": 1}\n", &[0, 255, 10, 13]] {
            assert_eq!(read_frame(frame(value).as_bytes(), 100).unwrap(), value);
        }
    }

    #[test]
    fn the_shell_script_prints_what_is_read_here() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("return.json");
        std::fs::write(&file, b"[1, 2, \"\xc3\xa4\"]").unwrap();
        let script = sidecar("i", 100)["command"][2].as_str().unwrap().replace(RESULT_PATH, file.to_str().unwrap());
        // The loop waits for SIGTERM; here the function is called at once.
        let script = script.replace("trap print TERM", "print");
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(read_frame(&output.stdout, 100).unwrap(), &b"[1, 2, \"\xc3\xa4\"]"[..]);
    }

    #[test]
    fn a_changed_byte_or_a_missing_end_is_noticed() {
        let whole = frame(b"{\"a\": 1}");
        assert!(read_frame(whole.replace("eyJh", "eyJi").as_bytes(), 100).unwrap_err().problem().contains("damaged"));
        assert!(read_frame(whole.replace(&format!("{FRAME} end\n"), "").as_bytes(), 100).is_err());
    }

    #[test]
    fn each_reason_for_no_value_has_its_words() {
        for (log, words) in [
            ("", "ended before"),
            ("podbroker-result-1 missing\n", "no container wrote"),
            ("podbroker-result-1 unreadable\n", "readable"),
            ("podbroker-result-1 too-large 300\n", "300 bytes, 100 are allowed"),
            ("podbroker-result-1 what\n", "damaged"),
        ] {
            let problem = read_frame(log.as_bytes(), 100).unwrap_err();
            assert!(problem.problem().contains(words), "{log:?}: {problem:?}");
            assert_eq!(matches!(problem, NoResult::Missing(_)), words == "no container wrote");
        }
    }
}
