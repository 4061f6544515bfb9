//! A whole release against a Hub on this machine: the bundled model under a name there, and a repository with a card at the end.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// What the server takes for a user's token.
const TOKEN: &str = "hf_demo";

/// Stops the server, however this ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// # Errors
/// What fails, in words.
pub fn run() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let work = root.join("target/hub-demo");
    let text = |e: std::io::Error| e.to_string();
    let _ = fs::remove_dir_all(&work);
    let model = work.join("hub/demo/tiny-llama");
    fs::create_dir_all(&model).map_err(text)?;
    for e in fs::read_dir(root.join("golden/models/tiny-llama")).map_err(text)?.flatten() {
        if e.path().is_file() {
            fs::copy(e.path(), model.join(e.file_name())).map_err(text)?;
        }
    }
    let file = work.join("release.toml");
    fs::copy(root.join("docs/hub-release.toml"), &file).map_err(text)?;

    let cargo = env!("CARGO");
    crate::run(
        Command::new(cargo).args(["build", "--release", "-p", "tensormill-hub-server"]).current_dir(&root),
    )?;
    let child = Command::new(cargo)
        .args(["run", "--release", "--quiet", "-p", "tensormill-hub-server", "--", "--root"])
        .arg(work.join("hub"))
        .args(["--token", &format!("{TOKEN}=me")])
        .current_dir(&root)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(text)?;
    let mut server = Server(child);
    let mut url = String::new();
    let out = server.0.stdout.take().ok_or("the server says nothing")?;
    BufReader::new(out).read_line(&mut url).map_err(text)?;

    let mill = |args: &[&str]| {
        let mut c = Command::new(cargo);
        c.args(["run", "--release", "--quiet", "-p", "tensormill", "--"]).args(args).current_dir(&root);
        c.env("HF_ENDPOINT", url.trim()).env("HF_TOKEN", TOKEN).env("HF_HOME", work.join("cache"));
        crate::run(&mut c)
    };
    let file = file.display().to_string();
    mill(&["release", &file])?;
    println!("\n== what is at me/tiny-llama-GGUF now");
    mill(&["pull", "me/tiny-llama-GGUF@v1", "--all", "--dry-run"])?;
    println!("\n== its card, as somebody gets it");
    let got = work.join("got");
    mill(&["pull", "me/tiny-llama-GGUF@v1", "--all", "-o", &got.display().to_string()])?;
    print!("{}", fs::read_to_string(got.join("README.md")).map_err(text)?);
    mill(&["card", "--check", &got.join("README.md").display().to_string()])
}
