//! `hub-server --root DIR [--port N] [--token TOKEN=USER]... [--part-bytes N]`: serves every `DIR/OWNER/NAME` as a model's repository,
//! and takes what users push (into memory; in parts of so many bytes), until it is stopped.

use std::{path::Path, process::ExitCode};
use tensormill_hub_server::{Repo, Server, User};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), String> {
    let (mut root, mut port, mut users, mut part_bytes) = (None, 0, Vec::new(), None);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--root" => root = Some(value()?),
            "--port" => port = value()?.parse().map_err(|_| "--port needs a number".to_owned())?,
            "--part-bytes" => {
                part_bytes = Some(value()?.parse().map_err(|_| "--part-bytes needs a number".to_owned())?);
            }
            "--token" => {
                let text = value()?;
                let (token, name) = text.split_once('=').ok_or("--token needs TOKEN=USER")?;
                users.push((token.to_owned(), name.to_owned()));
            }
            _ => {
                return Err(format!(
                    "{arg}: usage: hub-server [--root DIR] [--port N] [--token TOKEN=USER]... [--part-bytes N]"
                ));
            }
        }
    }
    let server = Server::start_on(port).map_err(|e| format!("port {port}: {e}"))?;
    server.state().writing().part_bytes = part_bytes;
    for (token, name) in users {
        server.state().user(&token, User { name, writes: true, ..User::default() });
    }
    if let Some(root) = root {
        serve(&server, Path::new(&root)).map_err(|e| format!("{root}: {e}"))?;
    }
    println!("{}", server.url());
    eprintln!("export HF_ENDPOINT={}", server.url());
    loop {
        std::thread::park();
    }
}

fn serve(server: &Server, root: &Path) -> std::io::Result<()> {
    let folders = |path: &Path| -> std::io::Result<Vec<_>> {
        let mut found: Vec<_> =
            std::fs::read_dir(path)?.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
        found.sort();
        Ok(found)
    };
    for owner in folders(root)? {
        for folder in folders(&owner)? {
            let name = |p: &Path| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
            server.state().add(Repo::from_folder(&format!("{}/{}", name(&owner), name(&folder)), &folder)?);
        }
    }
    Ok(())
}
