//! Compiles the inside's first process: a static program without any library, embedded in the
//! crate, so that a sandbox needs nothing installed.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    println!("cargo::rerun-if-changed=init");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let variable = |name: &str| env::var_os(name).ok_or(format!("cargo did not set {name}"));
    let target = env::var("TARGET").map_err(|_| "cargo did not set TARGET")?;
    if !matches!(target.split('-').next(), Some("x86_64" | "aarch64")) || !target.contains("linux")
    {
        return Err(format!(
            "sandboxes are for Linux on x86_64 and aarch64, not for {target}"
        ));
    }
    let output = PathBuf::from(variable("OUT_DIR")?).join("skep-init");
    let mut compiler = Command::new(variable("RUSTC")?);
    compiler
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .args([
            "--crate-name",
            "skep_init",
            "--crate-type",
            "bin",
            "--edition",
            "2024",
        ])
        .args(["--target", &target])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
            "-C",
            "relocation-model=static",
        ])
        .args(["-C", "codegen-units=1", "-C", "lto=fat"])
        .args([
            "-C",
            "overflow-checks=off",
            "-C",
            "debug-assertions=off",
            "-C",
            "strip=symbols",
        ])
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib"])
        .args([
            "-C",
            "link-arg=-static",
            "-C",
            "link-arg=-Wl,--build-id=none",
        ])
        .args([
            "-C",
            "link-arg=-Wl,-z,noexecstack",
            "-C",
            "link-arg=-Wl,--gc-sections",
        ])
        .arg("-o")
        .arg(&output)
        .arg("init/main.rs");
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        compiler.arg("-C").arg(option);
    }
    let status = compiler
        .status()
        .map_err(|error| format!("rustc cannot be run: {error}"))?;
    if !status.success() {
        return Err(format!(
            "the inside's first process does not compile: {status}"
        ));
    }
    Ok(())
}
